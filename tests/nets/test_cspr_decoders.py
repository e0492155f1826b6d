"""The paper's two decoders, against its public configurations: shapes, numbers and functions."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import GEOMETRIES, Geometry
from voxlift.nets.cspr_fcn import CsprFCN
from voxlift.nets.cspr_unet import CsprUNet
from voxlift.nets.layers import GroupNorm
from voxlift.nets.resnet import ResNet

Decoder = type[CsprUNet] | type[CsprFCN]
DECODERS: list[Decoder] = [CsprUNet, CsprFCN]


def make(
    decoder: Decoder,
    geometry: Geometry = GEOMETRIES["unet"],
    *,
    name: str = "resnet10",
    width: int = 4,
    stem: Literal[3, 5, 7] = 3,
    num_classes: int = 3,
    norm: Norm = "batch",
) -> CsprUNet | CsprFCN:
    architecture = Architecture(name=name, width=width, stem_kernel=stem, norm=norm)
    return decoder(ResNet(architecture, geometry), num_classes=num_classes)


def convolution(kernel: int, before: int, after: int) -> int:
    """Parameters of a convolution without bias and of its norm."""
    return kernel**3 * before * after + 2 * after


def parameters(model: CsprUNet | CsprFCN) -> int:
    """Parameters of all but the backbone."""
    return sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith("backbone.")
    )


def test_the_unet_has_the_papers_number_of_parameters() -> None:
    """The neck for 64, 64, 128, 256 and 512 channels, the head 64, 16, 16 and 14 classes."""
    neck = 0
    for below, beside in ((64, 64), (128, 64), (256, 128), (512, 256)):
        neck += convolution(1, below, beside)
        neck += convolution(3, 2 * beside, beside) + convolution(3, beside, beside)
    head = convolution(3, 64, 16) + convolution(3, 16, 16) + 16 * 14 + 14
    model = make(CsprUNet, name="resnet18", width=64, stem=7, num_classes=14)
    assert parameters(model) == neck + head == 7_513_134
    assert round((neck + head) / 1e6, 2) == 7.51


def test_the_fcn_has_the_papers_number_of_parameters() -> None:
    """Fusions of 128 + 512 and of 64 + 512 to 512, then 512 to 128 and 2 classes."""
    fusions = convolution(1, 128 + 512, 512) + convolution(1, 64 + 512, 512)
    head = convolution(3, 512, 128) + 128 * 2 + 2
    model = make(CsprFCN, GEOMETRIES["nodule"], name="resnet18", width=64, stem=7, num_classes=2)
    assert parameters(model) == fusions + head


def test_the_head_of_the_unet_has_16_channels_at_any_width() -> None:
    assert [make(CsprUNet, width=width).head[3].weight.shape[1] for width in (4, 64)] == [16, 16]  # type: ignore[index]


def test_shapes_of_the_papers_layers() -> None:
    unet = make(CsprUNet, name="resnet18", width=64)
    shapes = {name: tuple(p.shape) for name, p in unet.named_parameters() if p.ndim == 5}
    assert [shapes[f"reductions.{i}.0.weight"] for i in range(4)] == [
        (64, 64, 1, 1, 1),
        (64, 128, 1, 1, 1),
        (128, 256, 1, 1, 1),
        (256, 512, 1, 1, 1),
    ]
    assert [shapes[f"levels.{i}.0.0.weight"] for i in range(4)] == [
        (64, 128, 3, 3, 3),
        (64, 128, 3, 3, 3),
        (128, 256, 3, 3, 3),
        (256, 512, 3, 3, 3),
    ]
    dropouts = [m for m in unet.modules() if isinstance(m, nn.Dropout3d)]
    assert [each.p for each in dropouts] == [0.1]
    fcn = make(CsprFCN, name="resnet18", width=64)
    shapes = {name: tuple(p.shape) for name, p in fcn.named_parameters() if p.ndim == 5}
    assert shapes["fusions.0.0.weight"] == (512, 640, 1, 1, 1)
    assert shapes["fusions.1.0.weight"] == (512, 576, 1, 1, 1)
    assert shapes["head.0.0.weight"] == (128, 512, 3, 3, 3)


def convolve(layers: nn.Module, volume: Tensor) -> Tensor:
    """A convolution, its norm in evaluation and a ReLU, by their tensors alone."""
    weight, scale, shift, mean, variance = list(layers.state_dict().values())[:5]
    out = functional.conv3d(volume, weight, padding=weight.shape[-1] // 2)
    return functional.batch_norm(out, mean, variance, scale, shift).relu()


def spread_norms(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm3d):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                assert tensor is not None
                nn.init.normal_(tensor, 0.5, 0.2)


@torch.no_grad()
def test_the_unet_computes_what_the_paper_does() -> None:
    """Enlarge twofold, convolve by 1^3, lay behind the map beside it, convolve twice."""
    model = make(CsprUNet).eval()
    spread_norms(model)
    assert isinstance(model, CsprUNet)
    volume = torch.randn(1, 1, 16, 32, 32)
    maps = model.backbone(volume)
    out = maps[4]
    for i in (3, 2, 1, 0):
        out = functional.interpolate(out, scale_factor=2, mode="trilinear")
        out = torch.cat([maps[i], convolve(model.reductions[i], out)], 1)
        first, second = model.levels[i].children()
        out = convolve(second, convolve(first, out))
    out = convolve(model.head[1], convolve(model.head[0], out))
    expected = functional.conv3d(out, model.head[3].weight, model.head[3].bias)  # type: ignore[arg-type]
    torch.testing.assert_close(model(volume), expected)


@torch.no_grad()
def test_the_fcn_computes_what_the_paper_does() -> None:
    model = make(CsprFCN, GEOMETRIES["nodule"]).eval()
    spread_norms(model)
    assert isinstance(model, CsprFCN)
    volume = torch.randn(1, 1, 8, 12, 16)
    stem, _, stage2, _, stage4 = model.backbone(volume)
    out = torch.cat([stage2, functional.interpolate(stage4, scale_factor=2)], 1)
    out = convolve(model.fusions[0], out)
    out = convolve(
        model.fusions[1], torch.cat([stem, functional.interpolate(out, scale_factor=2)], 1)
    )
    out = convolve(model.head[0], out)
    expected = functional.conv3d(out, model.head[1].weight, model.head[1].bias)  # type: ignore[arg-type]
    torch.testing.assert_close(model(volume), expected)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_output_has_the_size_of_the_input(
    decoder: Decoder, geometry: Geometry, name: str
) -> None:
    smallest = geometry.smallest_size()
    size = (smallest[0] | 1, (smallest[1] | 1) + 2, (smallest[2] | 1) + 4)
    model = make(decoder, geometry, name=name).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_gradient_reaches_every_parameter(decoder: Decoder) -> None:
    model = make(decoder, width=8).train()
    logits = model(torch.randn(2, 1, 17, 18, 19))
    (logits * torch.randn_like(logits)).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("decoder", DECODERS)
def test_norm_and_number_of_classes(decoder: Decoder) -> None:
    parts = [m for n, m in make(decoder, norm="group").named_modules() if "backbone" not in n]
    assert any(isinstance(m, GroupNorm) for m in parts)
    assert not any(isinstance(m, nn.BatchNorm3d) for m in parts)
    with pytest.raises(ConfigError, match="at least one output; found 0"):
        make(decoder, num_classes=0)
