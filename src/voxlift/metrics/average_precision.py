"""Average precision of detected boxes, as COCO defines it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import ConfigError
from voxlift.metrics.box_matching import check_threshold, overlaps
from voxlift.metrics.image_boxes import Floats, ImageBoxes, Mask, check_image_boxes

COCO_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
COCO_MAX_BOXES = 100
RECALL_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """The area under precision-recall curves.

    Attributes:
        iou_thresholds: The overlap thresholds.
        by_label: At each threshold, of each class that has something to be found.
    """

    iou_thresholds: tuple[float, ...]
    by_label: Mapping[int, Floats]

    @property
    def by_threshold(self) -> Floats:
        """Mean over the classes, at each threshold; NaN if there is nothing to be found."""
        if not self.by_label:
            return np.full(len(self.iou_thresholds), np.nan)
        return np.asarray(np.mean(list(self.by_label.values()), axis=0))

    @property
    def value(self) -> float:
        """Mean over classes and thresholds."""
        return float(self.by_threshold.mean())


def average_precision(
    predictions: Sequence[npt.ArrayLike],
    truths: Sequence[npt.ArrayLike],
    *,
    prediction_labels: Sequence[npt.ArrayLike] | None = None,
    truth_labels: Sequence[npt.ArrayLike] | None = None,
    truth_ignored: Sequence[npt.ArrayLike] | None = None,
    iou_thresholds: Sequence[float] = (0.5,),
    max_boxes: int = COCO_MAX_BOXES,
) -> AveragePrecision:
    """Compute the average precision by COCO's rules; by default AP50.

    In the order of their scores, boxes take the true box of their class that they overlap most, of
    those that are still free; a second box on a true one is a false positive, unlike in
    `voxlift.metrics.froc`. Ignored truths are never used up, their overlap is a share of the
    detected box, and boxes on them do not count. Of each class the best `max_boxes` of an image
    count. The precision is made falling and read at 101 recalls. Boxes with the same score keep
    their order.

    Args:
        predictions: Detected boxes and their scores, one table an image.
        truths: True boxes, one table an image.
        prediction_labels: Class of each detected box, if there are several classes.
        truth_labels: Class of each true box.
        truth_ignored: Which true boxes are crowds or are otherwise to be ignored.
        iou_thresholds: Overlaps that make a hit; `COCO_THRESHOLDS` gives COCO's AP.
        max_boxes: How many boxes of a class count in an image.

    Shape:
        Of each image `(boxes, 5)`: x1, y1, x2, y2, score; and `(truths, 4)`: x1, y1, x2, y2.

    Raises:
        ConfigError: If there is no threshold, one is none, or `max_boxes` is not positive.
        DataError: If there is no image, or the boxes of an image are not as described.

    Source:
        Lin et al.: Microsoft COCO: Common Objects in Context, arXiv 1405.0312, and its evaluation.
    """
    images = check_image_boxes(
        predictions,
        truths,
        prediction_labels=prediction_labels,
        truth_labels=truth_labels,
        truth_ignored=truth_ignored,
    )
    return average_precision_of(images, iou_thresholds=iou_thresholds, max_boxes=max_boxes)


def average_precision_of(
    images: Sequence[ImageBoxes],
    *,
    iou_thresholds: Sequence[float],
    max_boxes: int = COCO_MAX_BOXES,
) -> AveragePrecision:
    """Compute the average precision of boxes that have been checked, as `average_precision` does.

    Args:
        images: Detected and true boxes.
        iou_thresholds: Overlaps that make a hit.
        max_boxes: How many boxes of a class count in an image.

    Raises:
        ConfigError: If there is no threshold, one is none, or `max_boxes` is not positive.
    """
    if not len(iou_thresholds) or max_boxes < 1:
        raise ConfigError(
            f"There are {len(iou_thresholds)} overlap thresholds and at most {max_boxes} boxes an "
            "image, but at least one of each is needed."
        )
    for threshold in iou_thresholds:
        check_threshold(threshold)
    labels = np.unique(np.concatenate([image.truth_labels[~image.ignored] for image in images]))
    return AveragePrecision(
        iou_thresholds=tuple(iou_thresholds),
        by_label={
            label: _of_label(images, label, iou_thresholds, max_boxes) for label in labels.tolist()
        },
    )


def _of_label(
    images: Sequence[ImageBoxes], label: int, thresholds: Sequence[float], max_boxes: int
) -> Floats:
    """Compute the average precision of one class at each threshold."""
    scores, num_truths = [], 0
    outcomes: list[list[tuple[Mask, Mask]]] = [[] for _ in thresholds]
    for image in images:
        chosen = np.flatnonzero(image.labels == label)
        there = image.truth_labels == label
        if not len(chosen) and not there.any():
            continue
        chosen = chosen[np.argsort(-image.scores[chosen], kind="stable")[:max_boxes]]
        ignored = image.ignored[there]
        over_union, over_box = overlaps(image.boxes[chosen], image.truths[there])
        overlap = np.where(ignored, over_box, over_union)
        scores.append(image.scores[chosen])
        num_truths += int(np.count_nonzero(~ignored))
        for number, threshold in enumerate(thresholds):
            outcomes[number].append(_match(overlap, ignored, threshold=threshold))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    areas = []
    for outcome in outcomes:
        right = np.concatenate([part[0] for part in outcome])[order]
        counted = np.concatenate([part[1] for part in outcome])[order]
        areas.append(_area(right[counted], num_truths))
    return np.array(areas)


def _match(overlap: Floats, ignored: Mask, *, threshold: float) -> tuple[Mask, Mask]:
    """Match the boxes of one image, best first, to its truths.

    Returns:
        Which boxes have found a true one, and which count at all.
    """
    right = np.zeros(len(overlap), dtype=bool)
    counted = np.ones(len(overlap), dtype=bool)
    if not overlap.size:
        return right, counted
    # COCO lets an overlap that falls short of 1 by rounding alone reach a threshold of 1.
    hits = overlap >= min(threshold, 1 - 1e-10)
    free = ~ignored
    for number in np.flatnonzero(hits.any(axis=1)):
        candidates = hits[number] & free
        if candidates.any():
            # Of equal overlaps COCO takes the last.
            best = np.where(candidates, overlap[number], -1)[::-1].argmax()
            free[len(free) - 1 - best] = False
            right[number] = True
        elif (hits[number] & ignored).any():
            counted[number] = False
    return right, counted


def _area(right: Mask, num_truths: int) -> float:
    """Compute the mean, over 101 recalls, of the best precision at that recall or above.

    Args:
        right: Of each box that counts, best first, whether it has found a true one.
        num_truths: True boxes that there are.
    """
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    points = np.searchsorted(found / num_truths, RECALL_POINTS, side="left")
    return float(np.append(best, 0.0)[points].mean())
