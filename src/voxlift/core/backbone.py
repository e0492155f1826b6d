"""What every backbone offers to heads, tasks and weight files."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import Geometry


@runtime_checkable
class Backbone(Protocol):
    """A 3D encoder: volume in, feature maps out, from fine to coarse.

    ResNets have five: the stem before pooling, and four stages.
    """

    architecture: Architecture

    @property
    def geometry(self) -> Geometry:
        """Strides, pooling and dilations; can be set without touching a tensor."""

    @geometry.setter
    def geometry(self, geometry: Geometry) -> None: ...

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each feature map."""

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Stride of each feature map relative to the input, (height, width) if it is a plane."""

    def __call__(self, volume: Tensor) -> list[Tensor]:
        """Compute the feature maps."""
