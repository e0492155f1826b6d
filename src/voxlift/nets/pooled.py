"""Encoders of plain U-Nets: levels of convolutions, with max-pooling between them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import ALL, ONES, Geometry
from voxlift.nets.checkpointing import run_block
from voxlift.nets.encoder import Encoder
from voxlift.nets.family_limits import check_only_stages_step, check_spread


class PooledEncoder(Encoder):
    """A feature map for each level, as it is before the next one pools it.

    Kernel and stride of the pooling are the stage stride, so any stride will do.

    Args:
        architecture: What shapes the tensors.
        zero_init_residual: Not to be had: there are no residual blocks.
        checkpointing: Recompute each level in the backward pass instead of keeping what it held.

    Raises:
        ConfigError: If blocks are to start as their shortcut.
    """

    num_levels: ClassVar[int]

    def __init__(
        self, architecture: Architecture, *, zero_init_residual: bool, checkpointing: bool
    ) -> None:
        super().__init__(architecture)
        if zero_init_residual:
            raise ConfigError(
                f"{architecture.name} has no residual blocks; leave zero_init_residual out."
            )
        self.checkpointing = checkpointing

    @property
    @abstractmethod
    def all_levels(self) -> Sequence[nn.Module]:
        """The levels, from fine to coarse."""

    @classmethod
    def default_geometry(cls, architecture: Architecture) -> Geometry:
        """Half the size at each level behind the first."""
        del architecture
        return Geometry(stage_strides=(ALL,) * (cls.num_levels - 1))

    def set_geometry(self, geometry: Geometry) -> None:
        """Pool as far as the stages stride.

        Raises:
            ConfigError: If the stem steps, anything is dilated, or there are not as many stages as
                poolings.
        """
        self.check_stages(geometry, self.num_levels - 1)
        check_only_stages_step(self.architecture.name, geometry)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the feature maps, one a level.

        Raises:
            DataError: If the volume has another number of dimensions or channels than the
                architecture, or is too small for the geometry.
        """
        self.check_input(volume)
        name, norm = self.architecture.name, self.architecture.norm
        check_spread(name, norm, volume.shape, self.strides[-1])
        maps: list[Tensor] = []
        out = volume
        for level, stride in zip(
            self.all_levels, (ONES, *self.geometry.stage_strides), strict=True
        ):
            if stride != ONES:
                # Differs from the originals, which drop the last voxels of sizes that the stride
                # does not divide; where it does, both are the same.
                out = functional.max_pool3d(out, stride, stride, ceil_mode=True)
            out = run_block(level, out, checkpointing=self.checkpointing)
            maps.append(out)
        return maps
