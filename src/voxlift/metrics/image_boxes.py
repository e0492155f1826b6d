"""The boxes that a detector gave and the true ones, checked, one entry an image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """What was detected in one image, and what there is.

    Attributes:
        boxes: Detected boxes as x1, y1, x2, y2; x2 and y2 are exclusive edges.
        scores: Of each, the higher the surer.
        labels: Class of each.
        truths: True boxes.
        truth_labels: Class of each.
        ignored: True boxes that neither have to be found nor make a box on them a false positive.
    """

    boxes: Floats
    scores: Floats
    labels: Integers
    truths: Floats
    truth_labels: Integers
    ignored: Mask


def check_image_boxes(
    predictions: Sequence[npt.ArrayLike],
    truths: Sequence[npt.ArrayLike],
    *,
    prediction_labels: Sequence[npt.ArrayLike] | None = None,
    truth_labels: Sequence[npt.ArrayLike] | None = None,
    truth_ignored: Sequence[npt.ArrayLike] | None = None,
) -> list[ImageBoxes]:
    """Check predictions against truths, image by image.

    Detected boxes without area are let through, for they overlap nothing. A true box without area
    could never be found, and is refused unless it is ignored.

    Args:
        predictions: Detected boxes and their scores.
        truths: True boxes.
        prediction_labels: Class of each detected box; all are of class 0 if left out.
        truth_labels: Class of each true box; given together with `prediction_labels`.
        truth_ignored: Which true boxes are to be ignored; none if left out.

    Shape:
        Of each image `(boxes, 5)`: x1, y1, x2, y2, score; and `(truths, 4)`: x1, y1, x2, y2. The
        others have one entry a box. No boxes may also be an empty list.

    Raises:
        DataError: If there is no image, the lists differ in length, or the boxes of an image are
            none: a wrong shape, not finite, or edges in the wrong order.
    """
    num_images = entries("predictions", predictions)
    if (prediction_labels is None) != (truth_labels is None):
        given = "truth_labels" if prediction_labels is None else "prediction_labels"
        raise DataError(
            f"Only {given} are given. Give the classes of both, predictions and truths, or of none."
        )
    for name, other in (
        ("truths", truths),
        ("prediction_labels", prediction_labels),
        ("truth_labels", truth_labels),
        ("truth_ignored", truth_ignored),
    ):
        if other is not None:
            entries(name, other, expected=num_images)
    return [
        _image_boxes(
            number,
            predictions[number],
            truths[number],
            None if prediction_labels is None else prediction_labels[number],
            None if truth_labels is None else truth_labels[number],
            None if truth_ignored is None else truth_ignored[number],
        )
        for number in range(num_images)
    ]


def entries(name: str, values: Sequence[object], *, expected: int | None = None) -> int:
    """Count the entries of a list with one an image.

    Raises:
        DataError: If there is none, or their number is not the expected one.
    """
    if not len(values):
        raise DataError(f"The {name} hold no image. Check that the split is not empty.")
    if expected is not None and len(values) != expected:
        raise DataError(
            f"The {name} have {len(values)} entries, but there are {expected} images. Give one for "
            "each; an image without boxes has an empty one."
        )
    return len(values)


def table(name: str, values: npt.ArrayLike, *, columns: int) -> Floats:
    """Read a table of finite numbers; nothing at all is a table without rows.

    Raises:
        DataError: If it has another number of columns, or a number that is not finite.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.size == 0 and rows.ndim <= 2 and rows.shape[-1] in (0, columns):
        return np.zeros((0, columns))
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise DataError(
            f"The {name} have the shape {rows.shape}, but {columns} columns and a row for each are "
            "needed."
        )
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        worst = int(np.argmin(finite))
        raise DataError(
            f"Row {worst} of the {name} is {rows[worst].tolist()}, but every number has to be "
            "finite. Check whether the training has diverged."
        )
    return rows


def _image_boxes(
    number: int,
    predictions: npt.ArrayLike,
    truths: npt.ArrayLike,
    labels: npt.ArrayLike | None,
    truth_labels: npt.ArrayLike | None,
    ignored: npt.ArrayLike | None,
) -> ImageBoxes:
    detected = table(f"predictions of image {number}", predictions, columns=5)
    true_boxes = table(f"truths of image {number}", truths, columns=4)
    skipped = np.zeros(len(true_boxes), dtype=bool)
    if ignored is not None:
        skipped = _column(f"truth_ignored of image {number}", ignored, len(true_boxes)) != 0
    boxes, scores = detected[:, :4], detected[:, 4]
    _check_edges(f"predictions of image {number}", boxes, np.zeros(len(boxes), dtype=bool))
    _check_edges(f"truths of image {number}", true_boxes, ~skipped)
    return ImageBoxes(
        boxes=boxes,
        scores=scores,
        labels=_labels(f"prediction_labels of image {number}", labels, len(boxes)),
        truths=true_boxes,
        truth_labels=_labels(f"truth_labels of image {number}", truth_labels, len(true_boxes)),
        ignored=skipped,
    )


def _check_edges(name: str, boxes: Floats, needs_area: Mask) -> None:
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
    wrong = (sides < 0) | (needs_area & (sides <= 0))
    if wrong.any():
        worst = int(np.argmax(wrong))
        raise DataError(
            f"Row {worst} of the {name} is the box {boxes[worst].tolist()}, but x2 has to be above "
            "x1 and y2 above y1. Give edges x1, y1, x2, y2, not width and height; leave out or "
            "ignore true boxes without area."
        )


def _labels(name: str, labels: npt.ArrayLike | None, length: int) -> Integers:
    if labels is None:
        return np.zeros(length, dtype=np.int64)
    column = _column(name, labels, length)
    if length and not np.issubdtype(column.dtype, np.integer):
        raise DataError(f"The {name} are {column.dtype}, but class numbers are needed.")
    numbers: Integers = column.astype(np.int64)
    return numbers


def _column(name: str, values: npt.ArrayLike, length: int) -> npt.NDArray[np.generic]:
    column = np.asarray(values)
    if column.shape != (length,):
        raise DataError(
            f"The {name} have the shape {column.shape}, but one for each of the {length} boxes is "
            "needed."
        )
    return column
