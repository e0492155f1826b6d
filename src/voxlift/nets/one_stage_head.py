"""The heads of RetinaNet and FCOS, for which regions to be ignored are no background."""

import math
import sys
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.fcos import (
    FCOSClassificationHead,
    FCOSHead,
    FCOSRegressionHead,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead

from voxlift.nets.detection_head import (
    Detection,
    DetectionHead,
    HeadSettings,
    Losses,
    Maps,
    Target,
    lies_on,
    precise,
)
from voxlift.nets.feature_pyramid import PyramidAnchors
from voxlift.nets.layers import GroupNorm

BELOW_THRESHOLD, BETWEEN_THRESHOLDS = -1, -2
"""Matches of anchors that are background, and of those that do not count, as torchvision has it."""

NO_LOGIT = -1e4
LOSS_NAMES = {"classification": "class", "bbox_regression": "box", "bbox_ctrness": "center"}


class OneStageHead(DetectionHead):
    """Classes and edges at every pixel of every level.

    Args:
        net: torchvision's detector, of which only what lies behind the maps is kept.
    """

    groups: ClassVar[tuple[str, ...]] = ("net.head", "net.head.classification_head.cls_logits")

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net: Any = net
        del self.net.backbone, self.net.transform
        # Counted here, once boxes without area have been left out.
        self.max_boxes = net.detections_per_img
        self.net.detections_per_img = sys.maxsize

    @property
    def score_threshold(self) -> float:
        """Boxes with a lower score are left out."""
        return float(self.net.score_thresh)

    @score_threshold.setter
    def score_threshold(self, threshold: float) -> None:
        self.net.score_thresh = threshold

    def forward(
        self, images: ImageList, maps: Maps, targets: list[Target] | None
    ) -> Losses | list[Detection]:
        """Compute the losses if there are targets, else find boxes."""
        levels = list(maps.values())
        outputs = {name: precise(value) for name, value in self.net.head(levels).items()}
        anchors = self.net.anchor_generator(images, levels)
        per_pixel = self.net.anchor_generator.num_anchors_per_location()[0]
        counts = [per_pixel * level.shape[-2] * level.shape[-1] for level in levels]
        if targets is not None:
            more = (counts,) if isinstance(self.net, FCOS) else ()
            losses = self.net.compute_loss(targets, outputs, anchors, *more)
            return {LOSS_NAMES[name]: loss for name, loss in losses.items()}
        found: list[Detection] = self.net.postprocess_detections(
            {name: torch.split(value, counts, 1) for name, value in outputs.items()},
            [torch.split(anchor, counts) for anchor in anchors],
            images.image_sizes,
        )
        return [self._cleared(image) for image in found]

    def _cleared(self, found: Detection) -> Detection:
        """Leave out boxes of which nothing was left when they were cut to the image."""
        kept = (found["boxes"][:, 2:] > found["boxes"][:, :2]).all(1).nonzero()[: self.max_boxes, 0]
        return {
            "boxes": found["boxes"][kept],
            "scores": found["scores"][kept],
            "labels": found["labels"][kept],
        }


def retinanet_head(settings: HeadSettings) -> OneStageHead:
    """Make RetinaNet's head; `head_width` is of no account.

    Source:
        RetinaNet, arXiv 1708.02002.
    """
    anchors = settings.anchors(per_octave=3)
    channels = settings.detector.fpn_channels
    head = PatientRetinaNetHead(
        channels,
        anchors.num_anchors_per_location()[0],
        settings.num_classes,
        # Narrow towers do not learn without a norm: their start is too small.
        norm_layer=tower_norm,
    )
    net = RetinaNet(
        _Outputs(channels),
        settings.num_classes,
        anchor_generator=anchors,
        head=head,
        **settings.thresholds,
    )
    return OneStageHead(net)


def fcos_head(settings: HeadSettings) -> OneStageHead:
    """Make FCOS's head, which knows no anchors; `head_width` is of no account.

    Source:
        FCOS, arXiv 1904.01355.
    """
    channels = settings.detector.fpn_channels
    # One box of the stride's size about each pixel, which stands for the pixel.
    pixels = PyramidAnchors(scales=(1.0,), ratios=(1.0,), num_levels=settings.num_levels)
    head = PatientFCOSHead(channels, settings.num_classes)
    net = FCOS(
        _Outputs(channels),
        settings.num_classes,
        anchor_generator=pixels,
        head=head,
        **settings.thresholds,
    )
    return OneStageHead(net)


def tower_norm(channels: int) -> nn.Module:
    """Make the norm of a tower: 32 groups, or fewer where they would have less than 8 channels.

    The coarsest map of an image may be a single pixel, of which a channel alone tells nothing.
    """
    return GroupNorm(math.gcd(32, channels, max(1, channels // 8)), channels)


class _Outputs(nn.Module):
    """What torchvision asks a backbone for when it builds a detector."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels


class PatientRetinaNetHead(RetinaNetHead):  # type: ignore[misc]
    """torchvision's, for which anchors on ignored regions are no background."""

    def compute_loss(
        self,
        targets: list[Target],
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matches: list[Tensor],
    ) -> Losses:
        """Compute the losses of the anchors that count."""
        for match, anchor, target in zip(matches, anchors, targets, strict=True):
            ignored = lies_on(anchor, target["ignored"])
            match[(match == BELOW_THRESHOLD) & ignored] = BETWEEN_THRESHOLDS
        losses: Losses = super().compute_loss(targets, outputs, anchors, matches)
        return losses


class PatientFCOSHead(FCOSHead):  # type: ignore[misc]
    """torchvision's, for which pixels on ignored regions are no background.

    Args:
        channels: Of the pyramid's maps; its own norms would take multiples of 32 only.
        num_classes: Classes, without background.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        nn.Module.__init__(self)
        self.box_coder = BoxLinearCoder(normalize_by_size=True)
        self.classification_head = FCOSClassificationHead(
            channels, 1, num_classes, norm_layer=tower_norm
        )
        self.regression_head = FCOSRegressionHead(channels, 1, norm_layer=tower_norm)

    def compute_loss(
        self,
        targets: list[Target],
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matches: list[Tensor],
    ) -> Losses:
        """Compute the losses of the pixels that count."""
        ignored = torch.stack(
            [
                (match < 0) & lies_on(anchor, target["ignored"])
                for match, anchor, target in zip(matches, anchors, targets, strict=True)
            ]
        )
        # Sure background costs nothing and moves nothing.
        logits = outputs["cls_logits"].masked_fill(ignored[..., None], NO_LOGIT)
        losses: Losses = super().compute_loss(
            targets, {**outputs, "cls_logits": logits}, anchors, matches
        )
        return losses
