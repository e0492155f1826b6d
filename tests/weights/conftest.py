"""Stand-ins for real networks: the same names and attributes, a hundredth of the size."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.weights.file import write_weight_file
from voxlift.weights.header import WeightHeader


class StandInBackbone(nn.Module):
    """A stem and one layer with the names of a ResNet."""

    def __init__(self, architecture: Architecture, geometry: Geometry) -> None:
        super().__init__()
        self.architecture = architecture
        self.geometry = geometry
        width, edge = architecture.width, architecture.stem_kernel

        def norm() -> nn.Module:
            if architecture.norm == "batch":
                return nn.BatchNorm3d(width)
            return nn.GroupNorm(1, width)

        self.conv1 = nn.Conv3d(architecture.in_channels, width, edge, padding="same", bias=False)
        self.norm1 = norm()
        conv = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(nn.Sequential(OrderedDict(conv1=conv, norm1=norm())))

    def forward(self, volume: Tensor) -> Tensor:
        """Compute one feature map."""
        features: Tensor = self.layer1(torch.relu(self.norm1(self.conv1(volume))))
        return features


class StandInClassifier(nn.Module):
    """A stand-in backbone with a linear head."""

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.conv1.out_channels, num_classes)  # type: ignore[union-attr, arg-type]


class Compiled(nn.Module):
    """What `torch.compile` makes of a module, without the seconds that importing it takes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module

    def __getattr__(self, name: str) -> Any:
        """Look through to the module."""
        if name == "_orig_mod":
            return super().__getattr__(name)
        return getattr(self._orig_mod, name)


@pytest.fixture
def wrap() -> Callable[[nn.Module], nn.Module]:
    """Wrap a module as `torch.compile` does."""
    return Compiled


@pytest.fixture
def make_backbone() -> Callable[..., Any]:
    """Make a stand-in backbone whose every number is random, running statistics included."""

    def make(
        *,
        width: int = 4,
        stem_kernel: Literal[3, 5, 7] = 3,
        in_channels: int = 1,
        norm: Literal["batch", "group"] = "batch",
        geometry: str = "pretrain",
        seed: int = 0,
    ) -> nn.Module:
        architecture = Architecture(
            name="resnet10",
            width=width,
            stem_kernel=stem_kernel,
            in_channels=in_channels,
            norm=norm,
        )
        backbone = StandInBackbone(architecture, named_geometry(geometry))
        generator = torch.Generator().manual_seed(seed)
        for tensor in backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        return backbone.eval()

    return make


@pytest.fixture
def make_classifier(make_backbone: Callable[..., Any]) -> Callable[..., Any]:
    """Make a stand-in backbone with a head."""

    def make(*, num_classes: int = 3, **options: object) -> nn.Module:
        torch.manual_seed(int(str(options.get("seed", 0))))
        return StandInClassifier(make_backbone(**options), num_classes).eval()

    return make


@pytest.fixture
def header() -> WeightHeader:
    """A header with nothing but what it needs."""
    return WeightHeader(
        architecture=Architecture(name="resnet10", width=4, stem_kernel=3),
        geometry=named_geometry("pretrain"),
    )


@pytest.fixture
def weight_path(tmp_path: Path, header: WeightHeader) -> Path:
    """A small whole weight file."""
    path = tmp_path / "whole.safetensors"
    write_weight_file(path, {"conv1.weight": torch.arange(8.0).reshape(2, 4)}, header)
    return path
