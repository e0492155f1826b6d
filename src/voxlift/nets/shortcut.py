"""The shortcut of a residual block: the input, brought to the shape of the block's output."""

from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import ONES
from voxlift.core.types import Triple
from voxlift.nets.layers import Convolver, convolution, normalization, set_steps, subsample


def projection(
    architecture: Architecture, in_channels: int, out_channels: int
) -> nn.Sequential | None:
    """Make the type B shortcut where the channels change; type A needs no parameters."""
    if in_channels == out_channels or architecture.shortcut == "A":
        return None
    return always_projection(architecture, in_channels, out_channels)


def always_projection(
    architecture: Architecture, in_channels: int, out_channels: int
) -> nn.Sequential:
    """Make a projection, whether the channels change or not."""
    return nn.Sequential(
        convolution(architecture.ndim, in_channels, out_channels, 1, architecture.convolution),
        normalization(architecture.norm, architecture.ndim, out_channels),
    )


def set_shortcut_steps(downsample: nn.Sequential | None, stride: Triple) -> None:
    """Stride a projection; without one, `shortcut` is told the stride."""
    if downsample is not None:
        conv = downsample[0]
        assert isinstance(conv, Convolver)
        set_steps(conv, stride=stride)


def shortcut(
    downsample: nn.Sequential | None, volume: Tensor, *, stride: Triple, like: Tensor
) -> Tensor:
    """Bring the input to the shape of the output: project, or subsample and pad channels."""
    if downsample is not None:
        projected: Tensor = downsample(volume)
        return projected
    if stride != ONES:
        volume = subsample(volume, stride=stride)
    missing = like.shape[1] - volume.shape[1]
    if missing:
        volume = functional.pad(volume, (0, 0) * (volume.ndim - 2) + (0, missing))
    return volume
