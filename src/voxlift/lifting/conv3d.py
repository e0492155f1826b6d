"""3D convolutions that keep out of what oneDNN gets wrong on a CPU.

Where an axis of the volume is shorter than the kernel, or as long and strided, the weight gradient
of torch 2.13 on CPUs with AVX512 can be NaN, or finite and wrong many times over, or the process
crashes for writing beyond its memory: in bf16 often, in fp32 under some strides. With the padding
written out it is right; such volumes are small, so that costs next to nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.types import Triple


class Conv3d(nn.Conv3d):
    """A 3D convolution whose gradient is right on thin volumes too."""

    def forward(self, volume: Tensor) -> Tensor:
        """Convolve."""
        if self.padding_mode != "zeros" or _is_safe(volume, self.kernel_size, self.stride):
            return super().forward(volume)
        padded = functional.pad(volume, self._reversed_padding_repeated_twice)
        return functional.conv3d(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def conv3d(
    volume: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    groups: int = 1,
) -> Tensor:
    """Convolve with zero padding; the function of the layer `Conv3d`."""
    if not _is_safe(volume, weight.shape[2:], stride):
        volume = functional.pad(volume, [p for p in reversed(padding) for _ in range(2)])
        padding = (0, 0, 0)
    return functional.conv3d(volume, weight, bias, stride, padding, dilation, groups)


def _is_safe(volume: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> bool:
    # An exported program has no gradient to get wrong, and shall not be bound to the traced size.
    return (
        torch.compiler.is_exporting()
        or volume.device.type != "cpu"
        or all(
            length > edge or (length == edge and step == 1)
            for length, edge, step in zip(volume.shape[2:], kernel, stride, strict=True)
        )
    )
