"""Convolutions in the shapes that oneDNN gets wrong, against sums over the taps of the kernel."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.lifting import conv3d as module
from voxlift.lifting.conv3d import (
    Conv2d,
    Conv3d,
    ConvTranspose3d,
    PlanarWeightGradient,
    conv3d,
    planar_weight_gradient,
    splits_rows,
)

MEGABYTE = 1024 * 1024


@pytest.fixture
def _amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AMX and hardly any cache, so that every layer is in danger."""
    monkeypatch.setattr(module, "AMX_CACHE_BYTES", 1024)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 1, 1), (1, 3, 3), (3, 1, 1), (5, 3, 1)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_planar_weight_gradient_is_that_of_autograd(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], dilation: int, groups: int
) -> None:
    padding = tuple(dilation * (edge // 2) for edge in kernel)
    volume = torch.randn(2, 4, 5, 9, 10, dtype=torch.float64)
    weight = torch.randn(6, 4 // groups, *kernel, dtype=torch.float64, requires_grad=True)
    steps = (stride, padding, (dilation,) * 3, groups)
    output = functional.conv3d(volume, weight, None, *steps)
    gradient = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, weight, gradient)
    found = planar_weight_gradient(volume, weight.shape, gradient, *steps)
    torch.testing.assert_close(found, expected)


def test_taps_that_only_meet_padding_have_no_gradient() -> None:
    volume = torch.randn(1, 2, 1, 6, 6)
    gradient = torch.randn(1, 3, 1, 6, 6)
    steps = ((1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    found = planar_weight_gradient(volume, (3, 2, 3, 3, 3), gradient, *steps)
    assert not found[:, :, [0, 2]].any()
    assert found[:, :, 1].any()


@pytest.mark.usefixtures("_amx")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_with_amx_are_those_of_fp32(bias: bool, autocast: bool) -> None:
    conv = Conv3d(16, 24, 3, padding=1, bias=bias)
    exact = nn.Conv3d(16, 24, 3, padding=1, bias=bias).double()
    exact.load_state_dict(conv.state_dict())
    volume = torch.randn(2, 16, 5, 20, 24)
    theirs = exact(volume.double().requires_grad_())
    theirs.square().sum().backward()
    if not autocast:
        conv, volume = conv.bfloat16(), volume.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = conv(volume.requires_grad_())
    assert ours.dtype == torch.bfloat16
    assert "PlanarWeightGradient" in type(ours.grad_fn).__name__
    ours.float().square().sum().backward()
    for name, parameter in conv.named_parameters():
        expected = exact.get_parameter(name).grad
        assert parameter.grad is not None
        assert expected is not None
        assert parameter.grad.dtype == parameter.dtype
        assert (parameter.grad - expected).norm() < 0.01 * expected.norm()


@pytest.mark.usefixtures("_amx")
def test_only_training_in_half_precision_goes_another_way() -> None:
    conv, volume = Conv3d(2, 2, 3, padding=1), torch.randn(1, 2, 4, 8, 8)
    assert "PlanarWeightGradient" not in type(conv(volume).grad_fn).__name__
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert conv(volume).grad_fn is None
    conv.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(volume).grad_fn is None


@pytest.mark.usefixtures("_amx")
def test_amx_without_need_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AMX_CACHE_BYTES", 64 * MEGABYTE)
    conv = Conv3d(2, 2, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        result = conv(torch.randn(1, 2, 4, 8, 8))
    assert "PlanarWeightGradient" not in type(result.grad_fn).__name__


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.usefixtures("_amx")
def test_compiled_layers_take_the_same_way() -> None:
    conv = Conv3d(4, 4, 3, padding=1)
    volume = torch.randn(1, 4, 4, 8, 8)

    def gradient(function: Callable[[Tensor], Tensor]) -> Tensor:
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            function(volume).float().square().sum().backward()  # type: ignore[no-untyped-call]
        assert conv.weight.grad is not None
        return conv.weight.grad.clone()

    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(gradient(compiled), gradient(conv))


def test_no_second_derivative_is_silently_wrong() -> None:
    weight = torch.randn(2, 2, 3, 3, 3, requires_grad=True)
    once, pad = (1, 1, 1), (1, 1, 1)
    result = PlanarWeightGradient.apply(  # type: ignore[no-untyped-call]
        torch.randn(1, 2, 4, 4, 4), weight, None, once, pad, once, 1
    )
    (first,) = torch.autograd.grad(result.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("channels", "size", "kilobytes", "expected"),
    [
        # 64 bytes a voxel of 16 channels; rows of 128 (98 padded) and of 96: 99 * 8192 + 96 * 6144.
        (16, (3, 96, 96), 1024, True),
        (16, (3, 96, 96), 4096, False),
        (16, (3, 48, 48), 1024, False),
        (64, (3, 64, 64), 1024, True),
        # 35 * 16384 + 32 * 8192 = 835584 bytes, of 0.4 * 2097152 = 838860.
        (64, (8, 32, 32), 2048, False),
        (64, (8, 32, 32), 2039, True),
        (65, (8, 32, 32), 2048, True),
        (64, (8, 16, 16), 1024, False),
    ],
)
def test_rows_are_split_where_they_do_not_fit_the_cache(
    channels: int, size: tuple[int, int, int], kilobytes: int, expected: bool
) -> None:
    found = splits_rows(
        (2, channels, *size),
        (channels, channels, 3, 3, 3),
        stride=(1, 1, 1),
        padding=(1, 1, 1),
        dilation=(1, 1, 1),
        cache_bytes=kilobytes * 1024,
    )
    assert found == expected


@pytest.mark.parametrize("mode", ["zeros", "replicate", "circular"])
@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_other_paddings_are_those_of_torch(
    mode: Literal["zeros", "replicate", "circular"], padding: str | int
) -> None:
    ours = Conv3d(2, 3, 3, padding=padding, padding_mode=mode)
    theirs = nn.Conv3d(2, 3, 3, padding=padding, padding_mode=mode)
    theirs.load_state_dict(ours.state_dict())
    for size in ((4, 6, 7), (3, 3, 3)):
        volume = torch.randn(1, 2, *size)
        torch.testing.assert_close(ours(volume), theirs(volume))


def test_defaults_are_those_of_torch() -> None:
    volume, weight = torch.randn(1, 2, 5, 6, 7), torch.randn(3, 2, 3, 3, 3)
    torch.testing.assert_close(conv3d(volume, weight), functional.conv3d(volume, weight))


@pytest.mark.usefixtures("_amx")
def test_transposed_convolutions_train_in_fp32_with_amx() -> None:
    ours = ConvTranspose3d(4, 3, 2, stride=2)
    theirs = nn.ConvTranspose3d(4, 3, 2, stride=2)
    theirs.load_state_dict(ours.state_dict())
    volume = torch.randn(1, 4, 3, 5, 6)
    exact = theirs(volume)
    with torch.autocast("cpu", torch.bfloat16):
        result = ours(volume)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, exact.bfloat16())
    torch.testing.assert_close(ours(volume), exact)


@pytest.mark.parametrize("channels", [1, 8, 16])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("bf16", [False, True])
def test_strided_points_keep_to_their_memory(
    channels: int, stride: tuple[int, int], bf16: bool
) -> None:
    # With torch's own layer 8 channels of this size end the process in bf16.
    ours = Conv2d(channels, 16, 1, stride=stride)
    theirs = nn.Conv2d(channels, 16, 1, stride=stride).double()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(6, channels, 96, 96).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        result = ours(images)
    exact = theirs(images.double())
    result.float().sum().backward()
    exact.sum().backward()
    assert result.shape == exact.shape
    for name, parameter in ours.named_parameters():
        found, expected = parameter.grad, theirs.get_parameter(name).grad
        assert found is not None
        assert expected is not None
        assert (found - expected).norm() < (0.01 if bf16 else 1e-5) * expected.norm()
