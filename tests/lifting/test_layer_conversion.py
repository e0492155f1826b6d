"""Every layer that has a counterpart for volumes, on volumes of equal slices."""

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from voxlift.core.errors import ConfigError
from voxlift.core.inflation import Mode
from voxlift.lifting.convert import convert_layers

MODES: tuple[Mode, ...] = get_args(Mode)


def close(ours: Tensor, theirs: Tensor) -> None:
    largest = float(theirs.detach().abs().max())
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9 + 1e-6 * largest)


CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 5, "padding": 4, "dilation": 2, "stride": 2},
    {"kernel_size": 3, "padding": 0},
    {"kernel_size": 3, "padding": "same", "dilation": 3},
    {"kernel_size": 3, "padding": "valid", "stride": 2},
    {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False},
    {"kernel_size": 4, "padding": 1, "stride": 2},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": (3, 5), "padding": (1, 2), "stride": (1, 2)},
    {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 1, "stride": 2},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_convolutions_of_every_kind(options: dict[str, Any], mode: Mode) -> None:
    layer = nn.Conv2d(4, 6, **options).double()
    image = torch.randn(1, 4, 18, 19, dtype=torch.float64)
    square = layer.kernel_size[0] == layer.kernel_size[1]
    if mode == "acs" and (not square or layer.kernel_size[0] % 2 == 0):
        with pytest.raises(ConfigError, match="A Conv2d cannot be converted: its kernel of"):
            convert_layers(layer, mode=mode)
        return
    converted = convert_layers(layer, mode=mode)
    volume = image[:, :, None].repeat(1, 1, 21, 1, 1)
    result, planar = converted(volume), layer(image)
    assert result.shape[2:] == (21, *planar.shape[2:])
    # A third of the channels lies in the plane of the slices.
    channels = slice(None) if mode != "acs" else slice(0, 2)
    close(result[:, channels, 10], planar[:, channels])
    if options.get("padding_mode") == "replicate" and mode == "i3d":
        close(result[:, :, 0], planar)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_depth_strided_as_height(options: dict[str, Any], mode: Mode) -> None:
    layer = nn.Conv2d(4, 6, **options)
    if mode == "acs" and layer.kernel_size not in ((1, 1), (3, 3), (5, 5)):
        return
    converted = convert_layers(layer, mode=mode, stride_depth=True)
    result = converted(torch.randn(1, 4, 18, 18, 18))
    if mode == "2.5d":
        assert result.shape[2] == -(-18 // layer.stride[0])
        return
    assert result.shape[2] == result.shape[3]
    if mode == "i3d":
        constant = convert_layers(layer, mode=mode, stride_depth=True)(torch.ones(1, 4, 30, 18, 19))
        planar = layer(torch.ones(1, 4, 18, 19))
        middle = constant.shape[2] // 2
        torch.testing.assert_close(constant[:, :, middle], planar, rtol=1e-4, atol=1e-5)


LAYERS: list[nn.Module] = [
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d((2, 3), ceil_mode=True),
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    nn.AvgPool2d(3, divisor_override=2),
    nn.LPPool2d(2, 3, stride=2),
    nn.LPPool2d(1, (2, 3)),
    nn.ConvTranspose2d(4, 2, 2, stride=2),
    nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2),
    nn.Upsample(scale_factor=2),
    nn.Upsample(scale_factor=(2, 1.5), mode="bilinear", align_corners=True),
    nn.UpsamplingBilinear2d(scale_factor=2),
    nn.UpsamplingNearest2d(scale_factor=2),
    nn.ZeroPad2d((1, 2, 3, 4)),
    nn.ConstantPad2d(1, 0.5),
    nn.ReflectionPad2d(2),
    nn.ReplicationPad2d((0, 1, 2, 0)),
    nn.CircularPad2d(1),
    nn.BatchNorm2d(4),
    nn.BatchNorm2d(4, affine=False, momentum=None, eps=1e-3),
    nn.InstanceNorm2d(4, affine=True),
    nn.GroupNorm(2, 4),
    nn.LocalResponseNorm(2),
    nn.Dropout2d(0.3),
    nn.Softmax2d(),
    nn.PReLU(4),
    nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveAvgPool2d((3, None)),
    nn.AdaptiveMaxPool2d((2, 3)),
    nn.Sequential(nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(16, 3)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: repr(layer)[:40])
@pytest.mark.parametrize("mode", MODES)
def test_layers_of_every_kind_on_equal_slices(layer: nn.Module, mode: Mode) -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), copy.deepcopy(layer)).double().eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean, norm.running_var = torch.randn(4).double(), torch.rand(4).double()
    image = torch.randn(2, 4, 12, 15, dtype=torch.float64)
    volume = image[:, :, None].repeat(1, 1, 6, 1, 1)
    converted = convert_layers(network, mode=mode)
    result, planar = converted(volume), network(image)
    if planar.ndim == 4:
        planar = planar[:, :, None].expand_as(result)
    close(result, planar)
    assert not any("2d" in type(part).__name__ for part in converted.modules())
    assert [p.shape[0] for p in converted.parameters()] == [
        p.shape[0] for p in network.parameters()
    ]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: repr(layer)[:40])
def test_layers_of_every_kind_with_depth_strided(layer: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), copy.deepcopy(layer)).eval()
    image = torch.ones(1, 4, 12, 15)
    volume = image[:, :, None].repeat(1, 1, 12, 1, 1)
    result, planar = convert_layers(network, mode="i3d", stride_depth=True)(volume), network(image)
    if planar.ndim == 4 and not isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        assert result.shape[2] == result.shape[3]
        if not isinstance(layer, nn.LPPool2d | nn.InstanceNorm2d | nn.GroupNorm):
            close(result[:, :, result.shape[2] // 2].double(), planar.double())
