"""The encoder of the Models Genesis U-Net."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import Geometry
from voxlift.nets.family_limits import check_architecture
from voxlift.nets.layers import Conv3d, initialize, normalization
from voxlift.nets.pooled import PooledEncoder

LEVELS = ("down_tr64", "down_tr128", "down_tr256", "down_tr512")
"""Names of the levels, by the channels that they have at a width of 64."""


class GenesisConvolution(nn.Module):
    """A 3^3 convolution with bias, a norm and a ReLU."""

    def __init__(self, norm: Norm, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(in_channels, out_channels, 3, padding=1)
        self.bn1 = normalization(norm, 3, out_channels)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the layer."""
        return functional.relu(self.bn1(self.conv1(volume)), inplace=True)


class GenesisLevel(nn.Module):
    """Two convolutions, of which the second doubles the channels of the first."""

    def __init__(self, norm: Norm, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.ops = nn.Sequential(
            GenesisConvolution(norm, in_channels, out_channels // 2),
            GenesisConvolution(norm, out_channels // 2, out_channels),
        )

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the level."""
        out: Tensor = self.ops(volume)
        return out


class GenesisEncoder(PooledEncoder):
    """The contracting half of the Models Genesis U-Net, with four feature maps.

    The published weights were trained and are evaluated with batch norm that normalises by the
    batch itself, always: that is the norm `batch_always`. With `batch` the running statistics of
    the file are used in evaluation instead, which is another function.

    Args:
        architecture: `width` is the number of channels of the first map; it doubles each level.
        geometry: `stage_strides` are the three poolings.
        zero_init_residual: Not to be had: there are no residual blocks.
        checkpointing: Recompute each level in the backward pass instead of keeping what it held.

    Shape:
        `(batch, in_channels, depth, height, width)` -> four maps of strides 1, 2, 4 and 8 in the
        default geometry.

    Raises:
        ConfigError: If something else is asked for than the family has, or the width is odd.

    Source:
        Models Genesis, arXiv 1908.06912.
    """

    input_layers: ClassVar[tuple[str, ...]] = ("down_tr64.ops.0.conv1",)
    defaults: ClassVar[Mapping[str, object]] = {"stem_kernel": 3}
    num_levels = len(LEVELS)

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
        check_architecture(architecture, norms=("batch", "batch_always", "group", "instance"))
        if architecture.width % 2:
            raise ConfigError(
                f"{architecture.name} halves its width for its first convolution; found the odd "
                f"width {architecture.width}. Give an even one, such as 64."
            )
        self.out_channels = tuple(architecture.width * 2**i for i in range(len(LEVELS)))
        in_channels = (architecture.in_channels, *self.out_channels)
        for i, name in enumerate(LEVELS):
            level = GenesisLevel(architecture.norm, in_channels[i], self.out_channels[i])
            self.add_module(name, level)
        initialize(self)
        self.geometry = geometry

    @property
    def all_levels(self) -> Sequence[nn.Module]:
        """The four levels, from fine to coarse."""
        return [self.get_submodule(name) for name in LEVELS]
