"""P3D: residual networks whose kernels see a slice, or go through the slices, but never both.

Each 3^3 convolution is a pair: 1x3x3 within the slices and 3x1x1 across them. How a pair is joined
is the kind of its block, and the kinds A, B, C follow each other through the whole network.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import ONES
from voxlift.core.types import Triple
from voxlift.nets.layers import Conv3d, convolution, normalization, set_steps, subsample
from voxlift.nets.residual import Layout, ResidualBlock, ResidualEncoder
from voxlift.nets.shortcut import projection, set_shortcut_steps

Kind = Literal["A", "B", "C"]
"""A: first within the slices, then across. B: beside each other. C: as A, plus what A began with.
"""

KINDS: tuple[Kind, ...] = ("A", "B", "C")


class BasicBlock(ResidualBlock):
    """Two pairs of 1x3x3 and 3x1x1 beside a shortcut.

    The stride lies in the first pair: height and width on its 1x3x3, depth on its 3x1x1. The two
    of kind B step alike, for both take the block's input.

    Source:
        The basic block of arXiv 2012.08770; the kinds are those of P3D, arXiv 1711.10305.
    """

    expansion = 1
    zero_init_norm = "norm4"

    def __init__(
        self, architecture: Architecture, in_channels: int, channels: int, kind: Kind
    ) -> None:
        super().__init__()
        self.kind = kind
        self.conv1 = within_slices(in_channels, channels, 3)
        self.norm1 = normalization(architecture.norm, 3, channels)
        self.conv2 = across_slices(in_channels if kind == "B" else channels, channels)
        self.norm2 = normalization(architecture.norm, 3, channels)
        self.conv3 = within_slices(channels, channels, 3)
        self.norm3 = normalization(architecture.norm, 3, channels)
        self.conv4 = across_slices(channels, channels)
        self.norm4 = normalization(architecture.norm, 3, channels)
        self.downsample = projection(architecture, in_channels, channels)

    def set_steps(self, *, stride: Triple, dilation: Triple) -> None:
        """Stride the first pair and the shortcut, dilate both pairs."""
        self.stride = stride
        in_plane, in_depth = _parts(stride)
        parallel = self.kind == "B"
        set_steps(self.conv1, stride=stride if parallel else in_plane, dilation=dilation)
        set_steps(self.conv2, stride=stride if parallel else in_depth, dilation=dilation)
        set_steps(self.conv3, stride=ONES, dilation=dilation)
        set_steps(self.conv4, stride=ONES, dilation=dilation)
        set_shortcut_steps(self.downsample, stride)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the block."""
        first = (self.conv1, self.norm1), (self.conv2, self.norm2)
        second = (self.conv3, self.norm3), (self.conv4, self.norm4)
        out = run_pair(self.kind, volume, *first, in_depth=_parts(self.stride)[1])
        return self.add_shortcut(run_pair(self.kind, out, *second), volume)


class Bottleneck(ResidualBlock):
    """A pair of 1x3x3 and 3x1x1 between two convolutions of 1^3, beside a shortcut.

    The stride of height and width lies on the first 1^3 convolution, where the published weights
    were trained with it; that of depth on the 3x1x1, which sees the slices that are passed over.

    Source:
        P3D, arXiv 1711.10305, figure 3; as a 3D encoder of CT slices in arXiv 2012.08770.
    """

    expansion = 4
    zero_init_norm = "norm4"

    def __init__(
        self, architecture: Architecture, in_channels: int, channels: int, kind: Kind
    ) -> None:
        super().__init__()
        self.kind = kind
        out_channels = channels * self.expansion
        self.conv1 = convolution(3, in_channels, channels, 1)
        self.norm1 = normalization(architecture.norm, 3, channels)
        self.conv2 = within_slices(channels, channels, 3)
        self.norm2 = normalization(architecture.norm, 3, channels)
        self.conv3 = across_slices(channels, channels)
        self.norm3 = normalization(architecture.norm, 3, channels)
        self.conv4 = convolution(3, channels, out_channels, 1)
        self.norm4 = normalization(architecture.norm, 3, out_channels)
        self.downsample = projection(architecture, in_channels, out_channels)

    def set_steps(self, *, stride: Triple, dilation: Triple) -> None:
        """Stride the first convolution, the one across slices and the shortcut; dilate the pair."""
        self.stride = stride
        in_plane, in_depth = _parts(stride)
        set_steps(self.conv1, stride=in_plane)
        set_steps(self.conv2, stride=in_depth if self.kind == "B" else ONES, dilation=dilation)
        set_steps(self.conv3, stride=in_depth, dilation=dilation)
        set_shortcut_steps(self.downsample, stride)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the block."""
        pair = (self.conv2, self.norm2), (self.conv3, self.norm3)
        out = functional.relu(self.norm1(self.conv1(volume)), inplace=True)
        out = run_pair(self.kind, out, *pair, in_depth=_parts(self.stride)[1])
        return self.add_shortcut(self.norm4(self.conv4(out)), volume)


Layers = tuple[nn.Module, nn.Module]
"""A convolution and its norm."""


def run_pair(
    kind: Kind, volume: Tensor, within: Layers, across: Layers, *, in_depth: Triple = ONES
) -> Tensor:
    """Join a convolution within the slices and one across them.

    Args:
        kind: How they are joined.
        volume: What the first takes; in kind B both.
        within: The 1x3x3 convolution and its norm.
        across: The 3x1x1 convolution and its norm.
        in_depth: Stride of `across` in depth, for what goes past it.
    """
    of_slices = _activate(within, volume)
    if kind == "A":
        return _activate(across, of_slices)
    if kind == "B":
        return of_slices + _activate(across, volume)
    through = _activate(across, of_slices)
    return through + (of_slices if in_depth == ONES else subsample(of_slices, stride=in_depth))


def within_slices(in_channels: int, out_channels: int, kernel: int) -> Conv3d:
    """Make a bias-free "same" convolution of 1 x kernel x kernel."""
    edge = kernel // 2
    return Conv3d(
        in_channels, out_channels, (1, kernel, kernel), padding=(0, edge, edge), bias=False
    )


def across_slices(in_channels: int, out_channels: int) -> Conv3d:
    """Make a bias-free "same" convolution of 3 x 1 x 1."""
    return Conv3d(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0), bias=False)


def _activate(layers: Layers, volume: Tensor) -> Tensor:
    conv, norm = layers
    return functional.relu(norm(conv(volume)), inplace=True)


def _parts(stride: Triple) -> tuple[Triple, Triple]:
    """Part a stride into that within the slices and that across them."""
    return (1, stride[1], stride[2]), (stride[0], 1, 1)


P3DS: dict[str, Layout] = {
    "p3d18": (BasicBlock, (2, 2, 2, 2)),
    "p3d18_bottleneck": (Bottleneck, (2, 2, 2, 2)),
    "p3d34": (BasicBlock, (3, 4, 6, 3)),
    "p3d63": (Bottleneck, (3, 4, 6, 3)),
    "p3d131": (Bottleneck, (3, 4, 23, 3)),
}
"""The code of arXiv 2012.08770 calls them 18ba, 18, 34ba, 63 and 131."""


class P3D(ResidualEncoder):
    """A pseudo-3D residual network with five feature maps.

    The stem is 1 x kernel x kernel: a stem strided in depth passes over slices unseen. Geometries
    that leave depth alone, or to the pooling (kernel 3) and the stages, see them all.

    Args:
        architecture: What shapes the tensors; `stem_kernel` is the stem's height and width.
        geometry: Strides, pooling and dilations; can be assigned anew at any time.
        zero_init_residual: Start each bottleneck as its shortcut: its last norm's weight is zero.
        checkpointing: Recompute each block in the backward pass instead of keeping what it held.

    Shape:
        `(batch, in_channels, depth, height, width)` -> five maps, see `out_channels` and `strides`.

    Raises:
        ConfigError: For an unknown name, or an option that the family does not have.

    Source:
        arXiv 2012.08770, section 2; P3D is of arXiv 1711.10305.
    """

    defaults: ClassVar[Mapping[str, object]] = {"norm": "group"}
    layouts: ClassVar[Mapping[str, Layout]] = P3DS
    family: ClassVar[str] = "P3D"

    def check_options(self, *, zero_init_residual: bool) -> None:
        """Refuse what the family does not have.

        Raises:
            ConfigError: With the option, and what to do.
        """
        super().check_options(zero_init_residual=zero_init_residual)
        architecture = self.architecture
        name = architecture.name
        if name in P3DS and architecture.num_slices is not None:
            raise ConfigError(
                f"{name} has no group transform; m{name} is the same network with one."
            )
        refused = {
            "ndim": architecture.ndim != 3,
            "convolution": architecture.convolution != "full",
            "project_first": architecture.project_first,
            "stages": architecture.stages is not None,
        }
        for option, given in refused.items():
            if given:
                raise ConfigError(
                    f"{name} cannot be built with {option}={getattr(architecture, option)!r}: its "
                    "kernels are 1x3x3 and 3x1x1 already, in stages of its own. Leave the option "
                    "out."
                )
        if zero_init_residual and self.layouts[name][0] is BasicBlock:
            raise ConfigError(
                f"{name} cannot start with zero_init_residual: its blocks end in a ReLU, through "
                "which a norm that starts at zero would never learn. Leave it off."
            )

    def make_stem(self) -> Conv3d:
        """Make the stem's convolution, which keeps to the slices."""
        architecture = self.architecture
        return within_slices(architecture.in_channels, architecture.width, architecture.stem_kernel)

    def make_block(self, number: int, in_channels: int, channels: int) -> ResidualBlock:
        """Make a block of the kind whose turn it is."""
        block, _ = self.layouts[self.architecture.name]
        kind = KINDS[number % len(KINDS)]
        return block(self.architecture, in_channels, channels, kind)
