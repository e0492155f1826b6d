"""ResNet 10 to 200 for volumes, and, by the same lines, its planar twin.

The architecture shapes the tensors; the geometry only says how far each layer steps. Assigning
`backbone.geometry` changes the function and leaves the state dict alone.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import ONES
from voxlift.core.types import Triple
from voxlift.lifting.fold import folded_conv3d
from voxlift.lifting.image_to_volume import NUM_SLICES
from voxlift.nets.layers import Convolver, convolution, normalization, set_steps
from voxlift.nets.residual import Layout, ResidualBlock, ResidualEncoder
from voxlift.nets.shortcut import always_projection, projection, set_shortcut_steps


class BasicBlock(ResidualBlock):
    """Two 3^n convolutions beside a shortcut.

    Source:
        Deep residual learning, arXiv 1512.03385, figure 5 left.
    """

    expansion = 1
    zero_init_norm = "norm2"

    def __init__(self, architecture: Architecture, in_channels: int, channels: int) -> None:
        super().__init__()
        ndim, norm, kind = architecture.ndim, architecture.norm, architecture.convolution
        self.conv1 = convolution(ndim, in_channels, channels, 3, kind)
        self.norm1 = normalization(norm, ndim, channels)
        self.conv2 = convolution(ndim, channels, channels, 3, kind)
        self.norm2 = normalization(norm, ndim, channels)
        self.downsample = projection(architecture, in_channels, channels)

    def set_steps(self, *, stride: Triple, dilation: Triple) -> None:
        """Stride the first convolution and the shortcut, dilate both convolutions."""
        self.stride = stride
        set_steps(self.conv1, stride=stride, dilation=dilation)
        set_steps(self.conv2, stride=ONES, dilation=dilation)
        set_shortcut_steps(self.downsample, stride)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the block."""
        out = functional.relu(self.norm1(self.conv1(volume)), inplace=True)
        return self.add_shortcut(self.norm2(self.conv2(out)), volume)


class Bottleneck(ResidualBlock):
    """A 3^n convolution between two of 1^n, beside a shortcut.

    Source:
        Deep residual learning, arXiv 1512.03385, figure 5 right; stride on the 3^n convolution.
    """

    expansion = 4
    zero_init_norm = "norm3"

    def __init__(self, architecture: Architecture, in_channels: int, channels: int) -> None:
        super().__init__()
        ndim, norm, kind = architecture.ndim, architecture.norm, architecture.convolution
        out_channels = channels * self.expansion
        self.conv1 = convolution(ndim, in_channels, channels, 1, kind)
        self.norm1 = normalization(norm, ndim, channels)
        self.conv2 = convolution(ndim, channels, channels, 3, kind)
        self.norm2 = normalization(norm, ndim, channels)
        self.conv3 = convolution(ndim, channels, out_channels, 1, kind)
        self.norm3 = normalization(norm, ndim, out_channels)
        self.downsample = projection(architecture, in_channels, out_channels)

    def set_steps(self, *, stride: Triple, dilation: Triple) -> None:
        """Stride and dilate the middle convolution, stride the shortcut."""
        self.stride = stride
        set_steps(self.conv2, stride=stride, dilation=dilation)
        set_shortcut_steps(self.downsample, stride)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the block."""
        out = functional.relu(self.norm1(self.conv1(volume)), inplace=True)
        out = functional.relu(self.norm2(self.conv2(out)), inplace=True)
        return self.add_shortcut(self.norm3(self.conv3(out)), volume)


RESNETS: dict[str, Layout] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
    "resnet200": (Bottleneck, (3, 24, 36, 3)),
}


class ResNet(ResidualEncoder):
    """A residual network for volumes (or images) with five feature maps.

    Args:
        architecture: What shapes the tensors.
        geometry: Strides, pooling and dilations; can be assigned anew at any time.
        zero_init_residual: Start each block as its shortcut: the last norm's weight is zero.
        checkpointing: Recompute each block in the backward pass instead of keeping what it held.

    Shape:
        `(batch, in_channels, depth, height, width)` -> five maps, see `out_channels` and `strides`.
        With `ndim=2` there is no depth.

    Raises:
        ConfigError: For an unknown name.

    Source:
        Deep residual learning, arXiv 1512.03385; in 3D as in arXiv 2201.01426, section 4.
    """

    layouts: ClassVar[Mapping[str, Layout]] = RESNETS
    family: ClassVar[str] = "ResNet"

    def make_stem(self) -> Convolver:
        """Make the stem's convolution."""
        architecture = self.architecture
        return convolution(
            architecture.ndim,
            architecture.in_channels,
            architecture.width,
            architecture.stem_kernel,
            architecture.convolution,
        )

    def make_block(self, number: int, in_channels: int, channels: int) -> ResidualBlock:
        """Make a block."""
        architecture = self.architecture
        kind, _ = self.layouts[architecture.name]
        block = kind(architecture, in_channels, channels)
        if number == 0 and architecture.project_first and block.downsample is None:
            block.downsample = always_projection(
                architecture, in_channels, channels * kind.expansion
            )
        return block

    def convolve_stem(self, volume: Tensor) -> Tensor:
        """Convolve by the stem; on a thin axis as an equal 2D convolution, which is faster.

        The lowering is also safe in bf16 on a CPU, where the 3D kernel is not: see `Conv3d`.
        """
        conv = self.conv1
        thin_axis = self._thin_axis(volume)
        if thin_axis is None:
            stem: Tensor = conv(volume)
            return stem
        stem = folded_conv3d(
            volume, conv.weight, conv.bias, stride=self.geometry.stem_stride, thin_axis=thin_axis
        )
        return stem.contiguous(memory_format=self._memory_format)

    def _thin_axis(self, volume: Tensor) -> int | None:
        architecture = self.architecture
        if architecture.ndim != 3 or architecture.in_channels != 1:
            return None
        if architecture.convolution == "acs":
            return None
        for axis, length in enumerate(volume.shape[2:]):
            if length <= NUM_SLICES and self.geometry.stem_stride[axis] == 1:
                return axis
        return None

    @property
    def _memory_format(self) -> torch.memory_format:
        """The format that the user gave the weights with `.to(memory_format=...)`."""
        # Not that of a 1^3 kernel, which lies in memory as both formats do.
        conv = self.get_submodule("layer1.0.conv2")
        assert isinstance(conv, nn.Conv3d)
        weight = conv.weight
        last = weight.is_contiguous(memory_format=torch.channels_last_3d)
        return torch.channels_last_3d if last and weight.shape[1] > 1 else torch.contiguous_format
