import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.errors import ConfigError
from voxlift.core.types import Triple
from voxlift.lifting.acs import ACSConv, part_sizes


def explicit_kernel(weight: Tensor) -> Tensor:
    """The 3D kernel of an ACS convolution, written down number by number."""
    out_channels, in_channels, edge, _ = weight.shape
    kernel = torch.zeros(out_channels, in_channels, edge, edge, edge, dtype=weight.dtype)
    middle = edge // 2
    third, rest = divmod(out_channels, 3)
    first = third + (rest > 0)
    second = first + third + (rest > 1)
    for channel in range(out_channels):
        for row in range(edge):
            for column in range(edge):
                number = weight[channel, :, row, column]
                if channel < first:
                    kernel[channel, :, middle, row, column] = number
                elif channel < second:
                    kernel[channel, :, row, middle, column] = number
                else:
                    kernel[channel, :, row, column, middle] = number
    return kernel


CASES: list[tuple[int, int, Triple, Triple | None, Triple, int, str]] = [
    # Out channels, kernel, stride, padding, dilation, groups, padding mode.
    (9, 3, (1, 1, 1), None, (1, 1, 1), 1, "zeros"),
    (10, 3, (1, 2, 2), None, (1, 1, 1), 1, "zeros"),
    (11, 5, (2, 1, 3), None, (1, 2, 1), 1, "zeros"),
    (8, 7, (2, 2, 2), None, (1, 1, 1), 1, "zeros"),
    (6, 3, (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, "zeros"),
    (6, 3, (1, 2, 1), (1, 0, 2), (2, 1, 1), 1, "zeros"),
    (2, 3, (1, 1, 1), None, (1, 1, 1), 1, "zeros"),
    (1, 3, (1, 1, 1), None, (1, 1, 1), 1, "zeros"),
    (8, 3, (2, 2, 2), None, (1, 1, 1), 4, "zeros"),
    (8, 3, (1, 1, 1), None, (1, 1, 1), 1, "replicate"),
    (8, 3, (1, 2, 2), (1, 2, 1), (1, 1, 1), 2, "circular"),
    (7, 1, (2, 2, 2), None, (1, 1, 1), 1, "zeros"),
]


@pytest.mark.parametrize(
    ("out_channels", "kernel", "stride", "padding", "dilation", "groups", "padding_mode"), CASES
)
@pytest.mark.parametrize("bias", [False, True])
def test_equals_a_convolution_with_the_kernel_written_out(
    out_channels: int,
    kernel: int,
    stride: Triple,
    padding: Triple | None,
    dilation: Triple,
    groups: int,
    padding_mode: str,
    bias: bool,
) -> None:
    conv = ACSConv(
        4,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
        padding_mode=padding_mode,
    ).double()
    expected_padding = padding or tuple(d * (kernel // 2) for d in dilation)
    written_out = nn.Conv3d(
        4,
        out_channels,
        kernel,
        stride,
        expected_padding,  # type: ignore[arg-type]
        dilation,
        groups,
        bias=bias,
        padding_mode=padding_mode,  # type: ignore[arg-type]
    ).double()
    written_out.weight.data = explicit_kernel(conv.weight.detach())
    if conv.bias is not None and written_out.bias is not None:
        written_out.bias.data = conv.bias.detach().clone()
    for size in ((9, 10, 11), (6, 5, 12)):
        volume = torch.randn(2, 4, *size, dtype=torch.float64)
        torch.testing.assert_close(conv(volume), written_out(volume), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(conv.cubic_kernel(), written_out.weight, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_has_the_parameters_of_the_planar_convolution(kernel: int) -> None:
    plane = nn.Conv2d(3, 8, kernel)
    conv = ACSConv(3, 8, kernel)
    conv.load_state_dict(plane.state_dict())
    assert [p.shape for p in conv.parameters()] == [p.shape for p in plane.parameters()]


def test_each_third_sees_its_own_plane() -> None:
    conv = ACSConv(1, 3, 3, bias=False)
    point = torch.zeros(1, 1, 5, 5, 5)
    point[0, 0, 2, 2, 2] = 1
    answer = conv(point)[0]
    kernels = conv.weight[:, 0].flip(1, 2)
    torch.testing.assert_close(answer[0, 2, 1:4, 1:4], kernels[0])
    torch.testing.assert_close(answer[1, 1:4, 2, 1:4], kernels[1])
    torch.testing.assert_close(answer[2, 1:4, 1:4, 2], kernels[2])
    assert answer.count_nonzero() == 27


def test_the_axial_third_is_the_planar_convolution_slice_by_slice() -> None:
    conv = ACSConv(2, 6, 5)
    volume = torch.randn(1, 2, 4, 9, 9)
    axial = conv(volume)[:, :2]
    for number in range(4):
        planar = functional.conv2d(volume[:, :, number], conv.weight, conv.bias, padding=2)[:, :2]
        torch.testing.assert_close(axial[:, :, number], planar)


@pytest.mark.parametrize(
    ("channels", "parts"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (64, [22, 21, 21])]
)
def test_thirds(channels: int, parts: list[int]) -> None:
    assert part_sizes(channels) == parts


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_arrive(groups: int) -> None:
    conv = ACSConv(2, 4, 3, groups=groups).double()
    volume = torch.randn(1, 2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, (volume,))
    conv(volume).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.count_nonzero() > 0


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"middle; found one of edge 4.*'i3d'"):
        ACSConv(1, 1, 4)


def test_says_what_it_is() -> None:
    assert "2, 4, kernel=3, stride=(1, 1, 1)" in repr(ACSConv(2, 4, 3))
