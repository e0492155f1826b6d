"""Layers for 2 or 3 dimensions, looked up by their number."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Norm
from voxlift.core.errors import ConfigError
from voxlift.core.types import Triple


class Conv3d(nn.Conv3d):
    """A 3D convolution that keeps out of what oneDNN gets wrong on a CPU.

    Where an axis of the volume is shorter than the kernel, or as long and strided, the weight
    gradient of torch 2.13 on CPUs with AVX512 can be NaN, or finite and wrong many times over, or
    the process crashes for writing beyond its memory: in bf16 often, in fp32 under some strides.
    With the padding written out it is right; such volumes are small, so that costs next to nothing.
    """

    def forward(self, volume: Tensor) -> Tensor:
        """Convolve."""
        axes = zip(volume.shape[2:], self.kernel_size, self.stride, strict=True)
        if volume.device.type != "cpu" or all(
            length > kernel or (length == kernel and stride == 1) for length, kernel, stride in axes
        ):
            return super().forward(volume)
        padded = functional.pad(volume, self._reversed_padding_repeated_twice)
        return functional.conv3d(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: Conv3d}
BATCH_NORMS: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
INSTANCE_NORMS: dict[int, type[nn.InstanceNorm2d] | type[nn.InstanceNorm3d]] = {
    2: nn.InstanceNorm2d,
    3: nn.InstanceNorm3d,
}
MAX_POOLS = {2: functional.max_pool2d, 3: functional.max_pool3d}


def convolution(
    ndim: int, in_channels: int, out_channels: int, kernel: int
) -> nn.Conv2d | nn.Conv3d:
    """Make a bias-free "same" convolution of stride 1; `set_steps` gives it another geometry."""
    return CONVOLUTIONS[ndim](in_channels, out_channels, kernel, padding=kernel // 2, bias=False)


def set_steps(conv: nn.Conv2d | nn.Conv3d, *, stride: Triple, dilation: Triple = (1, 1, 1)) -> None:
    """Change how far a convolution steps. Its weight is not touched.

    Args:
        conv: The convolution; its padding follows, so that stride 1 keeps the size.
        stride: (depth, height, width); a 2D convolution takes the last two.
        dilation: (depth, height, width), likewise.
    """
    ndim = len(conv.kernel_size)
    conv.stride = _last(stride, ndim)
    conv.dilation = _last(dilation, ndim)
    conv.padding = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    # The same padding as `functional.pad` takes it.
    conv._reversed_padding_repeated_twice = [p for p in reversed(conv.padding) for _ in range(2)]


def subsample(volume: Tensor, *, stride: Triple) -> Tensor:
    """Keep every `stride`-th voxel of each axis; without parameters, as a view."""
    steps = _last(stride, volume.ndim - 2)
    every: list[slice[None, None, int | None]] = [slice(None), slice(None)]
    return volume[(*every, *(slice(None, None, step) for step in steps))]


def max_pool(volume: Tensor, *, stride: Triple) -> Tensor:
    """Max-pool with kernel 3 and padding 1."""
    ndim = volume.ndim - 2
    return MAX_POOLS[ndim](volume, kernel_size=3, stride=_last(stride, ndim), padding=1)


class GroupNorm(nn.GroupNorm):
    """Group norm that takes a single voxel of a single volume too.

    Torch refuses it as if each channel were normalised alone; a group of several channels is well
    defined, and a volume shall not be refused for coming alone.
    """

    def forward(self, volume: Tensor) -> Tensor:
        """Normalise each group of channels."""
        return torch.group_norm(volume, self.num_groups, self.weight, self.bias, self.eps)


class AlwaysBatchNorm3d(nn.BatchNorm3d):
    """Batch norm that normalises by the batch itself, in evaluation too.

    The running statistics are gathered in training, and not used.
    """

    def forward(self, volume: Tensor) -> Tensor:
        """Normalise each channel over the batch."""
        if self.training:
            return super().forward(volume)
        return functional.batch_norm(
            volume, None, None, self.weight, self.bias, training=True, eps=self.eps
        )


def normalization(norm: Norm, ndim: int, channels: int) -> nn.Module:
    """Make a norm; group norm has gcd(32, channels) groups, instance norm a scale and a shift.

    Raises:
        ConfigError: For an unknown norm.
    """
    if norm == "batch":
        return BATCH_NORMS[ndim](channels)
    if norm == "group":
        return GroupNorm(num_groups(channels), channels)
    if norm == "instance":
        return INSTANCE_NORMS[ndim](channels, affine=True)
    if norm == "batch_always" and ndim == 3:
        return AlwaysBatchNorm3d(channels)
    raise ConfigError(
        f"Unknown norm {norm!r} for {ndim} dimensions; known are 'batch', 'group', 'instance' and, "
        "in 3D, 'batch_always'."
    )


def num_groups(channels: int) -> int:
    """Groups of a group norm: 32, or as many as divide both 32 and the channels."""
    return math.gcd(32, channels)


def initialize(module: nn.Module) -> None:
    """Give every convolution He's normal init, scaled by the fan-out; norms start as identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _last(triple: Triple, ndim: int) -> tuple[int, ...]:
    entries: Sequence[int] = triple
    return tuple(entries[3 - ndim :])
