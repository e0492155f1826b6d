"""Images with their true and detected boxes, and what came of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.core.detection_settings import Matching
from voxlift.core.errors import DataError
from voxlift.data.detection_cases import DetectionCase
from voxlift.inference.detection import CaseBoxes
from voxlift.metrics.box_outcomes import BoxOutcomes, box_outcomes
from voxlift.metrics.image_boxes import Floats, check_image_boxes


@dataclass(frozen=True, eq=False)
class JudgedCase:
    """One image with all that is known of it.

    Attributes:
        case: The image, its true boxes among the rest.
        found: The detected boxes.
        outcomes: What came of both.
        sizes_mm: Size of each true box; NaN where it is not known.
        types: Type of each true box; None where it is not known.
    """

    case: DetectionCase
    found: CaseBoxes
    outcomes: BoxOutcomes
    sizes_mm: Floats
    types: tuple[str | None, ...]

    def __post_init__(self) -> None:
        truths, boxes = len(self.case.truth), len(self.found)
        lengths = (len(self.sizes_mm), len(self.types), len(self.outcomes.best_box))
        if lengths != (truths,) * 3 or len(self.outcomes.hit) != boxes:
            raise DataError(
                f"{self.case.id} has {truths} true and {boxes} detected boxes, but sizes, types "
                f"and outcomes of {lengths} and {len(self.outcomes.hit)}. Give one for each."
            )


def judge_cases(
    found: Sequence[CaseBoxes],
    cases: Sequence[DetectionCase],
    *,
    sizes_mm: Sequence[Floats] | None = None,
    types: Sequence[tuple[str | None, ...]] | None = None,
    iou_threshold: float = 0.5,
    matching: Matching = "iou",
) -> list[JudgedCase]:
    """Tell what came of each box.

    Args:
        found: What was found in each case.
        cases: The cases.
        sizes_mm: Size of each true box, if sizes are known.
        types: Type of each true box, if types are known.
        iou_threshold: The overlap that makes a hit.
        matching: How the overlap is measured.
    """
    images = check_image_boxes(
        [each.boxes for each in found],
        [case.truth.boxes for case in cases],
        prediction_labels=[each.labels for each in found],
        truth_labels=[case.truth.labels for case in cases],
        truth_ignored=[case.truth.crowd for case in cases],
    )
    return [
        JudgedCase(
            case=case,
            found=boxes,
            outcomes=box_outcomes(image, iou_threshold=iou_threshold, matching=matching),
            sizes_mm=np.full(len(case.truth), np.nan) if sizes_mm is None else sizes_mm[number],
            types=(None,) * len(case.truth) if types is None else types[number],
        )
        for number, (case, boxes, image) in enumerate(zip(cases, found, images, strict=True))
    ]
