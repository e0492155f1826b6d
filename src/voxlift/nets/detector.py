"""A detector: boxes in the key slice of a few slices, from a backbone that turns them into planes.

Source:
    Feature pyramid and Faster R-CNN on a 3D backbone with group transforms: arXiv 2012.08770.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from voxlift.core.backbone import Backbone
from voxlift.core.detection_settings import DetectorSettings, Head
from voxlift.core.errors import ConfigError, DataError, VoxliftError
from voxlift.nets.detection_head import (
    Detection,
    DetectionHead,
    HeadSettings,
    Losses,
    Maps,
    Target,
)
from voxlift.nets.feature_pyramid import (
    LAST_LEVEL_STRIDE,
    feature_pyramid,
    pad_volumes,
    plane_strides,
)
from voxlift.nets.one_stage_head import fcos_head, retinanet_head
from voxlift.nets.two_stage_head import TwoStageHead

HEADS: dict[Head, Callable[[HeadSettings], DetectionHead]] = {
    "faster-rcnn": TwoStageHead,
    "retinanet": retinanet_head,
    "fcos": fcos_head,
}
"""Every head by name."""


class Detector(nn.Module):
    """Find boxes in planes: a feature pyramid on a backbone, and one of torchvision's heads on it.

    Nothing is resized or normalised here; volumes of unequal size are padded to a common one.
    Anchors follow the strides of the backbone, also when it is given another geometry.

    Args:
        backbone: Any encoder whose maps are planes: `mp3d18`, `mp3d63`, or a ResNet built with
            `num_slices`.
        num_classes: Lesion classes, without background.
        settings: What stands on the backbone.

    Raises:
        ConfigError: For a backbone without planes, too few classes, or anchors that leave gaps.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        settings: DetectorSettings | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(
                f"A detector needs at least one class beside the background; found {num_classes}."
            )
        settings = settings or DetectorSettings()
        plane_strides(backbone)
        assert isinstance(backbone, nn.Module)
        self.backbone = backbone
        self.num_classes = num_classes
        self.fpn = feature_pyramid(backbone.out_channels, channels=settings.fpn_channels)
        self.head = HEADS[settings.head](
            HeadSettings(
                num_levels=len(backbone.out_channels) + 1,
                num_classes=num_classes,
                detector=settings,
            )
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each level of the pyramid, in pixels of the input."""
        strides = plane_strides(self.backbone)
        return (*strides, strides[-1] * LAST_LEVEL_STRIDE)

    @property
    def head_groups(self) -> tuple[str, ...]:
        """Modules behind the backbone that are of use without those named after them.

        What is in two of them belongs to the later. Only the last has the number of classes in its
        shapes.
        """
        return ("fpn", *(f"head.{group}" for group in self.head.groups))

    @property
    def score_threshold(self) -> float:
        """Boxes with a lower score are left out; can be set."""
        return self.head.score_threshold

    @score_threshold.setter
    def score_threshold(self, threshold: float) -> None:
        self.head.score_threshold = threshold

    @property
    def max_boxes(self) -> int:
        """Most boxes found in an image; can be set."""
        return self.head.max_boxes

    @max_boxes.setter
    def max_boxes(self, count: int) -> None:
        self.head.max_boxes = count

    def pyramid(self, volumes: Tensor) -> Maps:
        """Compute the pyramid's maps, from the finest to the coarsest, by their names.

        Args:
            volumes: Of one size, a multiple of every stride.

        Shape:
            `(batch, in_channels, num_slices, height, width)` -> maps of
            `(batch, fpn_channels, height / stride, width / stride)`.
        """
        planes = {str(i): plane for i, plane in enumerate(self.backbone(volumes))}
        maps: Maps = self.fpn(planes)
        return maps

    def forward(
        self, volumes: Sequence[Tensor] | Tensor, targets: Sequence[Target] | None = None
    ) -> Losses | list[Detection]:
        """Compute the losses in training; in evaluation find boxes, and pass over the targets.

        Args:
            volumes: `(in_channels, num_slices, height, width)` each, or a batch of them.
            targets: What is marked in each, needed in training; there may be nothing in an image,
                and `ignored` may be left out.

        Returns:
            In training the losses by name, to be added up; else the boxes found in each image.

        Raises:
            DataError: For volumes that cannot be put into one batch, targets that do not fit them,
                or boxes without area or outside their image.
            VoxliftError: In evaluation, if a map is not finite.
        """
        images = pad_volumes(volumes, multiple=math.lcm(*self.strides))
        checked = self._check(targets, images.image_sizes) if self.training else None
        maps = self.pyramid(images.tensors)
        if not self.training:
            return self.find(images, maps)
        losses: Losses = self.head(images, maps, checked)
        return losses

    def find(self, images: ImageList, maps: Maps) -> list[Detection]:
        """Find boxes on the pyramid's maps, in evaluation.

        Args:
            images: Of which only the sizes are looked at.
            maps: Of `pyramid`.

        Returns:
            The boxes of each image.

        Raises:
            VoxliftError: If a map is not finite.
        """
        check_finite(maps)
        found: list[Detection] = self.head(images, maps, None)
        return found

    def compute_losses(
        self, volumes: Sequence[Tensor] | Tensor, targets: Sequence[Target]
    ) -> Losses:
        """Compute the losses, in training."""
        assert self.training, "Losses are computed in training only: call .train() before."
        losses = self(volumes, targets)
        assert isinstance(losses, dict)
        return losses

    @torch.no_grad()
    def detect(self, volumes: Sequence[Tensor] | Tensor) -> list[Detection]:
        """Find boxes, in evaluation."""
        assert not self.training, "Boxes are found in evaluation only: call .eval() before."
        found = self(volumes)
        assert isinstance(found, list)
        return found

    def _check(
        self, targets: Sequence[Target] | None, sizes: Sequence[tuple[int, int]]
    ) -> list[Target]:
        if targets is None or len(targets) != len(sizes):
            count = 0 if targets is None else len(targets)
            raise DataError(
                f"There are {len(sizes)} volumes and targets of {count}. In training each needs "
                "its own; an image without boxes has a target with none. Call .eval() to predict."
            )
        return [
            check_target(target, size=size, num_classes=self.num_classes)
            for target, size in zip(targets, sizes, strict=True)
        ]


def check_finite(maps: Maps) -> None:
    """Refuse maps with NaN or Inf, for boxes that are no numbers would be left out without a word.

    Raises:
        VoxliftError: If a number is not finite.
    """
    if not all(bool(level.isfinite().all()) for level in maps.values()):
        raise VoxliftError(
            "The network's feature maps are not finite. Compute in fp32 (--precision fp32), or "
            "check the weights."
        )


def check_target(target: Target, *, size: tuple[int, int], num_classes: int) -> Target:
    """Refuse targets that would train nonsense.

    Args:
        target: What is marked in an image.
        size: Of the image, (height, width) in pixels.
        num_classes: Classes, without background.

    Raises:
        DataError: If lengths differ, a box has no area or lies outside the image, or a label is out
            of range.
    """
    boxes, labels = target["boxes"].float(), target["labels"].long()
    ignored = target.get("ignored", boxes[:0]).float()
    count = len(labels)
    if boxes.shape != (count, 4) or labels.shape != (count,) or ignored.shape[1:] != (4,):
        raise DataError(
            f"Boxes of the shape {tuple(boxes.shape)}, labels of {tuple(labels.shape)} and ignored "
            f"regions of {tuple(ignored.shape)} do not fit; expected (boxes, 4), (boxes,) and "
            "(regions, 4)."
        )
    _check_boxes(torch.cat([boxes, ignored]), size=size)
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise DataError(
            f"Labels from {int(labels.min())} to {int(labels.max())} for a detector of "
            f"{num_classes} classes; they count from 0, and the background is none of them."
        )
    return {"boxes": boxes, "labels": labels, "ignored": ignored}


def _check_boxes(boxes: Tensor, *, size: tuple[int, int]) -> None:
    height, width = size
    finite = torch.isfinite(boxes).all(1)
    with_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
    # A box that no anchor overlaps would be matched with all of them.
    inside = (boxes[:, 2:] > 0).all(1) & (boxes[:, :2] < boxes.new_tensor([width, height])).all(1)
    for good, what in (
        (finite & with_area, "has no area; expected x1 < x2 and y1 < y2"),
        (inside, f"lies outside its image of {height} x {width} pixels"),
    ):
        if not good.all():
            found = [round(edge, 2) for edge in boxes[int((~good).nonzero()[0, 0])].tolist()]
            raise DataError(f"The box {found} (x1, y1, x2, y2) {what}. Leave such boxes out.")
