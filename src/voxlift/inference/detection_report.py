"""Judge a detector on images with boxes: metrics with intervals, tables, curves and pictures."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.detection_settings import Matching
from voxlift.core.files import write_text
from voxlift.data.detection_cases import DetectionCase, DetectionCases
from voxlift.figures.detections import MOST_FOUND, plot_detections
from voxlift.figures.froc import plot_froc
from voxlift.inference.detection import (
    Autocast,
    CaseBoxes,
    check_detector_classes,
    detect_cases,
    the_detector,
)
from voxlift.inference.detection_examples import choose_examples, picture_of
from voxlift.inference.detection_tables import lesions_csv, predictions_csv
from voxlift.inference.froc_file import write_froc
from voxlift.inference.judged_case import JudgedCase, judge_cases
from voxlift.inference.lesion_facts import SizeMeasure, lesion_sizes_mm, lesion_types
from voxlift.inference.saved_model import SavedModel
from voxlift.metrics.detection import DetectionJudgement, DetectionMetrics, judge_detection
from voxlift.metrics.froc_bootstrap import FrocCurve, bootstrap_froc

logger = logging.getLogger(__name__)

# Users get fewer boxes, but a curve needs those of low scores for its high rates.
JUDGED_SCORE = 0.001
# Pictures show the boxes that make about so many false positives an image.
SHOWN_RATE = 1.0
# Curves of more classes could not be told apart; beside them is that of all.
MOST_CLASSES = 6


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
    matching: Matching | None = None,
    on_case: Callable[[str], None] | None = None,
) -> DetectionReport:
    """Find boxes in cases, compare them with the true ones, and write the report.

    `metrics.json`; `predictions.csv`, one row a detected box; `lesions.csv`, one row a true box;
    `froc.json` and `findings.npz` (see `froc_file`); and in `figures/` the FROC curve and what was
    found and missed. Images are named by their id; groups (patients) appear nowhere. Boxes are in
    pixels of the stored images.

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
        matching: How the overlap that makes a hit is measured: `iou` or `iobb`; None takes the
            model's.
        on_case: Called with the id of each case when it is done.

    Raises:
        ConfigError: If the model is no single detector, or the images are not of its kind.
        DataError: If the classes of the data are not the model's, or an image cannot be read.
    """
    detector = the_detector(model)
    check_detector_classes(model, cases)
    matching = matching or model.detection.matching
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
    types = lesion_types(chosen)
    judgement = _judge(
        found,
        chosen,
        cases.class_names,
        sizes_mm=sizes_mm,
        types=types,
        matching=matching,
        seed=seed,
    )
    report = DetectionReport(
        split=split,
        score_threshold=score_threshold,
        max_boxes=detector.max_boxes,
        size_measure=size_measure,
        metrics=judgement.metrics,
    )
    write_text(folder / "metrics.json", json.dumps(report.model_dump(mode="json"), indent=2) + "\n")
    judged = judge_cases(found, chosen, sizes_mm=sizes_mm, types=types, matching=matching)
    write_text(folder / "predictions.csv", predictions_csv(judged, cases.class_names))
    write_text(folder / "lesions.csv", lesions_csv(judged, cases.class_names))
    by_class = _class_curves(judgement, chosen, cases.class_names, seed=seed)
    write_froc(folder, judgement, chosen, by_class=by_class)
    name = "all classes" if len(cases.class_names) > 1 else cases.class_names[0]
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    plot_froc(
        {name: judgement.curve} | {name: without_band(curve) for name, curve in by_class.items()},
        folder / "figures" / "froc.png",
    )
    _draw_examples(
        folder / "figures" / "detections.png",
        judged,
        model=model,
        class_names=cases.class_names,
        threshold=judgement.froc.threshold_at(SHOWN_RATE),
    )
    return report


def _judge(
    found: Sequence[CaseBoxes],
    cases: Sequence[DetectionCase],
    class_names: Sequence[str],
    *,
    sizes_mm: Sequence[npt.NDArray[np.float64]] | None,
    types: Sequence[tuple[str | None, ...]] | None,
    matching: Matching,
    seed: int,
) -> DetectionJudgement:
    """Measure, with intervals over patients."""
    return judge_detection(
        [each.boxes for each in found],
        [case.truth.boxes for case in cases],
        class_names=class_names,
        prediction_labels=[each.labels for each in found],
        truth_labels=[case.truth.labels for case in cases],
        truth_ignored=[case.truth.crowd for case in cases],
        groups=[case.group for case in cases],
        sizes_mm=sizes_mm,
        types=types,
        matching=matching,
        seed=seed,
    )


def _class_curves(
    judgement: DetectionJudgement,
    cases: Sequence[DetectionCase],
    class_names: Sequence[str],
    *,
    seed: int,
) -> dict[str, FrocCurve]:
    """Compute the curve of each class that has lesions; of many, of those that have most."""
    if len(class_names) < 2:
        return {}
    alone = {label: one for label, one in judgement.froc.by_label.items() if one.num_lesions}
    frequent = sorted(alone, key=lambda label: -alone[label].num_lesions)[:MOST_CLASSES]
    groups = [case.group for case in cases]
    return {
        class_names[label]: bootstrap_froc(alone[label], groups=groups, seed=seed)
        for label in sorted(frequent)
    }


def without_band(curve: FrocCurve) -> FrocCurve:
    """Give a curve whose band is not drawn, for many bands over each other tell nothing."""
    nothing = np.full_like(curve.low, np.nan)
    return replace(curve, low=nothing, high=nothing)


def _draw_examples(
    path: Path,
    judged: Sequence[JudgedCase],
    *,
    model: SavedModel,
    class_names: Sequence[str],
    threshold: float,
) -> None:
    """Draw what was found and missed; nothing where there is neither a lesion nor a box."""
    chosen = choose_examples(judged, threshold=threshold)
    rows = {
        name: [
            picture_of(
                example,
                judged[example.number],
                preprocessing=model.preprocessing,
                class_names=class_names,
                threshold=threshold,
            )
            for example in examples
        ]
        for name, examples in chosen.items()
    }
    if not any(rows.values()):
        logger.warning("There is neither a lesion nor a detected box, so no image is drawn.")
        return
    note = "Only the box that an image is shown for is marked as found."
    if np.isfinite(threshold):
        note = (
            f"Found boxes are shown from a score of {threshold:.3g} on, with which there is at\n"
            f"most {SHOWN_RATE:g} false positive an image; {MOST_FOUND} at most in a picture.\n"
            "With a missed lesion its best box is shown, whatever its score."
        )
    plot_detections(rows, path, note=note)
