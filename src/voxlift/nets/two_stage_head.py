"""The head of Faster R-CNN, for which regions to be ignored are neither boxes nor background."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from voxlift.nets.detection_head import (
    BACKGROUND,
    IGNORED,
    Detection,
    DetectionHead,
    HeadSettings,
    Losses,
    Maps,
    Target,
    lies_on,
    precise,
)
from voxlift.nets.feature_pyramid import PyramidRoIAlign

ROI_SIZE = 7
RPN_CANDIDATES = {"training": 2000, "testing": 1000}
"""Boxes of a level among which overlapping ones are left out."""

TEST_PROPOSALS = 1000


class TwoStageHead(DetectionHead):
    """Faster R-CNN's: proposals from anchors, then classes and finer edges for each proposal.

    Args:
        settings: What to build.

    Source:
        Faster R-CNN, arXiv 1506.01497, on a pyramid as in arXiv 1612.03144.
    """

    groups: ClassVar[tuple[str, ...]] = ("rpn", "roi_heads.box_head", "roi_heads.box_predictor")

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        anchors = settings.anchors()
        channels = settings.detector.fpn_channels
        self.rpn = ProposalNetwork(
            anchors,
            PreciseRPNHead(channels, len(settings.detector.anchor_ratios)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=RPN_CANDIDATES,
            post_nms_top_n={
                "training": settings.detector.train_proposals,
                "testing": TEST_PROPOSALS,
            },
            nms_thresh=0.7,
        )
        # The level behind the backbone's last gives proposals, and no features of boxes.
        levels = [str(i) for i in range(settings.num_levels - 1)]
        self.roi_heads = BoxHeads(
            PyramidRoIAlign(levels, output_size=ROI_SIZE, sampling_ratio=2),
            TwoMLPHead(channels * ROI_SIZE**2, settings.detector.head_width),
            PrecisePredictor(settings.detector.head_width, settings.num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=settings.detector.box_samples,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            **settings.thresholds,
        )
        self.roi_heads.box_beta = settings.detector.box_beta

    @property
    def score_threshold(self) -> float:
        """Boxes with a lower score are left out."""
        return float(self.roi_heads.score_thresh)

    @score_threshold.setter
    def score_threshold(self, threshold: float) -> None:
        self.roi_heads.score_thresh = threshold

    @property
    def max_boxes(self) -> int:
        """Most boxes found in an image."""
        return int(self.roi_heads.detections_per_img)

    @max_boxes.setter
    def max_boxes(self, count: int) -> None:
        self.roi_heads.detections_per_img = count

    def forward(
        self, images: ImageList, maps: Maps, targets: list[Target] | None
    ) -> Losses | list[Detection]:
        """Compute the losses in training, else find boxes."""
        width = images.tensors.shape[-1]
        self.roi_heads.box_roi_pool.set_strides([width // m.shape[-1] for m in maps.values()][:-1])
        proposals, losses = self.rpn(images, maps, targets)
        if targets is None:
            found: list[Detection] = self.roi_heads(maps, proposals, images.image_sizes)[0]
            for image in found:
                image["labels"] = image["labels"] - 1
            return found
        samples = [
            {
                "boxes": torch.cat([target["boxes"], target["ignored"]]),
                "labels": torch.cat(
                    [
                        target["labels"] + 1,
                        torch.full_like(target["ignored"][:, 0], IGNORED, dtype=torch.int64),
                    ]
                ),
            }
            for target in targets
        ]
        box_losses = self.roi_heads(maps, proposals, images.image_sizes, samples)[1]
        return {
            "objectness": losses["loss_objectness"],
            "proposal_box": losses["loss_rpn_box_reg"],
            "class": box_losses["loss_classifier"],
            "box": box_losses["loss_box_reg"],
        }


class PreciseRPNHead(RPNHead):  # type: ignore[misc]
    """Proposals' logits and shifts in full precision, for their boxes are computed in the same."""

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Compute them for each level."""
        logits, shifts = super().forward(x)
        return [precise(level) for level in logits], [precise(level) for level in shifts]


class PrecisePredictor(FastRCNNPredictor):  # type: ignore[misc]
    """Classes' logits and shifts in full precision, for their boxes are computed in the same."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute them for each proposal."""
        logits, shifts = super().forward(x)
        return precise(logits), precise(shifts)


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's, for which anchors on ignored regions are no background."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label each anchor: 1 for a box, 0 for background, -1 for neither."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            label[(label == BACKGROUND) & lies_on(anchor, target["ignored"])] = IGNORED
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, shifts: Tensor, labels: list[Tensor], goals: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the losses; of a batch in which every anchor is ignored they are 0."""
        if not any((label != IGNORED).any() for label in labels):
            return 0 * objectness.sum(), 0 * shifts.sum()
        losses: tuple[Tensor, Tensor] = super().compute_loss(objectness, shifts, labels, goals)
        return losses


class BoxHeads(RoIHeads):  # type: ignore[misc]
    """torchvision's, which takes boxes of the label -1 for regions to be ignored.

    They come behind the others, so that positions among those stay what they are. The loss of the
    boxes is quadratic below `box_beta`, which torchvision fixes at 1/9.
    """

    box_beta: float

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], boxes: list[Tensor], labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Match each proposal with a box, and label it: 0 for background, -1 for neither."""
        true = [label != IGNORED for label in labels]
        matches, found = super().assign_targets_to_proposals(
            proposals,
            [box[rows] for box, rows in zip(boxes, true, strict=True)],
            [label[rows] for label, rows in zip(labels, true, strict=True)],
        )
        for label, proposal, box, rows in zip(found, proposals, boxes, true, strict=True):
            label[(label == BACKGROUND) & lies_on(proposal, box[~rows])] = IGNORED
        return matches, found

    def forward(
        self,
        maps: Maps,
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Detection], Losses]:
        """Compute the losses; of a batch in which every proposal is ignored they are 0."""
        if targets is None:
            found: tuple[list[Detection], Losses] = super().forward(maps, proposals, sizes)
            return found
        proposals, _, labels, goals = self.select_training_samples(proposals, targets)
        features = self.box_head(self.box_roi_pool(maps, proposals, sizes))
        logits, shifts = self.box_predictor(features)
        if len(logits) == 0:
            return [], {"loss_classifier": logits.sum(), "loss_box_reg": shifts.sum()}
        classes, wanted = torch.cat(labels), torch.cat(goals)
        found_rows = torch.where(classes > 0)[0]
        by_class = functional.cross_entropy(logits, classes)
        by_box = functional.smooth_l1_loss(
            shifts.unflatten(1, (-1, 4))[found_rows, classes[found_rows]],
            wanted[found_rows],
            beta=self.box_beta,
            reduction="sum",
        )
        return [], {"loss_classifier": by_class, "loss_box_reg": by_box / len(classes)}
