"""The encoder of the U-Net of geometric visual similarity learning (GVSL)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import Geometry
from voxlift.nets.family_limits import check_architecture
from voxlift.nets.layers import Conv3d, GroupNorm, initialize
from voxlift.nets.pooled import PooledEncoder

CHANNELS_OF_A_GROUP = 8
NEGATIVE_SLOPE = 0.2


def gvsl_level(in_channels: int, out_channels: int) -> nn.Sequential:
    """Make two 3^3 convolutions with bias, group norm and leaky ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            Conv3d(channels, out_channels, 3, padding=1),
            GroupNorm(out_channels // CHANNELS_OF_A_GROUP, out_channels),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)


class GvslEncoder(PooledEncoder):
    """The contracting half of the GVSL U-Net, with five feature maps.

    Its group norm has groups of eight channels.

    Args:
        architecture: `width` is the number of channels of the first map, 32 if not given; it
            doubles each level.
        geometry: `stage_strides` are the four poolings.
        zero_init_residual: Not to be had: there are no residual blocks.
        checkpointing: Recompute each level in the backward pass instead of keeping what it held.

    Shape:
        `(batch, in_channels, depth, height, width)` -> five maps of strides 1, 2, 4, 8 and 16 in
        the default geometry.

    Raises:
        ConfigError: If something else is asked for than the family has, or the width is no multiple
            of eight.

    Source:
        Geometric visual similarity learning, arXiv 2303.00874.
    """

    input_layers: ClassVar[tuple[str, ...]] = ("levels.0.0",)
    defaults: ClassVar[Mapping[str, object]] = {"stem_kernel": 3, "width": 32, "norm": "group"}
    num_levels = 5

    def __init__(
        self,
        architecture: Architecture,
        geometry: Geometry,
        *,
        zero_init_residual: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            architecture, zero_init_residual=zero_init_residual, checkpointing=checkpointing
        )
        check_architecture(architecture, norms=("group",))
        if architecture.width % CHANNELS_OF_A_GROUP:
            raise ConfigError(
                f"{architecture.name} normalises groups of {CHANNELS_OF_A_GROUP} channels; found "
                f"the width {architecture.width}. Give a multiple of {CHANNELS_OF_A_GROUP}."
            )
        self.out_channels = tuple(architecture.width * 2**i for i in range(self.num_levels))
        in_channels = (architecture.in_channels, *self.out_channels)
        self.levels = nn.ModuleList(
            gvsl_level(in_channels[i], channels) for i, channels in enumerate(self.out_channels)
        )
        initialize(self)
        self.geometry = geometry

    @property
    def all_levels(self) -> Sequence[nn.Module]:
        """The five levels, from fine to coarse."""
        return list(self.levels)
