"""Judge a detector on images with boxes: metrics with intervals, tables, curves and pictures."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.files import write_text
from voxlift.data.detection_cases import DetectionCase, DetectionCases
from voxlift.inference.detection import (
    Autocast,
    CaseBoxes,
    check_detector_classes,
    detect_cases,
    the_detector,
)
from voxlift.inference.lesion_facts import SizeMeasure, lesion_sizes_mm, lesion_types
from voxlift.inference.saved_model import SavedModel
from voxlift.metrics.box_matching import Matching
from voxlift.metrics.detection import DetectionJudgement, DetectionMetrics, judge_detection

logger = logging.getLogger(__name__)

# Users get fewer boxes, but a curve needs those of low scores for its high rates.
JUDGED_SCORE = 0.001


class DetectionReport(BaseModel):
    """What an evaluation found.

    Args:
        split: The cases that were judged.
        score_threshold: Score from which boxes were judged.
        max_boxes: Most boxes that were judged in an image.
        size_measure: How the sizes of lesions were measured; None if they are not known.
        metrics: Sensitivity and the like, each with its interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str
    score_threshold: float
    max_boxes: int
    size_measure: SizeMeasure | None
    metrics: DetectionMetrics


def judge_detector(
    model: SavedModel,
    cases: DetectionCases,
    indices: npt.NDArray[np.int64],
    folder: Path,
    *,
    split: str,
    batch_size: int,
    seed: int = 0,
    autocast: Autocast = nullcontext,
    matching: Matching = "iou",
    on_case: Callable[[str], None] | None = None,
) -> DetectionReport:
    """Find boxes in cases, compare them with the true ones, and write the report.

    All boxes from a score of 0.001 on are judged, as many as the detector gives in an image at
    most, for its own threshold would cut the FROC curve short.

    Args:
        model: A detector with the classes of the data set.
        cases: The data set.
        indices: The cases to judge, those without boxes too.
        folder: Where to write.
        split: Their name, such as `test`.
        batch_size: Images in a batch.
        seed: Seed of the bootstrap.
        autocast: Makes the context in which the network is run: that of prediction, so that what is
            judged is what users get.
        matching: How the overlap that makes a hit is measured: `iou` or `iobb`.
        on_case: Called with the id of each case when it is done.

    Raises:
        ConfigError: If the model is no single detector, or the images are not of its kind.
        DataError: If the classes of the data are not the model's, or an image cannot be read.
    """
    detector = the_detector(model)
    check_detector_classes(model, cases)
    score_threshold = min(detector.score_threshold, JUDGED_SCORE)
    found = detect_cases(
        model,
        cases,
        indices,
        batch_size=batch_size,
        score_threshold=score_threshold,
        autocast=autocast,
        on_case=on_case,
    )
    chosen = [cases.cases[index] for index in indices]
    size_measure, sizes_mm = lesion_sizes_mm(chosen)
    judged = judge_boxes(
        found,
        chosen,
        class_names=cases.class_names,
        sizes_mm=sizes_mm,
        matching=matching,
        seed=seed,
    )
    report = DetectionReport(
        split=split,
        score_threshold=score_threshold,
        max_boxes=detector.max_boxes,
        size_measure=size_measure,
        metrics=judged.metrics,
    )
    write_text(folder / "metrics.json", json.dumps(report.model_dump(mode="json"), indent=2) + "\n")
    return report


def judge_boxes(
    found: Sequence[CaseBoxes],
    cases: Sequence[DetectionCase],
    *,
    class_names: Sequence[str],
    sizes_mm: Sequence[npt.NDArray[np.float64]] | None,
    matching: Matching,
    seed: int,
) -> DetectionJudgement:
    """Compare boxes with the true ones, with intervals over patients.

    Args:
        found: What was found in each case.
        cases: The cases.
        class_names: What the labels stand for.
        sizes_mm: Of each true box, if they are known.
        matching: How the overlap that makes a hit is measured.
        seed: Seed of the bootstrap.
    """
    return judge_detection(
        [each.boxes for each in found],
        [case.truth.boxes for case in cases],
        class_names=class_names,
        prediction_labels=[each.labels for each in found],
        truth_labels=[case.truth.labels for case in cases],
        truth_ignored=[case.truth.crowd for case in cases],
        groups=[case.group for case in cases],
        sizes_mm=sizes_mm,
        types=lesion_types(cases),
        matching=matching,
        seed=seed,
    )
