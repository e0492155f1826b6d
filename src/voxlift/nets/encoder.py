"""What all backbones have in common: a description of themselves, and a check of their input."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import Geometry
from voxlift.core.types import Triple


class Encoder(nn.Module, ABC):
    """A backbone: volume in, feature maps out.

    A subclass makes its layers, sets `out_channels`, and then assigns `geometry`.

    Args:
        architecture: What shapes the tensors.

    Attributes:
        input_layers: Layers that take the input, by their names: a weight file for another number
            of input channels is adapted there.
        follows_data: Whether strides that suit the data are proposed for it (four stages behind a
            stem); else it keeps its own unless others are asked for.
        defaults: Fields of the architecture whose default is another than `Architecture`'s, such
            as the width or the norm.
        out_channels: Channels of each feature map.
    """

    input_layers: ClassVar[tuple[str, ...]] = ("conv1",)
    follows_data: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, object]] = {}
    out_channels: tuple[int, ...]

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture

    @classmethod
    @abstractmethod
    def default_geometry(cls, architecture: Architecture) -> Geometry:
        """Strides of a network that nobody gave any."""

    @abstractmethod
    def set_geometry(self, geometry: Geometry) -> None:
        """Make the layers step as the geometry says.

        Raises:
            ConfigError: If this family cannot step so.
        """

    @abstractmethod
    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the feature maps, from the finest to the coarsest."""

    @property
    def geometry(self) -> Geometry:
        """Strides, pooling and dilations; assigning it touches no tensor."""
        return self._geometry

    @geometry.setter
    def geometry(self, geometry: Geometry) -> None:
        self.set_geometry(geometry)
        self._geometry = geometry

    @property
    def strides(self) -> tuple[Triple, ...]:
        """Stride of each feature map relative to the input, (depth, height, width)."""
        return self.geometry.strides

    def check_stages(self, geometry: Geometry, num_stages: int) -> None:
        """Refuse a geometry of another number of stages.

        Raises:
            ConfigError: If there are more or fewer.
        """
        found = len(geometry.stage_strides)
        if found != num_stages:
            raise ConfigError(
                f"{self.architecture.name} has {num_stages} stages and the geometry {found}. Give "
                "an explicit Geometry with a stride for each stage, or none to take its own."
            )

    def check_input(self, volume: Tensor) -> None:
        """Refuse what the network cannot take.

        Raises:
            DataError: If the volume has another number of dimensions or channels than the
                architecture, or is too small for the geometry.
        """
        if torch.compiler.is_exporting():
            # A check of the traced size would bind the exported program to sizes like it.
            return
        expected = self.architecture
        if volume.ndim != expected.ndim + 2 or volume.shape[1] != expected.in_channels:
            axes = "depth, height, width" if expected.ndim == 3 else "height, width"
            raise DataError(
                f"{expected.name} takes (batch, {expected.in_channels}, {axes}); found the shape "
                f"{tuple(volume.shape)}. Photographs are first read as volumes: voxlift.lift()."
            )
        self.check_size(volume.shape[2:])

    def check_size(self, size_voxels: Sequence[int]) -> None:
        """Refuse a size that the network cannot take.

        Args:
            size_voxels: Of a volume, (depth, height, width) or, in 2D, (height, width).

        Raises:
            DataError: If it is too small.
        """
        self.geometry.check_size(size_voxels)
