"""Average precision of detected boxes, as COCO defines it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import ConfigError
from voxlift.core.extras import require_extra
from voxlift.metrics.box_matching import check_threshold
from voxlift.metrics.image_boxes import Floats, ImageBoxes, Integers, Mask, check_image_boxes

logger = logging.getLogger(__name__)

COCO_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
COCO_MAX_BOXES = 100


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
    require_extra("coco", "Average precisions")
    if not len(iou_thresholds) or max_boxes < 1:
        raise ConfigError(
            f"There are {len(iou_thresholds)} overlap thresholds and at most {max_boxes} boxes an "
            "image, but at least one of each is needed."
        )
    for threshold in iou_thresholds:
        check_threshold(threshold)
    truths = [image.truth_labels[~image.ignored] for image in images]
    labels: list[int] = np.unique(np.concatenate(truths)).tolist()
    by_label: dict[int, Floats] = {}
    if labels:
        areas = _precisions(images, labels, iou_thresholds, max_boxes).mean(axis=1)
        by_label = {label: areas[:, place] for place, label in enumerate(labels)}
    return AveragePrecision(iou_thresholds=tuple(iou_thresholds), by_label=by_label)


def _precisions(
    images: Sequence[ImageBoxes], labels: Sequence[int], thresholds: Sequence[float], max_boxes: int
) -> Floats:
    """Let COCO's evaluation measure the precision at its 101 recalls.

    Args:
        images: Detected and true boxes.
        labels: Classes that have something to be found.
        thresholds: Overlaps that make a hit.
        max_boxes: How many boxes of a class count in an image.

    Shape:
        `(thresholds, 101, classes)`.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truths, detected = [], []
    for number, image in enumerate(images):
        truths += _annotations(number, image.truths, image.truth_labels, crowds=image.ignored)
        detected += _annotations(number, image.boxes, image.labels, scores=image.scores)
    judged = COCOeval_faster(
        *(COCO(_data_set(len(images), labels, boxes)) for boxes in (truths, detected)),
        iouType="bbox",
        print_function=logger.debug,
    )
    judged.params.iouThrs = np.asarray(thresholds, dtype=np.float64)
    judged.params.areaRng, judged.params.areaRngLbl = [[0, np.inf]], ["all"]
    # Room is made for so many boxes in every image, so not for more than there are.
    judged.params.maxDets = [min(max_boxes, max(1, *(len(image.boxes) for image in images)))]
    judged.evaluate()
    judged.accumulate()
    precisions: Floats = judged.eval["precision"][..., 0, 0]
    return precisions


def _data_set(
    num_images: int, labels: Sequence[int], boxes: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Put boxes into COCO's form, numbered from 1, since 0 means there that nothing was found."""
    for number, box in enumerate(boxes, start=1):
        box["id"] = number
    return {
        "images": [{"id": number} for number in range(num_images)],
        "categories": [{"id": label} for label in labels],
        "annotations": boxes,
    }


def _annotations(
    image: int,
    boxes: Floats,
    labels: Integers,
    *,
    scores: Floats | None = None,
    crowds: Mask | None = None,
) -> list[dict[str, Any]]:
    sides = boxes[:, 2:] - boxes[:, :2]
    columns: dict[str, list[Any]] = {
        "category_id": labels.tolist(),
        "bbox": np.concatenate([boxes[:, :2], sides], axis=1).tolist(),
        "area": sides.prod(axis=1).tolist(),
        "iscrowd": np.zeros(len(boxes), dtype=int).tolist()
        if crowds is None
        else crowds.astype(int).tolist(),
    }
    if scores is not None:
        columns["score"] = scores.tolist()
    return [
        {"image_id": image, **dict(zip(columns, values, strict=True))}
        for values in zip(*columns.values(), strict=True)
    ]
