"""What all heads of a detector share: what they are built of, are given and give.

torchvision's heads know boxes and background. A region to be ignored, such as a crowd, is neither:
what lies on it is no example of background, and what matches a box within it is a good example all
the same.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from voxlift.core.detection_settings import DetectorSettings
from voxlift.nets.feature_pyramid import PyramidAnchors

Losses = dict[str, Tensor]
Maps = dict[str, Tensor]

IGNORED, BACKGROUND = -1, 0
"""Labels of samples in two stages, as torchvision numbers them; classes count from 1."""


class Detection(TypedDict):
    """Boxes found in one image: x1, y1, x2, y2 in pixels, the best first, and 0-based classes."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Target(TypedDict):
    """What is marked in one image.

    Boxes are x1, y1, x2, y2 in pixels, `(boxes, 4)`; labels are classes from 0, without background;
    `ignored` are regions without an answer, `(regions, 4)`, which are not among the boxes.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor


@dataclass(frozen=True)
class HeadSettings:
    """What all heads ask for.

    Args:
        num_levels: Levels of the pyramid.
        num_classes: Classes, without background.
        detector: What to build.
    """

    num_levels: int
    num_classes: int
    detector: DetectorSettings

    @property
    def thresholds(self) -> dict[str, float]:
        """Under the names that torchvision has for them."""
        return {
            "score_thresh": self.detector.score_threshold,
            "nms_thresh": self.detector.nms_threshold,
            "detections_per_img": self.detector.max_boxes,
        }

    def anchors(self, *, per_octave: int = 1) -> PyramidAnchors:
        """Make the anchors, of one size a level or of several within each doubling.

        Raises:
            ConfigError: If they leave gaps.
        """
        anchors = PyramidAnchors(
            scales=[self.detector.anchor_scale * 2 ** (i / per_octave) for i in range(per_octave)],
            ratios=self.detector.anchor_ratios,
            num_levels=self.num_levels,
        )
        anchors.check_cover()
        return anchors


def precise(values: Tensor) -> Tensor:
    """Bring what boxes are computed of to full precision: bf16 would move an edge by pixels."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def lies_on(boxes: Tensor, regions: Tensor) -> Tensor:
    """Tell which boxes lie on one of some regions by more than half of their own area.

    Shape:
        `(boxes, 4)`, `(regions, 4)` -> `(boxes,)`.
    """
    corners, others = boxes[:, None], regions[None]
    edges = torch.minimum(corners[..., 2:], others[..., 2:]) - torch.maximum(
        corners[..., :2], others[..., :2]
    )
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return (edges.clamp(min=0).prod(2) > 0.5 * areas[:, None]).any(1)


class DetectionHead(nn.Module, ABC):
    """What stands on the pyramid's maps.

    Attributes:
        groups: Modules of the head that are of use without those named after them; what is in two
            of them belongs to the later. Only the last has the number of classes in its shapes.
        score_threshold: Boxes with a lower score are left out; can be set.
        max_boxes: Most boxes found in an image; can be set.
    """

    groups: ClassVar[tuple[str, ...]]
    score_threshold: float
    max_boxes: int

    @abstractmethod
    def forward(
        self, images: ImageList, maps: Maps, targets: list[Target] | None
    ) -> Losses | list[Detection]:
        """Compute the losses if there are targets, else find boxes."""
