"""A pyramid of maps with equal channels on a backbone's planes, and what lies on its levels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from voxlift.core.backbone import Backbone
from voxlift.core.errors import ConfigError, DataError

LAST_LEVEL_STRIDE = 2
"""Stride of the level that is added behind the backbone's last."""

# A box of the edge 224 is read from the level of stride 16, as in arXiv 1612.03144, equation 1.
CANONICAL_EDGE, CANONICAL_STRIDE = 224, 16


def plane_strides(backbone: Backbone) -> tuple[int, ...]:
    """Stride of each of a backbone's planes, in pixels of the input.

    Raises:
        ConfigError: If its maps are no planes, or a stride differs between height and width.
    """
    name, strides = backbone.architecture.name, backbone.strides
    if any(len(stride) != 2 for stride in strides):
        raise ConfigError(
            f"{name} gives maps of the strides {strides[0]}, ..., which are no planes; boxes are "
            "found in planes. Build it with num_slices, such as 3 for photographs or 9 for CT."
        )
    for height, width in strides:
        if height != width:
            raise ConfigError(
                f"{name} strides height by {height} and width by {width}; boxes need maps that "
                "stride both alike. Choose 'pretrain', 'thumbnail' or another such geometry."
            )
    return tuple(stride[0] for stride in strides)


def feature_pyramid(in_channels: Sequence[int], *, channels: int) -> nn.Module:
    """Make torchvision's pyramid, with one more level behind the backbone's last.

    Args:
        in_channels: Channels of the backbone's maps.
        channels: Channels of the pyramid's.

    Source:
        Feature pyramid networks, arXiv 1612.03144.
    """
    pyramid: nn.Module = FeaturePyramidNetwork(
        list(in_channels), channels, extra_blocks=LastLevelMaxPool()
    )
    return pyramid


def pad_volumes(volumes: Sequence[Tensor] | Tensor, *, multiple: int) -> ImageList:
    """Put volumes of unequal planes into one batch, below and right of each filled up with zeros.

    Args:
        volumes: `(channels, slices, height, width)` each, or a batch of them.
        multiple: What the height and width of the batch are multiples of, so that no map of the
            pyramid has a pixel that only part of a stride belongs to.

    Returns:
        The batch, and the height and width of each volume in it.

    Raises:
        DataError: If there is none, or they differ in channels or slices.
    """
    if isinstance(volumes, Tensor) and volumes.ndim != 5:
        raise DataError(
            "A batch of volumes is (batch, channels, slices, height, width); found the shape "
            f"{tuple(volumes.shape)}."
        )
    if len(volumes) == 0:
        raise DataError("There is no volume in the batch; give at least one.")
    for volume in volumes:
        if volume.ndim != 4 or volume.shape[:2] != volumes[0].shape[:2]:
            raise DataError(
                "Volumes of a batch are (channels, slices, height, width), with channels and "
                f"slices alike; found the shapes {tuple(volumes[0].shape)} and "
                f"{tuple(volume.shape)}."
            )
    sizes = [(int(volume.shape[-2]), int(volume.shape[-1])) for volume in volumes]
    height, width = (
        multiple * math.ceil(max(lengths) / multiple) for lengths in zip(*sizes, strict=True)
    )
    if isinstance(volumes, Tensor):
        return ImageList(functional.pad(volumes, _missing(volumes, height, width)), sizes)
    padded = [functional.pad(volume, _missing(volume, height, width)) for volume in volumes]
    return ImageList(torch.stack(padded), sizes)


def _missing(volume: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    return (0, width - volume.shape[-1], 0, height - volume.shape[-2])


class PyramidAnchors(AnchorGenerator):  # type: ignore[misc]
    """Boxes of every level's own size about each of its pixels.

    Sizes follow the strides of the maps that are given, whatever the geometry; and no edge is
    rounded, which would distort the small anchors of fine maps.

    Args:
        scales: Edges of the anchors, in strides of their level.
        ratios: Height over width.
        num_levels: Levels of the pyramid.

    Raises:
        ConfigError: If some pixel of an image would be in no anchor.
    """

    def __init__(
        self, *, scales: Sequence[float], ratios: Sequence[float], num_levels: int
    ) -> None:
        nn.Module.__init__(self)
        self.shapes = tuple(
            (scale * math.sqrt(ratio), scale / math.sqrt(ratio))
            for ratio in ratios
            for scale in scales
        )
        self.num_levels = num_levels

    def check_cover(self) -> None:
        """Refuse anchors that leave gaps: a box in a gap would be matched with all of them.

        Raises:
            ConfigError: If some pixel of an image is in no anchor.
        """
        if not any(min(shape) >= 2 for shape in self.shapes):
            raise ConfigError(
                "Anchors have to be at least 2 strides high and wide, or pixels at the edge of an "
                f"image are in none; found {max(min(shape) for shape in self.shapes):.2f}. Choose "
                "a larger anchor_scale, or a ratio nearer to 1."
            )

    def num_anchors_per_location(self) -> list[int]:
        """Count the anchors about a pixel of each level."""
        return [len(self.shapes)] * self.num_levels

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute the anchors of each image, in pixels of the input: `(anchors, 4)`."""
        levels = [
            self.level(level.shape[-2:], stride=images.tensors.shape[-1] // level.shape[-1])
            for level in maps
        ]
        # In full precision whatever the maps are in: bf16 would move a corner by pixels.
        anchors = torch.cat(levels).to(maps[0].device)
        return [anchors for _ in images.image_sizes]

    def level(self, size: Sequence[int], *, stride: int) -> Tensor:
        """Compute the anchors of one level, rows first, all of a pixel together."""
        rows, columns = (torch.arange(length, dtype=torch.float32) * stride for length in size)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        height, width = stride * torch.tensor(self.shapes).T / 2
        corners = torch.stack([-width, -height, width, height], 1)
        return (torch.stack([x, y, x, y], 2)[:, :, None] + corners).reshape(-1, 4)


class PyramidRoIAlign(MultiScaleRoIAlign):  # type: ignore[misc]
    """RoIAlign that is told the strides of its levels.

    torchvision's own guesses them from the sizes of the first images that it sees, which is wrong
    for images that were padded, and keeps them whatever comes.
    """

    def set_strides(self, strides: Sequence[int]) -> None:
        """Say by how much the maps to come are strided, from the finest to the coarsest."""
        self.scales = [1 / stride for stride in strides]
        self.map_levels = _LevelOf(tuple(strides))


class _LevelOf:
    """Which level a box is read from: the coarsest that is no coarser than its size asks for.

    For strides that double this is equation 1 of arXiv 1612.03144.
    """

    def __init__(self, strides: tuple[int, ...]) -> None:
        self.strides = strides

    def __call__(self, boxes: list[Tensor]) -> Tensor:
        corners = torch.cat(boxes).float()
        edges = (corners[:, 2:] - corners[:, :2]).prod(1).clamp(min=0).sqrt()
        wanted = edges * (CANONICAL_STRIDE / CANONICAL_EDGE) * (1 + 1e-6)
        strides = torch.tensor(self.strides, dtype=wanted.dtype, device=wanted.device)
        return (torch.bucketize(wanted, strides, right=True) - 1).clamp(min=0)
