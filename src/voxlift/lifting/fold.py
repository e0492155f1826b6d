"""Exact 2D lowering of 3D convolutions on thin volumes.

A volume that is only `d` slices deep, convolved without striding depth, is nothing but an image of
`channels * d` channels under a 2D convolution whose weight repeats along the diagonals of a
`d x d` grid (block-Toeplitz). 2D kernels are much better served by today's libraries than deep 3D
kernels on three slices, most of whose taps only ever meet padding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from voxlift.core.types import Triple


def fold_weight(weight: Tensor, *, thickness: int) -> Tensor:
    """Lower the weight of a "same"-padded 3D convolution to 2D for volumes of `thickness` slices.

    Args:
        weight: Weight of a convolution with odd kernel, padded by half of it along depth.
        thickness: Slices of the volume, along the kernel's first axis.

    Shape:
        `(out, in, depth, height, width)` -> `(out * thickness, in * thickness, height, width)`.
    """
    depth = weight.shape[2]
    offsets = torch.arange(thickness, device=weight.device)
    # Output slice o sees input slice i through tap i - o + depth // 2, if the kernel reaches there.
    taps = offsets[None, :] - offsets[:, None] + depth // 2
    reached = (taps >= 0) & (taps < depth)
    blocks = weight[:, :, taps.clamp(0, depth - 1)] * reached[..., None, None]
    out_channels, in_channels = weight.shape[:2]
    return blocks.permute(0, 2, 1, 3, 4, 5).reshape(
        out_channels * thickness, in_channels * thickness, *weight.shape[3:]
    )


def folded_conv3d(
    volume: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Triple, thin_axis: int
) -> Tensor:
    """Convolve a thin volume as an image: the result equals that of a padded `conv3d`.

    Args:
        volume: Volume with few slices along `thin_axis`.
        weight: Weight with an odd kernel; the padding is half of the kernel on each axis.
        bias: One number a channel, or None.
        stride: Stride of the convolution, 1 along `thin_axis`.
        thin_axis: The axis (0 depth, 1 height, 2 width) along which the volume is thin.

    Shape:
        `(batch, in, depth, height, width)` -> `(batch, out, depth', height', width')`.
    """
    if thin_axis != 0:
        order = (thin_axis, *(axis for axis in range(3) if axis != thin_axis))
        turned_stride = (stride[order[0]], stride[order[1]], stride[order[2]])
        turned = folded_conv3d(
            _permute(volume, order),
            _permute(weight, order),
            bias,
            stride=turned_stride,
            thin_axis=0,
        )
        return _permute(turned, _inverse(order))
    batch, in_channels, thickness, *plane = volume.shape
    image = volume.reshape(batch, in_channels * thickness, *plane)
    padding = [weight.shape[3] // 2, weight.shape[4] // 2]
    folded = functional.conv2d(
        image, fold_weight(weight, thickness=thickness), None, list(stride[1:]), padding
    )
    result = folded.view(batch, weight.shape[0], thickness, *folded.shape[2:])
    return result if bias is None else result + bias.view(1, -1, 1, 1, 1)


def _permute(tensor: Tensor, order: Sequence[int]) -> Tensor:
    return tensor.permute(0, 1, *(2 + axis for axis in order))


def _inverse(order: Sequence[int]) -> list[int]:
    return [list(order).index(axis) for axis in range(3)]
