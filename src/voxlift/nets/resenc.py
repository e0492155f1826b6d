"""nnU-Net's residual encoder, ResEnc."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture, Norm, Stage
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import ALL, ONES, Geometry
from voxlift.core.types import Triple
from voxlift.nets.checkpointing import run_block
from voxlift.nets.encoder import Encoder
from voxlift.nets.family_limits import (
    check_architecture,
    check_only_stages_step,
    check_spread,
)
from voxlift.nets.layers import Conv3d, initialize, normalization, set_steps

NEGATIVE_SLOPE = 0.01
LARGE_PLAN = ((1, 1), (2, 3), (4, 4), (8, 6), (10, 6), (10, 6))
"""Of each stage of ResEnc-L: channels, as multiples of the width, and blocks. Its width is 32."""


class ConvolutionAndNorm(nn.Module):
    """A "same" convolution and a norm."""

    def __init__(
        self, norm: Norm, in_channels: int, out_channels: int, kernel: Triple, *, bias: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = Conv3d(in_channels, out_channels, kernel, padding=padding, bias=bias)
        self.norm = normalization(norm, 3, out_channels)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the layer."""
        out: Tensor = self.norm(self.conv(volume))
        return out


class ResEncBlock(nn.Module):
    """Two convolutions beside a shortcut, which averages where they stride.

    Source:
        ResNet-D, arXiv 1812.01187, figure 2c, with two 3^3 convolutions.
    """

    def __init__(self, norm: Norm, in_channels: int, out_channels: int, kernel: Triple) -> None:
        super().__init__()
        self.conv1 = ConvolutionAndNorm(norm, in_channels, out_channels, kernel)
        self.conv2 = ConvolutionAndNorm(norm, out_channels, out_channels, kernel)
        self.skip = (
            ConvolutionAndNorm(norm, in_channels, out_channels, ONES, bias=False)
            if in_channels != out_channels
            else nn.Identity()
        )
        self.stride: Triple = ONES

    def set_stride(self, stride: Triple) -> None:
        """Stride the first convolution and the shortcut."""
        self.stride = stride
        set_steps(self.conv1.conv, stride=stride)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the block."""
        out = self.conv2(_leaky(self.conv1(volume)))
        shortcut = volume
        if self.stride != ONES:
            # Differs from the original, which cannot take sizes that the stride does not divide;
            # where it does, both are the same.
            shortcut = functional.avg_pool3d(volume, self.stride, self.stride, ceil_mode=True)
        return _leaky(out + self.skip(shortcut))


def _leaky(volume: Tensor) -> Tensor:
    return functional.leaky_relu(volume, NEGATIVE_SLOPE, inplace=True)


class ResEncEncoder(Encoder):
    """A residual encoder whose stages were planned for a data set, with a feature map each.

    The stem convolves at full resolution and has no map of its own.

    Args:
        architecture: `stages` plans channels, blocks and kernel of each stage; without them it is
            ResEnc-L, scaled to `width`, the number of channels of the first stage and of the stem.
        geometry: `stage_strides`, one for each stage; the first is normally 1.
        zero_init_residual: Start each block as its shortcut.
        checkpointing: Recompute each block in the backward pass instead of keeping what it held.

    Shape:
        `(batch, in_channels, depth, height, width)` -> six maps of strides 1, 2, 4, 8, 16 and 32 as
        ResEnc-L in the default geometry.

    Raises:
        ConfigError: If something else is asked for than the family has, or the stages do not agree
            with the width.

    Source:
        nnU-Net revisited, arXiv 2404.09556; blocks as in ResNet-D, arXiv 1812.01187.
    """

    input_layers: ClassVar[tuple[str, ...]] = ("stem.conv",)
    defaults: ClassVar[Mapping[str, object]] = {"stem_kernel": 3, "width": 32, "norm": "instance"}

    def __init__(
        self,
        architecture: Architecture,
        geometry: Geometry,
        *,
        zero_init_residual: bool = False,
        checkpointing: bool = False,
    ) -> None:
        stages = planned_stages(architecture)
        super().__init__(architecture.model_copy(update={"stages": stages}))
        self.checkpointing = checkpointing
        norms: tuple[Norm, ...] = ("instance", "batch", "group")
        check_architecture(architecture, norms=norms, chosen=("stages",))
        _check_stages(architecture, stages)
        norm, width = architecture.norm, architecture.width
        self.stem = ConvolutionAndNorm(norm, architecture.in_channels, width, stages[0].kernel)
        self.stages = nn.ModuleList()
        channels = width
        for stage in stages:
            blocks = [ResEncBlock(norm, channels, stage.channels, stage.kernel)]
            channels = stage.channels
            blocks += [
                ResEncBlock(norm, channels, channels, stage.kernel) for _ in range(stage.blocks - 1)
            ]
            self.stages.append(nn.Sequential(*blocks))
        self.out_channels = tuple(stage.channels for stage in stages)
        initialize(self)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, ResEncBlock):
                    nn.init.zeros_(module.conv2.norm.weight)  # type: ignore[arg-type]
        self.geometry = geometry

    @classmethod
    def default_geometry(cls, architecture: Architecture) -> Geometry:
        """Half the size at each stage behind the first."""
        return Geometry(stage_strides=(ONES, *(ALL for _ in planned_stages(architecture)[1:])))

    @property
    def strides(self) -> tuple[Triple, ...]:
        """Stride of each feature map relative to the input, (depth, height, width)."""
        return self.geometry.strides[1:]

    def set_geometry(self, geometry: Geometry) -> None:
        """Stride the first block of each stage.

        Raises:
            ConfigError: If the stem steps, anything is dilated, or there are more or fewer stages.
        """
        self.check_stages(geometry, len(self.stages))
        check_only_stages_step(self.architecture.name, geometry)
        for stage, stride in zip(self.stages, geometry.stage_strides, strict=True):
            assert isinstance(stage, nn.Sequential)
            first = stage[0]
            assert isinstance(first, ResEncBlock)
            first.set_stride(stride)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the feature maps, one a stage.

        Raises:
            DataError: If the volume has another number of dimensions or channels than the
                architecture, or is too small for the geometry.
        """
        self.check_input(volume)
        name, norm = self.architecture.name, self.architecture.norm
        check_spread(name, norm, volume.shape, self.strides[-1])
        out = _leaky(self.stem(volume))
        maps: list[Tensor] = []
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            for block in stage:
                out = run_block(block, out, checkpointing=self.checkpointing)
            maps.append(out)
        return maps


def planned_stages(architecture: Architecture) -> tuple[Stage, ...]:
    """Give the stages of a residual encoder: the planned ones, or those of ResEnc-L."""
    if architecture.stages is not None:
        return architecture.stages
    return tuple(
        Stage(channels=architecture.width * multiple, blocks=blocks)
        for multiple, blocks in LARGE_PLAN
    )


def _check_stages(architecture: Architecture, stages: tuple[Stage, ...]) -> None:
    if not stages or stages[0].channels != architecture.width:
        first = stages[0].channels if stages else "no stage"
        raise ConfigError(
            f"{architecture.name} has the width {architecture.width} and in its first stage "
            f"{first}; the width is the number of channels of the first stage."
        )
    for stage in stages:
        if any(edge < 1 or edge % 2 == 0 for edge in stage.kernel):
            raise ConfigError(
                f"{architecture.name} has kernels with odd edges; found {stage.kernel}."
            )
