"""What came of each detected box, and of each true one, in one image."""

from dataclasses import dataclass

import numpy as np

from voxlift.core.detection_settings import Matching
from voxlift.metrics.box_matching import image_hits, overlaps
from voxlift.metrics.findings import NOT_FOUND
from voxlift.metrics.image_boxes import Floats, ImageBoxes, Integers, Mask

NO_BOX = -1


@dataclass(frozen=True, eq=False)
class BoxOutcomes:
    """What came of the boxes of one image.

    Attributes:
        hit: Detected boxes that hit a lesion that has to be found.
        false: Those that hit nothing at all; the others are on ignored truths alone.
        overlap: Largest overlap of each with such a lesion of its class.
        best_box: Of each true box the surest detected one that hits it; `NO_BOX` without.
        best_score: Its score; `NOT_FOUND` without.
    """

    hit: Mask
    false: Mask
    overlap: Floats
    best_box: Integers
    best_score: Floats


def box_outcomes(
    image: ImageBoxes, *, iou_threshold: float = 0.5, matching: Matching = "iou"
) -> BoxOutcomes:
    """Tell what came of the boxes of one image, as `find_lesions` counts them.

    Args:
        image: Detected and true boxes.
        iou_threshold: The overlap that makes a hit.
        matching: How the overlap is measured.
    """
    hits = image_hits(image, iou_threshold=iou_threshold, matching=matching).hits
    wanted = ~image.ignored
    over_union, over_box = overlaps(image.boxes, image.truths)
    same_class = np.equal(image.labels[:, None], image.truth_labels[None, :])
    measured = np.where(same_class & wanted, over_union if matching == "iou" else over_box, 0.0)
    scores = np.where(hits, image.scores[:, None], NOT_FOUND)
    best_score = scores.max(axis=0, initial=NOT_FOUND)
    found = best_score > NOT_FOUND
    best_box = np.full(len(image.truths), NO_BOX, dtype=np.int64)
    if found.any():
        best_box[found] = scores.argmax(axis=0)[found]
    hit: Mask = np.any(hits, axis=1, where=wanted)
    false: Mask = ~np.any(hits, axis=1)
    return BoxOutcomes(
        hit=hit,
        false=false,
        overlap=measured.max(axis=1, initial=0.0),
        best_box=best_box,
        best_score=best_score,
    )
