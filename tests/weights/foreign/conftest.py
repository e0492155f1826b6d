"""ResNets for volumes as other projects build and name them, written anew from descriptions."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.types import Triple
from voxlift.weights.container import Container
from voxlift.weights.file import WeightFile
from voxlift.weights.translation import WeightFormat


class TheirShortcut(nn.Module):
    """Shortcut A: pooling by a kernel of one voxel, and channels of zeros behind."""

    def __init__(self, channels: int, stride: Triple) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, volume: Tensor) -> Tensor:
        """Pool and pad."""
        pooled = functional.avg_pool3d(volume, kernel_size=1, stride=self.stride)
        zeros = pooled.new_zeros(
            pooled.shape[0], self.channels - pooled.shape[1], *pooled.shape[2:]
        )
        return torch.cat([pooled, zeros], dim=1)


class TheirBlock(nn.Module):
    """Two or three convolutions, each with its norm behind it."""

    def __init__(
        self,
        before: int,
        inner: int,
        *,
        bottleneck: bool,
        stride: Triple,
        dilation: int,
        norm: str,
        shortcut: str,
        project: bool,
    ) -> None:
        super().__init__()
        after = inner * (4 if bottleneck else 1)
        self.last = 3 if bottleneck else 2
        through = [before, inner, inner, after] if bottleneck else [before, inner, after]
        for i in range(self.last):
            wide = not bottleneck or i == 1
            strided = i == (1 if bottleneck else 0)
            conv = nn.Conv3d(
                through[i],
                through[i + 1],
                3 if wide else 1,
                stride=stride if strided else 1,
                padding=dilation if wide else 0,
                dilation=dilation if wide else 1,
                bias=False,
            )
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"{norm}{i + 1}", their_norm(norm, through[i + 1]))
        self.norm = norm
        self.downsample: nn.Module | None = None
        if project or (shortcut == "B" and before != after):
            self.downsample = nn.Sequential(
                nn.Conv3d(before, after, 1, stride=stride, bias=False), their_norm(norm, after)
            )
        elif before != after:
            self.downsample = TheirShortcut(after, stride)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the block."""
        out = volume
        for i in range(1, self.last + 1):
            out = self.get_submodule(f"{self.norm}{i}")(self.get_submodule(f"conv{i}")(out))
            if i < self.last:
                out = functional.relu(out)
        beside = volume if self.downsample is None else self.downsample(volume)
        return functional.relu(out + beside)


def their_norm(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm3d(channels) if norm == "bn" else nn.GroupNorm(32, channels)


class TheirResNet(nn.Module):
    """A ResNet for volumes with the names that the projects share."""

    def __init__(
        self,
        *,
        blocks: tuple[int, ...] = (1, 1, 1, 1),
        bottleneck: bool = False,
        width: int = 4,
        in_channels: int = 1,
        norm: str = "bn",
        shortcut: str = "B",
        project_first: bool = False,
        stem_stride: Triple = (1, 1, 1),
        pool_stride: Triple = (2, 2, 2),
        stage_strides: tuple[Triple, ...] = ((1, 1, 1),) * 4,
        dilations: tuple[int, ...] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, width, 7, stride=stem_stride, padding=3, bias=False)
        self.norm, self.pool_stride = norm, pool_stride
        self.add_module(f"{norm}1", their_norm(norm, width))
        before = width
        for stage in range(4):
            inner, made = width * 2**stage, []
            for i in range(blocks[stage]):
                block = TheirBlock(
                    before,
                    inner,
                    bottleneck=bottleneck,
                    stride=stage_strides[stage] if i == 0 else (1, 1, 1),
                    dilation=dilations[stage],
                    norm=norm,
                    shortcut=shortcut,
                    project=project_first and stage == i == 0,
                )
                made.append(block)
                before = inner * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the stem's map before pooling, then the four stages'."""
        out = functional.relu(self.get_submodule(f"{self.norm}1")(self.conv1(volume)))
        maps = [out]
        out = functional.max_pool3d(out, kernel_size=3, stride=self.pool_stride, padding=1)
        for stage in range(1, 5):
            out = self.get_submodule(f"layer{stage}")(out)
            maps.append(out)
        return maps


def randomise(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give every number of a network a random value, running statistics included."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif name.endswith(("running_var", "weight")) and tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        else:
            fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 16
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / fan_in**0.5)
    return network.eval()


@pytest.fixture
def make_their_resnet() -> Callable[..., Any]:
    """Make a ResNet of another project with random numbers, in double precision."""

    def make(*, seed: int = 0, **options: Any) -> nn.Module:
        return randomise(TheirResNet(**options), seed=seed).double()

    return make


@pytest.fixture
def randomised() -> Callable[..., nn.Module]:
    """Give a network random numbers."""
    return randomise


@pytest.fixture
def make_container() -> Callable[..., Container]:
    """Hold tensors as the reader of files does, each name behind a prefix."""

    def make(
        state: Mapping[str, Tensor],
        *,
        prefix: str = "",
        wrapper: str = "state_dict",
        extras: Mapping[str, object] | None = None,
        sha256: str = "0" * 64,
        modules: Iterable[str] = (),
    ) -> Container:
        tensors = {prefix + name: tensor for name, tensor in state.items()}
        path = Path("weights.pth")
        return Container(path, sha256, tensors, {}, wrapper, dict(extras or {}), frozenset(modules))

    return make


@pytest.fixture
def translated() -> Callable[[WeightFormat, Container], WeightFile]:
    """Translate a container as the reader of weight files does."""

    def translate(known: WeightFormat, container: Container) -> WeightFile:
        translation = known.translate(container)
        return WeightFile(
            path=container.path,
            sha256=container.sha256,
            format="foreign",
            tensors=translation.tensors,
            header=translation.header,
            ignored=translation.ignored,
            adapted=translation.adapted,
            notes=translation.notes,
            geometry_matters=translation.geometry_matters,
        )

    return translate
