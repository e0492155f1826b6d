"""Layers for 2 or 3 dimensions, looked up by their number."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Convolution, Norm
from voxlift.core.errors import ConfigError
from voxlift.core.types import Triple
from voxlift.lifting.acs import ACSConv, same_padding
from voxlift.lifting.conv3d import Conv2d as Conv2d
from voxlift.lifting.conv3d import Conv3d as Conv3d

Convolver = nn.Conv2d | nn.Conv3d | ACSConv

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: Conv2d, 3: Conv3d}
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
    ndim: int, in_channels: int, out_channels: int, kernel: int, kind: Convolution = "full"
) -> Convolver:
    """Make a bias-free "same" convolution of stride 1; `set_steps` gives it another geometry.

    Args:
        ndim: 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Edge of the kernel in voxels, odd.
        kind: In 3D: kernels of k^3; those of a 2D network, split over the three planes; or 1xkxk.

    Raises:
        ConfigError: If a 2D network shall have another kind of kernels than full ones.
    """
    if kind != "full" and ndim != 3:
        raise ConfigError(
            f"Kernels of the kind {kind!r} are made for volumes; a network with ndim={ndim} has "
            "'full' ones."
        )
    if kind == "acs":
        return ACSConv(in_channels, out_channels, kernel, bias=False)
    if kind == "planar":
        return Conv3d(
            in_channels,
            out_channels,
            (1, kernel, kernel),
            padding=(0, kernel // 2, kernel // 2),
            bias=False,
        )
    return CONVOLUTIONS[ndim](in_channels, out_channels, kernel, padding=kernel // 2, bias=False)


def set_steps(conv: Convolver, *, stride: Triple, dilation: Triple = (1, 1, 1)) -> None:
    """Change how far a convolution steps. Its weight is not touched.

    Args:
        conv: The convolution; its padding follows, so that stride 1 keeps the size.
        stride: (depth, height, width); a 2D convolution takes the last two.
        dilation: (depth, height, width), likewise.
    """
    if isinstance(conv, ACSConv):
        conv.stride, conv.dilation = stride, dilation
        conv.padding = same_padding(conv.kernel_size, dilation)
        return
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


def max_pool(volume: Tensor, *, stride: Triple, across_slices: bool = True) -> Tensor:
    """Max-pool with kernel 3 and padding 1.

    Args:
        volume: Volume or image.
        stride: (depth, height, width); an image takes the last two.
        across_slices: Whether the window is three slices deep; else it is one.
    """
    ndim = volume.ndim - 2
    reach: Triple = (1 if across_slices else 0, 1, 1)
    padding = _last(reach, ndim)
    kernel = [2 * p + 1 for p in padding]
    return MAX_POOLS[ndim](volume, kernel, _last(stride, ndim), padding)


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
        if isinstance(layer, Convolver):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _last(triple: Triple, ndim: int) -> tuple[int, ...]:
    entries: Sequence[int] = triple
    return tuple(entries[3 - ndim :])
