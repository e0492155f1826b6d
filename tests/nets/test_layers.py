import math

import pytest
import torch
from torch import nn

from voxlift.core.architecture import Convolution
from voxlift.core.errors import ConfigError
from voxlift.lifting.acs import ACSConv
from voxlift.nets.layers import (
    convolution,
    initialize,
    max_pool,
    normalization,
    num_groups,
    set_steps,
    subsample,
)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_set_steps_changes_the_steps_and_no_weight(ndim: int, kernel: int) -> None:
    conv = convolution(ndim, 2, 3, kernel)
    before = conv.weight.clone()
    set_steps(conv, stride=(1, 2, 3), dilation=(1, 2, 1))
    triple = {2: ((2, 3), (2, 1)), 3: ((1, 2, 3), (1, 2, 1))}[ndim]
    kind = nn.Conv2d if ndim == 2 else nn.Conv3d
    padding = tuple(d * (kernel // 2) for d in triple[1])
    built = kind(2, 3, kernel, triple[0], padding, triple[1], bias=False)  # type: ignore[arg-type]
    built.load_state_dict(conv.state_dict())
    volume = torch.randn(1, 2, *(9, 10, 11)[-ndim:])
    torch.testing.assert_close(conv(volume), built(volume), rtol=0, atol=0)
    torch.testing.assert_close(conv.weight, before, rtol=0, atol=0)
    assert [-(-n // s) for n, s in zip(volume.shape[2:], triple[0], strict=True)] == list(
        conv(volume).shape[2:]
    )


@pytest.mark.parametrize("kind", ["acs", "planar"])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_kernels_made_of_planar_ones_step_as_full_ones_do(kind: Convolution, kernel: int) -> None:
    conv = convolution(3, 2, 6, kernel, kind)
    assert (
        tuple(conv.weight.shape)
        == {
            "acs": (6, 2, kernel, kernel),
            "planar": (6, 2, 1, kernel, kernel),
        }[kind]
    )
    assert conv.bias is None
    full = convolution(3, 2, 6, kernel)
    volume = torch.randn(1, 2, 9, 14, 15)
    for stride, dilation in (
        ((1, 1, 1), (1, 1, 1)),
        ((2, 1, 3), (1, 1, 1)),
        ((1, 2, 2), (2, 1, 2)),
    ):
        for layer in (conv, full):
            set_steps(layer, stride=stride, dilation=dilation)
        assert conv(volume).shape == full(volume).shape
    with torch.no_grad():
        full.weight.zero_()
        if isinstance(conv, ACSConv):
            full.weight += conv.cubic_kernel()
        else:
            full.weight[:, :, kernel // 2] += conv.weight[:, :, 0]
    torch.testing.assert_close(conv(volume), full(volume))


def test_planar_networks_have_full_kernels_alone() -> None:
    with pytest.raises(ConfigError, match="'acs' are made for volumes; a network with ndim=2"):
        convolution(2, 1, 1, 3, "acs")


def test_pooling_that_keeps_to_its_slices() -> None:
    volume = torch.randn(1, 2, 4, 9, 9)
    pooled = max_pool(volume, stride=(1, 2, 2), across_slices=False)
    for number in range(4):
        torch.testing.assert_close(
            pooled[:, :, number], max_pool(volume[:, :, number], stride=(1, 2, 2))
        )


THIN_CASES = [
    # Kernel, channels, size, stride. On a CPU with AVX512 the weight gradient of each was NaN,
    # wrong, or the end of the process: in bf16,
    (3, 16, (2, 2, 2), 1),
    (3, 16, (2, 8, 8), 1),
    (5, 1, (4, 9, 9), 2),
    (5, 2, (3, 9, 9), 1),
    (7, 1, (6, 9, 9), 1),
    (7, 2, (9, 2, 9), 1),
    # or in fp32 too.
    (7, 1, (5, 9, 9), 2),
    (7, 1, (6, 9, 9), 2),
    (7, 2, (7, 9, 9), 2),
    # These are safe.
    (3, 16, (3, 8, 8), 1),
    (3, 16, (4, 4, 4), 2),
    (7, 1, (8, 9, 9), 2),
]


@pytest.mark.parametrize(("kernel", "channels", "size", "stride"), THIN_CASES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_are_right_on_thin_volumes(
    kernel: int,
    channels: int,
    size: tuple[int, int, int],
    stride: int,
    channels_last: bool,
    bf16: bool,
) -> None:
    conv = convolution(3, channels, 32, kernel)
    set_steps(conv, stride=(stride, stride, stride))
    exact_conv = nn.Conv3d(channels, 32, kernel, stride, kernel // 2, bias=False).double()
    exact_conv.load_state_dict(conv.state_dict())
    volume = torch.randn(2, channels, *size)
    exact_volume = volume.double().requires_grad_()
    if channels_last:
        conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last_3d)
        volume = volume.contiguous(memory_format=torch.channels_last_3d)
    volume.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = conv(volume)
    exact = exact_conv(exact_volume)
    ours = torch.autograd.grad(output.float().square().sum(), (volume, conv.weight))
    theirs = torch.autograd.grad(exact.square().sum(), (exact_volume, exact_conv.weight))
    assert output.dtype == (torch.bfloat16 if bf16 else torch.float32)
    for our, their in zip((output, *ours), (exact, *theirs), strict=True):
        assert (our - their).norm() < (0.02 if bf16 else 1e-5) * their.norm()


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 1, 4)])
def test_shortcuts_and_pooling_have_the_size_of_a_convolution(
    stride: tuple[int, int, int],
) -> None:
    conv = convolution(3, 1, 1, 3)
    set_steps(conv, stride=stride)
    for length in (2, 3, 4, 7, 8):
        volume = torch.randn(1, 1, length, length, length)
        expected = conv(volume).shape
        assert subsample(volume, stride=stride).shape == expected
        assert max_pool(volume, stride=stride).shape == expected


def test_subsampling_is_a_view() -> None:
    volume = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    kept = subsample(volume, stride=(1, 2, 4))
    assert kept.data_ptr() == volume.data_ptr()
    assert kept[0, 0, 1].tolist() == [[16.0], [24.0]]
    assert subsample(volume[:, :, 0], stride=(2, 2, 4)).flatten().tolist() == [0.0, 8.0]


def test_group_norms_divide_the_channels() -> None:
    assert [num_groups(channels) for channels in (64, 48, 12, 7, 1)] == [32, 16, 4, 1, 1]
    norm = normalization("group", 3, 48)
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (16, 48)
    assert isinstance(normalization("batch", 2, 4), nn.BatchNorm2d)
    assert isinstance(normalization("batch", 3, 4), nn.BatchNorm3d)
    with pytest.raises(ConfigError, match="'layer' for 3 dimensions; known are 'batch', 'group'"):
        normalization("layer", 3, 4)  # type: ignore[arg-type]


def test_group_norm_is_torchs_and_takes_a_single_voxel() -> None:
    norm, torchs = normalization("group", 3, 64), nn.GroupNorm(32, 64)
    volumes = torch.randn(2, 64, 2, 2, 2)
    torch.testing.assert_close(norm(volumes), torchs(volumes), rtol=0, atol=0)
    single = norm(volumes[:1, :, :1, :1, :1])
    torch.testing.assert_close(single, torchs(volumes[:, :, :1, :1, :1])[:1])


@pytest.mark.parametrize("ndim", [2, 3])
def test_convolutions_start_as_he_said(ndim: int) -> None:
    model = nn.Sequential(convolution(ndim, 8, 64, 3), nn.Conv3d(1, 4, 3, bias=True))
    initialize(model)
    weight = model[0].weight
    assert isinstance(weight, torch.Tensor)
    expected = math.sqrt(2 / (64 * 3**ndim))
    assert weight.std().item() == pytest.approx(expected, rel=0.05)
    assert weight.mean().item() == pytest.approx(0, abs=expected / 20)
    bias = model[1].bias
    assert isinstance(bias, torch.Tensor)
    assert bias.tolist() == [0.0] * 4
