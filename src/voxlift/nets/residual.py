"""What residual networks of a stem and four stages have in common: how they are built and step."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import ONES, Geometry, named_geometry
from voxlift.core.types import Triple
from voxlift.nets.checkpointing import run_block
from voxlift.nets.encoder import Encoder
from voxlift.nets.layers import Convolver, initialize, max_pool, normalization, set_steps
from voxlift.nets.shortcut import shortcut


class ResidualBlock(nn.Module):
    """A block beside a shortcut.

    Attributes:
        expansion: Channels of its output, in those that it is made for.
        zero_init_norm: Its last norm.
        downsample: The shortcut's projection, if there is one.
        stride: Of the block as a whole.
    """

    expansion: ClassVar[int]
    zero_init_norm: ClassVar[str]
    downsample: nn.Sequential | None
    stride: Triple = ONES

    @abstractmethod
    def set_steps(self, *, stride: Triple, dilation: Triple) -> None:
        """Stride and dilate the convolutions and the shortcut."""

    def add_shortcut(self, out: Tensor, volume: Tensor) -> Tensor:
        """Add the block's input, brought to the shape of `out`."""
        return functional.relu(
            out + shortcut(self.downsample, volume, stride=self.stride, like=out)
        )


Layout = tuple[type[ResidualBlock], tuple[int, int, int, int]]
"""The blocks of a network, and how many there are in each stage."""


class ResidualEncoder(Encoder):
    """A stem and four stages of residual blocks, which give five feature maps.

    A family says what its stem and its blocks are.

    Args:
        architecture: What shapes the tensors.
        geometry: Strides, pooling and dilations; can be assigned anew at any time.
        zero_init_residual: Start each block as its shortcut: the last norm's weight is zero.
        checkpointing: Recompute each block in the backward pass instead of keeping what it held.

    Attributes:
        layouts: The networks of the family, by name.
        family: What errors call it.

    Raises:
        ConfigError: For an unknown name, or an option that the family does not have.
    """

    follows_data: ClassVar[bool] = True
    layouts: ClassVar[Mapping[str, Layout]]
    family: ClassVar[str]
    conv1: Convolver

    def __init__(
        self,
        architecture: Architecture,
        geometry: Geometry,
        *,
        zero_init_residual: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(architecture)
        self.check_options(zero_init_residual=zero_init_residual)
        self.checkpointing = checkpointing
        kind, depths = self.layouts[architecture.name]
        width = architecture.width
        channels = [width, *(width * 2**i * kind.expansion for i in range(4))]
        self.conv1 = self.make_stem()
        self.norm1 = normalization(architecture.norm, architecture.ndim, width)
        for i, depth in enumerate(depths):
            inputs = [channels[i], *[channels[i + 1]] * (depth - 1)]
            before = sum(depths[:i])
            blocks = [
                self.make_block(before + number, in_channels, width * 2**i)
                for number, in_channels in enumerate(inputs)
            ]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.out_channels = tuple(channels)
        initialize(self)
        if zero_init_residual:
            for block in (block for stage in self.stages for block in stage):
                norm = block.get_submodule(kind.zero_init_norm)
                nn.init.zeros_(norm.weight)  # type: ignore[arg-type]
        self.geometry = geometry

    def check_options(self, *, zero_init_residual: bool) -> None:
        """Refuse what the family does not have.

        Raises:
            ConfigError: With the option, and what to do.
        """
        del zero_init_residual
        name = self.architecture.name
        if name not in self.layouts:
            raise ConfigError(f"Unknown {self.family} {name!r}; known: {', '.join(self.layouts)}.")

    @abstractmethod
    def make_stem(self) -> Convolver:
        """Make the stem's convolution."""

    @abstractmethod
    def make_block(self, number: int, in_channels: int, channels: int) -> ResidualBlock:
        """Make a block.

        Args:
            number: Of the block, from 0 over the whole network.
            in_channels: Channels of its input.
            channels: Channels that it is made for.
        """

    @property
    def stages(self) -> list[nn.Sequential]:
        """The four stages."""
        return [self.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)]  # type: ignore[misc]

    @classmethod
    def default_geometry(cls, architecture: Architecture) -> Geometry:
        """Depth never strided, as in pre-training and in the detection of lesions."""
        del architecture
        return named_geometry("pretrain")

    def set_geometry(self, geometry: Geometry) -> None:
        """Stride and dilate the stem and the stages."""
        self.check_stages(geometry, len(self.stages))
        set_steps(self.conv1, stride=geometry.stem_stride)
        for stage, stride, dilation in zip(
            self.stages, geometry.stage_strides, geometry.dilations, strict=True
        ):
            for i, block in enumerate(stage):
                assert isinstance(block, ResidualBlock)
                block.set_steps(stride=stride if i == 0 else ONES, dilation=dilation)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the five feature maps: the stem before pooling, then the four stages.

        Raises:
            DataError: If the volume has another number of dimensions or channels than the
                architecture, or is too small for the geometry.
        """
        self.check_input(volume)
        return self.maps_from_stem(self.convolve_stem(volume))

    def convolve_stem(self, volume: Tensor) -> Tensor:
        """Compute the stem's convolution, before its norm."""
        out: Tensor = self.conv1(volume)
        return out

    def maps_from_stem(self, stem: Tensor) -> list[Tensor]:
        """Compute the feature maps, given what the stem's convolution gave; that is left as it is.

        Shape:
            `(batch, width, depth, height, width)` -> as `forward` gives them.
        """
        out = functional.relu(self.norm1(stem), inplace=True)
        maps = [out]
        if self.geometry.pool_stride is not None:
            out = max_pool(
                out,
                stride=self.geometry.pool_stride,
                across_slices=self.pools_across_slices,
            )
        for number, stage in enumerate(self.stages, start=1):
            for block in stage:
                out = run_block(block, out, checkpointing=self.checkpointing)
            out = self.leave_stage(number, out)
            maps.append(out)
        return maps

    @property
    def pools_across_slices(self) -> bool:
        """Whether the pooling behind the stem sees neighbouring slices."""
        return self.architecture.convolution != "planar"

    def leave_stage(self, number: int, volume: Tensor) -> Tensor:
        """Compute what lies between a stage, counted from 1, and the next: here nothing."""
        del number
        return volume
