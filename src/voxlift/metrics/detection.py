"""How good the boxes of a detector are: everything that a report needs, with intervals."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.detection_settings import Matching
from voxlift.core.errors import DataError
from voxlift.metrics.average_precision import (
    COCO_THRESHOLDS,
    AveragePrecision,
    average_precision_of,
)
from voxlift.metrics.bootstrap import Interval, Number, draw_resamples
from voxlift.metrics.froc import DEEPLESION_RATES, FrocResult, froc_of_images
from voxlift.metrics.froc_bootstrap import FrocCurve, froc_curve
from voxlift.metrics.image_boxes import ImageBoxes, check_image_boxes
from voxlift.metrics.lesion_subsets import (
    DEEPLESION_SIZES_MM,
    SubsetSensitivity,
    judge_subsets,
    size_subsets,
    type_subsets,
)

logger = logging.getLogger(__name__)


class ClassDetection(BaseModel):
    """How well the lesions of one class are found.

    Attributes:
        name: The class.
        num_lesions: Lesions of the class that had to be found.
        sensitivity: At each rate of false positives of this class, in all images.
        average_precision: COCO's AP, over the overlaps 0.5 to 0.95.
        average_precision_50: The same at an overlap of 0.5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_lesions: int
    sensitivity: tuple[Number, ...]
    average_precision: Number
    average_precision_50: Number


class DetectionMetrics(BaseModel):
    """What a detector's boxes are worth on one set of images; NaN (null) is what is not defined.

    Attributes:
        num_images: How many images were judged, with those without lesions.
        num_lesions: How many lesions had to be found.
        num_ignored: How many true boxes were ignored.
        num_boxes: How many boxes the detector gave.
        num_groups: How many groups (patients) the images come from.
        iou_threshold: The overlap that makes a hit, for the FROC.
        matching: How that overlap is measured.
        false_positives_per_image: Rates at which the sensitivity is given.
        sensitivity: At each rate, all classes together.
        sensitivity_mp3d: The same by the convention of MP3D's evaluation, to compare with published
            numbers; see `voxlift.metrics.froc`.
        thresholds: Score from which boxes are called at each rate; None where none can be called.
        mean_sensitivity: Mean over the rates.
        average_precision: COCO's AP, over the overlaps 0.5 to 0.95 and the classes.
        average_precision_50: The same at an overlap of 0.5.
        by_class: Each class alone, if there are several.
        subset_rate: False positives an image at which sizes and types are judged.
        by_size: Sensitivity by lesion size, where sizes were given.
        by_type: Sensitivity by lesion type, where types were given.
        confidence: The confidence of the intervals.
        num_resamples: Bootstrap resamples behind the intervals.
        notes: What could not be computed, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_images: int
    num_lesions: int
    num_ignored: int
    num_boxes: int
    num_groups: int
    iou_threshold: float
    matching: Matching
    false_positives_per_image: tuple[float, ...]
    sensitivity: tuple[Interval, ...]
    sensitivity_mp3d: tuple[Number, ...] = ()
    thresholds: tuple[float | None, ...]
    mean_sensitivity: Interval
    average_precision: Number
    average_precision_50: Number
    by_class: tuple[ClassDetection, ...] = ()
    subset_rate: float
    by_size: tuple[SubsetSensitivity, ...] = ()
    by_type: tuple[SubsetSensitivity, ...] = ()
    confidence: float
    num_resamples: int
    notes: tuple[str, ...] = ()

    def intervals(self) -> dict[str, Interval]:
        """Give the main numbers by name; average precisions have no interval."""
        rates = zip(self.false_positives_per_image, self.sensitivity, strict=True)
        return {
            **{f"sensitivity_at_{rate:g}": sensitivity for rate, sensitivity in rates},
            "sensitivity": self.mean_sensitivity,
            "ap50": Interval(value=self.average_precision_50, low=math.nan, high=math.nan),
            "ap": Interval(value=self.average_precision, low=math.nan, high=math.nan),
        }


@dataclass(frozen=True, eq=False)
class DetectionJudgement:
    """All that is known of a detector on one set of images.

    Attributes:
        metrics: The numbers, to be written.
        froc: The curve, to be compared with that of another detector.
        curve: The same with intervals, to be drawn.
    """

    metrics: DetectionMetrics
    froc: FrocResult
    curve: FrocCurve


def judge_detection(
    predictions: Sequence[npt.ArrayLike],
    truths: Sequence[npt.ArrayLike],
    *,
    class_names: Sequence[str] = ("lesion",),
    prediction_labels: Sequence[npt.ArrayLike] | None = None,
    truth_labels: Sequence[npt.ArrayLike] | None = None,
    truth_ignored: Sequence[npt.ArrayLike] | None = None,
    groups: npt.ArrayLike | None = None,
    sizes_mm: Sequence[npt.ArrayLike] | None = None,
    size_edges_mm: Sequence[float] = DEEPLESION_SIZES_MM,
    types: Sequence[Sequence[str | None]] | None = None,
    iou_threshold: float = 0.5,
    matching: Matching = "iou",
    false_positives_per_image: Sequence[float] = DEEPLESION_RATES,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> DetectionJudgement:
    """Judge detected boxes by the usual measures, with intervals over patients.

    Sizes and types are judged at the highest rate of false positives.

    Args:
        predictions: Detected boxes and their scores, one table an image.
        truths: True boxes, one table an image.
        class_names: The names of the classes.
        prediction_labels: Class of each detected box; may be left out with one class.
        truth_labels: Class of each true box; likewise.
        truth_ignored: Which true boxes are to be ignored (crowds, noisy annotations).
        groups: The patient of each image, drawn as a whole by the bootstrap.
        sizes_mm: Size of each true box, ignored ones included; NaN is unknown.
        size_edges_mm: Where one span of sizes ends and the next begins.
        types: Type of each true box, ignored ones included; None is unknown.
        iou_threshold: The overlap that makes a hit, for the FROC.
        matching: How that overlap is measured: `iou` or `iobb`.
        false_positives_per_image: Rates at which the sensitivity is wanted, rising.
        num_samples: How many bootstrap resamples to draw.
        confidence: The confidence of the intervals.
        seed: The run's seed.

    Shape:
        Of each image `(boxes, 5)`: x1, y1, x2, y2, score; and `(truths, 4)`: x1, y1, x2, y2.

    Raises:
        ConfigError: If threshold, matching or rates are none.
        DataError: If the boxes are not as described, or a label is no class.
    """
    images = check_image_boxes(
        predictions,
        truths,
        prediction_labels=prediction_labels,
        truth_labels=truth_labels,
        truth_ignored=truth_ignored,
    )
    _check_classes(images, class_names, labelled=prediction_labels is not None)
    trace = partial(
        froc_of_images,
        images,
        iou_threshold=iou_threshold,
        matching=matching,
        rates=false_positives_per_image,
    )
    result = trace(labelled=True)
    precision = average_precision_of(images, iou_thresholds=COCO_THRESHOLDS)
    resamples = draw_resamples(len(images), groups=groups, num_samples=num_samples, seed=seed)
    curve = froc_curve(result, resamples=resamples, confidence=confidence)
    rate = float(result.false_positives_per_image[-1])
    judged = partial(judge_subsets, result, rate=rate, resamples=resamples, confidence=confidence)
    notes = _notes(result, num_groups=resamples.num_groups)
    for note in notes:
        logger.warning("%s", note)
    metrics = DetectionMetrics(
        num_images=result.num_images,
        num_lesions=result.num_lesions,
        num_ignored=int(result.findings.num_truths.sum()) - result.num_lesions,
        num_boxes=sum(len(image.boxes) for image in images),
        num_groups=resamples.num_groups,
        iou_threshold=iou_threshold,
        matching=matching,
        false_positives_per_image=tuple(result.false_positives_per_image.tolist()),
        sensitivity=curve.sensitivity,
        sensitivity_mp3d=tuple(trace(labelled=False, convention="mp3d").sensitivity.tolist()),
        thresholds=tuple(
            threshold if math.isfinite(threshold) else None
            for threshold in result.thresholds.tolist()
        ),
        mean_sensitivity=curve.mean_sensitivity,
        average_precision=precision.value,
        average_precision_50=float(precision.by_threshold[0]),
        by_class=_by_class(result, precision, class_names) if len(class_names) > 1 else (),
        subset_rate=rate,
        by_size=()
        if sizes_mm is None
        else judged(size_subsets(result, sizes_mm, edges=size_edges_mm)),
        by_type=() if types is None else judged(type_subsets(result, types)),
        confidence=confidence,
        num_resamples=num_samples,
        notes=notes,
    )
    return DetectionJudgement(metrics, result, curve)


def _check_classes(
    images: Sequence[ImageBoxes], class_names: Sequence[str], *, labelled: bool
) -> None:
    if not labelled and len(class_names) != 1:
        raise DataError(
            f"There are {len(class_names)} classes, but no labels. Give prediction_labels and "
            "truth_labels."
        )
    for number, image in enumerate(images):
        labels = np.concatenate([image.labels, image.truth_labels])
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
            raise DataError(
                f"Image {number} has labels from {labels.min()} to {labels.max()}, but the "
                f"{len(class_names)} classes are numbered from 0 on, without background."
            )


def _by_class(
    result: FrocResult, precision: AveragePrecision, class_names: Sequence[str]
) -> tuple[ClassDetection, ...]:
    rates = result.false_positives_per_image
    undefined = np.full(len(precision.iou_thresholds), np.nan)
    judged = []
    for label, name in enumerate(class_names):
        alone = result.by_label.get(label)
        areas = precision.by_label.get(label, undefined)
        judged.append(
            ClassDetection(
                name=name,
                num_lesions=alone.num_lesions if alone else 0,
                sensitivity=tuple(alone.sensitivity.tolist() if alone else [np.nan] * len(rates)),
                average_precision=float(areas.mean()),
                average_precision_50=float(areas[0]),
            )
        )
    return tuple(judged)


def _notes(result: FrocResult, *, num_groups: int) -> tuple[str, ...]:
    notes = []
    if not result.num_lesions:
        notes.append(
            f"None of the {result.num_images} images has a lesion: no sensitivity can be computed."
        )
    reached = result.curve_false_positives_per_image[-1]
    if reached < result.false_positives_per_image[-1]:
        notes.append(
            f"All boxes together make {reached:.3g} false positives an image: above that rate the "
            "sensitivity stays as it is. Only more boxes of low scores would show more."
        )
    if num_groups < 2:
        notes.append("All images are of one patient: there are no intervals.")
    return tuple(notes)
