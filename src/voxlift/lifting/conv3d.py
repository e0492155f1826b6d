"""Convolutions that keep out of what oneDNN gets wrong on a CPU.

Three defects of the weight gradient, seen with torch 2.13 (oneDNN 3.12):

- Where an axis of the volume is shorter than the kernel, or as long and strided, the gradient can
  be NaN, or finite and wrong many times over, or the process crashes for writing beyond its
  memory: in bf16 often, in fp32 under some strides. With the padding written out it is right;
  such volumes are small, so that costs next to nothing.
- In bf16 with AMX, oneDNN transposes the rows of a plane in several blocks if they do not fit into
  the level-2 cache, but gives each slice the room of one block. The last slices are then written
  beyond the buffer: the gradient is wrong, silently, or the process crashes. There the gradient is
  computed one depth tap at a time, by 2D convolutions whose batch holds the slices.
- A strided 2D convolution by kernels of 1x1 writes beyond its memory if there are fewer than 16
  channels, in fp32 too. Its input is subsampled first, which is the same function.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_weight, conv3d_input

from voxlift.core.cpu import level2_cache_bytes, may_have_amx

HALF_PRECISIONS = (torch.bfloat16, torch.float16)

AMX_CACHE_BYTES = level2_cache_bytes() if may_have_amx() else None
"""Level-2 cache of one core of a processor that has AMX; None if this one has none."""


class Conv2d(nn.Conv2d):
    """A 2D convolution that keeps to its memory where it strides by kernels of 1x1."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve."""
        if images.device.type != "cpu" or isinstance(self.padding, str):
            return super().forward(images)
        points, stride = reach_points(
            images, kernel=self.kernel_size, stride=self.stride, padding=self.padding
        )
        if points is images:
            return super().forward(images)
        return functional.conv2d(points, self.weight, self.bias, stride, 0, 1, self.groups)


class Conv3d(nn.Conv3d):
    """A 3D convolution whose gradient is right on thin volumes too."""

    def forward(self, volume: Tensor) -> Tensor:
        """Convolve."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            pads = self._reversed_padding_repeated_twice
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            volume = functional.pad(volume, pads, mode)
            padding: Sequence[int] = (0, 0, 0)
        else:
            padding = self.padding
        return conv3d(
            volume,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose3d(nn.ConvTranspose3d):
    """A transposed 3D convolution that is computed in fp32 where AMX would be used in training."""

    def forward(self, volume: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve."""
        dtype = _amx_dtype(volume)
        if (
            AMX_CACHE_BYTES is None
            or dtype is None
            or volume.device.type != "cpu"
            or not (torch.is_grad_enabled() and self.weight.requires_grad)
        ):
            return super().forward(volume, output_size)
        assert output_size is None
        assert not isinstance(self.padding, str)
        with torch.autocast("cpu", enabled=False):
            result = functional.conv_transpose3d(
                volume.float(),
                self.weight.float(),
                None if self.bias is None else self.bias.float(),
                self.stride,
                self.padding,
                self.output_padding,
                self.groups,
                self.dilation,
            )
        return result.to(dtype)


def conv3d(
    volume: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolve with zero padding; the function of the layer `Conv3d`."""
    # An exported program has no gradient to get wrong, and shall not be bound to the traced size.
    if volume.device.type != "cpu" or torch.compiler.is_exporting():
        return functional.conv3d(volume, weight, bias, stride, padding, dilation, groups)
    kernel = weight.shape[2:]
    if not _longer_than_kernel(volume.shape[2:], kernel, stride):
        volume = functional.pad(volume, [p for p in reversed(padding) for _ in range(2)])
        padding = (0, 0, 0)
    dtype = _amx_dtype(volume)
    if (
        AMX_CACHE_BYTES is None
        or dtype is None
        or not (torch.is_grad_enabled() and weight.requires_grad)
        or not splits_rows(
            volume.shape,
            weight.shape,
            stride=stride,
            padding=padding,
            dilation=dilation,
            cache_bytes=AMX_CACHE_BYTES,
        )
    ):
        return functional.conv3d(volume, weight, bias, stride, padding, dilation, groups)
    bias = None if bias is None else bias.to(dtype)
    result: Tensor = PlanarWeightGradient.apply(  # type: ignore[no-untyped-call]
        volume.to(dtype), weight.to(dtype), bias, stride, padding, dilation, groups
    )
    return result


def splits_rows(
    volume: Sequence[int],
    weight: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    cache_bytes: int,
) -> bool:
    """Whether oneDNN, with AMX, may transpose the rows of a plane in more than one block.

    It does if the rows of input and output, in blocks of 16 channels and widths of multiples of 32,
    both as they are and transposed, fill more than 0.8 of the level-2 cache. Virtual machines
    describe caches wrongly, so half of that counts here.

    Args:
        volume: Shape of the input, `(batch, in, depth, height, width)`.
        weight: Shape of the weight, `(out, in, depth, height, width)`.
        stride: (depth, height, width).
        padding: Likewise.
        dilation: Likewise.
        cache_bytes: Level-2 cache of one core.
    """
    height, width = (
        (volume[axis] + 2 * padding[axis - 2] - dilation[axis - 2] * (weight[axis] - 1) - 1)
        // stride[axis - 2]
        + 1
        for axis in (3, 4)
    )
    bytes_in_block = 2 * 2 * 16  # Two bytes a number, twice, 16 channels.
    padded_width = _multiple(-(-(volume[4] + 2 * padding[2]) // stride[2]), 32) * stride[2]
    row_in = bytes_in_block * padded_width * -(-volume[1] // 16)
    row_out = bytes_in_block * _multiple(width, 32) * -(-weight[0] // 16)
    return row_in * (height + weight[3]) + row_out * height > 0.4 * cache_bytes


class PlanarWeightGradient(torch.autograd.Function):
    """A 3D convolution whose weight gradient is computed by 2D convolutions, one a depth tap."""

    @staticmethod
    def forward(
        ctx: Any,
        volume: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(volume, weight)
        ctx.steps = (stride, padding, dilation, groups)
        return functional.conv3d(volume, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of volume, weight and bias."""
        volume, weight = ctx.saved_tensors
        of_volume, of_weight, of_bias, *_ = ctx.needs_input_grad
        gradients: list[Tensor | None] = [None] * 7
        if of_volume:
            gradients[0] = conv3d_input(  # type: ignore[no-untyped-call]
                volume.shape, weight, gradient, *ctx.steps
            )
        if of_weight:
            gradients[1] = planar_weight_gradient(volume, weight.shape, gradient, *ctx.steps)
        if of_bias:
            gradients[2] = gradient.sum((0, 2, 3, 4))
        return tuple(gradients)


def planar_weight_gradient(
    volume: Tensor,
    weight_shape: Sequence[int],
    gradient: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Compute the weight gradient of a 3D convolution by 2D convolutions over folded depth.

    The tap at one depth of the kernel sees each output slice with one slice of the volume: the
    pairs are the batch of a 2D convolution, whose weight gradient is that tap's.

    Shape:
        `(batch, in, d, h, w)`, `(batch, out, d', h', w')` -> `weight_shape`.
    """
    taps = []
    for tap in range(weight_shape[2]):
        offset = tap * dilation[0] - padding[0]
        # Output slices whose slice of the volume exists; the others meet padding.
        first = max(-(offset // stride[0]), 0)
        last = min((volume.shape[2] - 1 - offset) // stride[0], gradient.shape[2] - 1)
        if last < first:
            taps.append(gradient.new_zeros(*weight_shape[:2], *weight_shape[3:]))
            continue
        start, end = first * stride[0] + offset, last * stride[0] + offset + 1
        images, steps = reach_points(
            _slices_as_batch(volume[:, :, start : end : stride[0]]),
            kernel=weight_shape[3:],
            stride=stride[1:],
            padding=padding[1:],
        )
        taps.append(
            conv2d_weight(  # type: ignore[no-untyped-call]
                images,
                [*weight_shape[:2], *weight_shape[3:]],
                _slices_as_batch(gradient[:, :, first : last + 1]),
                steps,
                padding[1:],
                dilation[1:],
                groups,
            )
        )
    return torch.stack(taps, 2)


def reach_points(
    images: Tensor, *, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Sequence[int]]:
    """Subsample what a strided 1x1 convolution of few channels sees, so that it need not stride.

    Returns:
        The images and the stride that is left; those given where nothing has to be done.
    """
    strided_points = max(stride) > 1 and max(kernel) == 1 and not any(padding)
    if images.shape[1] >= 16 or not strided_points:
        return images, stride
    points = images[:, :, :: stride[0], :: stride[1]]
    return points.contiguous(memory_format=torch.channels_last), (1, 1)


def _slices_as_batch(volume: Tensor) -> Tensor:
    """`(batch, channels, depth, height, width)` -> `(batch * depth, channels, height, width)`."""
    images = volume.transpose(1, 2).flatten(0, 1)
    return images.contiguous(memory_format=torch.channels_last)


def _longer_than_kernel(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> bool:
    return all(
        length > edge or (length == edge and step == 1)
        for length, edge, step in zip(size, kernel, stride, strict=True)
    )


def _amx_dtype(volume: Tensor) -> torch.dtype | None:
    """Return the type that a convolution is computed in, if it is one that AMX multiplies."""
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else volume.dtype
    return dtype if dtype in HALF_PRECISIONS else None


def _multiple(length: int, of: int) -> int:
    return -(-length // of) * of
