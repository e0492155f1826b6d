"""The encoder of MONAI's SegResNet."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import ALL, Geometry
from voxlift.nets.checkpointing import run_block
from voxlift.nets.monai_encoder import MonaiEncoder

SEGRESNETS = ("segresnet",)
BLOCKS = (1, 2, 2, 4)
"""Residual blocks of each level, if the architecture has no stages of its own."""


class SegResNetEncoder(MonaiEncoder):
    """A residual network whose blocks normalise first, with a map for each level.

    Its group norms have 8 groups, as in MONAI. The maps are sums of residual blocks, neither
    normalised nor rectified, as SegResNet's decoder takes them.

    Args:
        architecture: What shapes the tensors; its width is MONAI's `init_filters`. Its stages, if
            it has any, give other numbers of blocks than 1, 2, 2 and 4, or of levels.
        geometry: The network's own; it has no other.
        zero_init_residual: Refused.
        checkpointing: Recompute each level in the backward pass instead of keeping what it held.

    Shape:
        `(batch, in_channels, depth, height, width)` -> four maps of strides 1, 2, 4 and 8, with 1,
        2, 4 and 8 times the width as channels.

    Raises:
        ConfigError: For an architecture, a geometry or an option that the network does not have.

    Source:
        arXiv 1810.11654, without its autoencoder, in MONAI's layers.
    """

    input_layers: ClassVar[tuple[str, ...]] = ("convInit.conv",)
    defaults: ClassVar[Mapping[str, object]] = {"width": 16, "norm": "group", "stem_kernel": 3}
    names: ClassVar[tuple[str, ...]] = SEGRESNETS
    norms: ClassVar[tuple[Norm, ...]] = ("group",)
    chosen: ClassVar[tuple[str, ...]] = ("stages",)
    width_factor: ClassVar[int] = 8

    def __init__(
        self,
        architecture: Architecture,
        geometry: Geometry,
        *,
        zero_init_residual: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(architecture, zero_init_residual=zero_init_residual)
        from monai.networks.nets import SegResNet

        blocks = _blocks(architecture)
        network = SegResNet(
            init_filters=architecture.width,
            in_channels=architecture.in_channels,
            out_channels=1,
            blocks_down=blocks,
            blocks_up=(1,) * (len(blocks) - 1),
        )
        self.checkpointing = checkpointing
        self.convInit: nn.Module = network.convInit
        self.down_layers: nn.ModuleList = network.down_layers
        self.out_channels = tuple(architecture.width * 2**i for i in range(len(blocks)))
        self.finish(geometry)

    @classmethod
    def default_geometry(cls, architecture: Architecture) -> Geometry:
        """A first map at full resolution, and a halving before each further level."""
        return Geometry(stage_strides=(ALL,) * (len(_blocks(architecture)) - 1))

    def encode(self, volume: Tensor) -> list[Tensor]:
        """Compute a map for each level."""
        out, maps = self.convInit(volume), []
        for level in self.down_layers:
            out = run_block(level, out, checkpointing=self.checkpointing)
            maps.append(out)
        return maps


def _blocks(architecture: Architecture) -> tuple[int, ...]:
    stages = architecture.stages
    if stages is None:
        return BLOCKS
    for level, stage in enumerate(stages):
        channels = architecture.width * 2**level
        if stage.channels != channels or stage.kernel != (3, 3, 3):
            raise ConfigError(
                f"Level {level} of {architecture.name} has {channels} channels and kernels of 3^3; "
                f"found {stage}."
            )
    return tuple(stage.blocks for stage in stages)
