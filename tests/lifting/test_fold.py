import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from voxlift.lifting.fold import fold_weight, folded_conv3d

Triple = tuple[int, int, int]

CASES = [
    (kernel, thin_axis, thickness, stride)
    for kernel, thin_axis, thickness, stride in itertools.product(
        (3, 5, 7), (0, 1, 2), (1, 2, 3, 4), ((1, 1, 1), (1, 2, 2), (2, 1, 3), (2, 2, 2))
    )
]


def thin(stride: Triple, thin_axis: int) -> Triple:
    """The stride with 1 along the thin axis."""
    entries = list(stride)
    entries[thin_axis] = 1
    return (entries[0], entries[1], entries[2])


def random_case(
    kernel: int, thin_axis: int, thickness: int, *, channels: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(kernel + 10 * thin_axis + 100 * thickness)
    size = [5, 6, 7]
    size[thin_axis] = thickness
    shapes = ((2, channels, *size), (3, channels, kernel, kernel, kernel), (3,))
    volume, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return volume.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("channels", [1, 2])
def test_result_and_gradients_equal_those_of_conv3d(channels: int) -> None:
    for kernel, thin_axis, thickness, stride in CASES:
        inputs = random_case(kernel, thin_axis, thickness, channels=channels)
        volume, weight, bias = inputs
        steps = thin(stride, thin_axis)
        ours = folded_conv3d(volume, weight, bias, stride=steps, thin_axis=thin_axis)
        theirs = functional.conv3d(volume, weight, bias, steps, kernel // 2)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        direction = torch.randn_like(theirs)
        for our, their in zip(
            torch.autograd.grad(ours, inputs, direction),
            torch.autograd.grad(theirs, inputs, direction),
            strict=True,
        ):
            torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-12)


def test_without_a_bias() -> None:
    volume, weight, _ = random_case(7, 0, 3)
    ours = folded_conv3d(volume, weight, None, stride=(1, 2, 2), thin_axis=0)
    theirs = functional.conv3d(volume, weight, None, (1, 2, 2), 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_single_precision_is_as_exact_as_conv3d() -> None:
    volume, weight, _ = (tensor.detach() for tensor in random_case(7, 0, 3, channels=1))
    exact = functional.conv3d(volume, weight, None, (1, 2, 2), 3)
    ours = folded_conv3d(volume.float(), weight.float(), None, stride=(1, 2, 2), thin_axis=0)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("thin_axis", [0, 1, 2])
def test_channels_last_volumes_give_the_same(thin_axis: int) -> None:
    volume, weight, bias = random_case(3, thin_axis, 3)
    contiguous = folded_conv3d(volume, weight, bias, stride=(1, 1, 1), thin_axis=thin_axis)
    last = folded_conv3d(
        volume.contiguous(memory_format=torch.channels_last_3d),
        weight.contiguous(memory_format=torch.channels_last_3d),
        bias,
        stride=(1, 1, 1),
        thin_axis=thin_axis,
    )
    torch.testing.assert_close(last, contiguous, rtol=1e-12, atol=1e-12)


def test_the_weight_is_toeplitz_along_depth() -> None:
    weight = torch.arange(1.0, 6.0).reshape(1, 1, 5, 1, 1)
    folded = fold_weight(weight, thickness=3)[:, :, 0, 0]
    # Output slice 0 sees slice 0 by the centre (3), the next by 4, the one after it by 5.
    assert folded.tolist() == [[3.0, 4.0, 5.0], [2.0, 3.0, 4.0], [1.0, 2.0, 3.0]]
    shallow = fold_weight(weight[:, :, 1:4], thickness=3)[:, :, 0, 0]
    assert shallow.tolist() == [[3.0, 4.0, 0.0], [2.0, 3.0, 4.0], [0.0, 2.0, 3.0]]
