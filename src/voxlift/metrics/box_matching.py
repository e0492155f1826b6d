"""Which detected boxes count as hits of which true boxes."""

from collections.abc import Sequence

import numpy as np

from voxlift.core.detection_settings import Matching
from voxlift.core.errors import ConfigError
from voxlift.metrics.findings import Findings, ImageHits, collect_findings
from voxlift.metrics.image_boxes import Floats, ImageBoxes


def find_lesions(
    images: Sequence[ImageBoxes], *, iou_threshold: float = 0.5, matching: Matching = "iou"
) -> Findings:
    """Find out which lesions the boxes hit, and which boxes hit nothing.

    A box hits a lesion of its own class if their overlap is at least the threshold. Its overlap
    with an ignored truth is always taken as a share of the box itself, as COCO does with crowds, so
    that a part of an ignored region counts as on it.

    Args:
        images: Detected and true boxes.
        iou_threshold: The overlap that makes a hit.
        matching: How the overlap is measured: intersection over union, or over the area of the
            detected box.

    Raises:
        ConfigError: If threshold or matching are none.
    """
    check_threshold(iou_threshold)
    if matching not in ("iou", "iobb"):
        raise ConfigError(f"matching is '{matching}', but has to be 'iou' or 'iobb'.")
    return collect_findings(
        [image_hits(image, iou_threshold=iou_threshold, matching=matching) for image in images]
    )


def check_threshold(iou_threshold: float) -> None:
    """Refuse an overlap that no box, or every box, would reach.

    Raises:
        ConfigError: If the threshold is not above 0 and at most 1.
    """
    if not 0 < iou_threshold <= 1:
        raise ConfigError(
            f"The overlap threshold is {iou_threshold}, but has to be above 0 and at most 1."
        )


def overlaps(boxes: Floats, truths: Floats) -> tuple[Floats, Floats]:
    """Compute how far boxes overlap: over the union, and over the area of the detected box.

    A box without area overlaps nothing.

    Args:
        boxes: Detected boxes as x1, y1, x2, y2, with exclusive edges.
        truths: True boxes.

    Shape:
        `(boxes, 4)` and `(truths, 4)` -> twice `(boxes, truths)`.
    """
    low = np.maximum(boxes[:, None, :2], truths[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truths[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    area = np.broadcast_to((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None], common.shape)
    union = area + (truths[:, 2:] - truths[:, :2]).prod(axis=1)[None, :] - common
    over_union, over_box = np.zeros_like(common), np.zeros_like(common)
    np.divide(common, union, out=over_union, where=common > 0)
    np.divide(common, area, out=over_box, where=common > 0)
    return over_union, over_box


def image_hits(image: ImageBoxes, *, iou_threshold: float, matching: Matching) -> ImageHits:
    """Tell which box of an image hits which true box, as `find_lesions` says.

    Args:
        image: Detected and true boxes.
        iou_threshold: The overlap that makes a hit.
        matching: How the overlap is measured.
    """
    over_union, over_box = overlaps(image.boxes, image.truths)
    measured = over_union if matching == "iou" else over_box
    overlap = np.where(image.ignored, over_box, measured)
    same_class = np.equal(image.labels[:, None], image.truth_labels[None, :])
    return ImageHits(
        hits=(overlap >= iou_threshold) & same_class,
        scores=image.scores,
        labels=image.labels,
        truth_labels=image.truth_labels,
        ignored=image.ignored,
    )
