"""How good the class probabilities of a network are, with intervals over patients."""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.bootstrap import Interval, draw_resamples, interval
from voxlift.metrics.weighted import (
    Floats,
    Integers,
    weighted_auroc,
    weighted_average_precision,
    weighted_calibration_error,
    weighted_confusion,
)

logger = logging.getLogger(__name__)

CALIBRATION_BINS = 15
# Probabilities in half precision add up to 1 only so well.
PROBABILITY_SUM_TOLERANCE = 1e-2


class ClassificationMetrics(BaseModel):
    """What a classifier's probabilities are worth on one set of cases.

    With two classes, class 1 is the positive one. With more, AUROC, AUPRC, sensitivity and
    specificity are computed for each class against the rest and averaged over the classes that
    occur; the sensitivity then equals the balanced accuracy.

    Attributes:
        class_names: The names of the classes, in the order of the probabilities.
        num_cases: How many cases were judged.
        num_groups: How many groups (patients) they come from.
        threshold: Probability of class 1 from which it is called; None: the likeliest is called.
        auroc: Area under the ROC curve.
        auprc: Area under the precision-recall curve, as average precision.
        accuracy: Share of the cases that are called right.
        balanced_accuracy: Sensitivity averaged over the classes.
        sensitivity: Share of the positives that are called positive.
        specificity: Share of the negatives that are called negative.
        calibration_error: Expected calibration error of the likeliest class. It is the larger the
            fewer cases there are in a bin, and so in a resample larger than in all cases: its
            interval lies high.
        num_calibration_bins: Bins of equal width that the calibration error uses.
        confusion_matrix: Cases of each true class (rows) that were called each class (columns).
        confidence: The confidence of the intervals.
        num_resamples: Bootstrap resamples behind the intervals; each metric counts those redrawn.
        stratified_resamples: Whether the resamples had to be drawn within classes.
        notes: What could not be computed, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_names: tuple[str, ...]
    num_cases: int
    num_groups: int
    threshold: float | None
    auroc: Interval
    auprc: Interval
    accuracy: Interval
    balanced_accuracy: Interval
    sensitivity: Interval
    specificity: Interval
    calibration_error: Interval
    num_calibration_bins: int
    confusion_matrix: tuple[tuple[int, ...], ...]
    confidence: float
    num_resamples: int
    stratified_resamples: bool
    notes: tuple[str, ...] = ()

    def intervals(self) -> dict[str, Interval]:
        """Give every metric by its name."""
        return {
            name: value
            for name in METRIC_NAMES
            if isinstance(value := getattr(self, name), Interval)
        }


METRIC_NAMES = (
    "auroc",
    "auprc",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "calibration_error",
)


def classification_metrics(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    class_names: Sequence[str],
    groups: npt.ArrayLike | None = None,
    threshold: float | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    num_calibration_bins: int = CALIBRATION_BINS,
    seed: int = 0,
) -> ClassificationMetrics:
    """Judge class probabilities by the usual measures, each with a bootstrap interval.

    A measure that the labels leave undefined, such as the AUROC of cases of one class, is NaN and
    explained in `notes`. Accuracy, balanced accuracy, sensitivity, specificity and the confusion
    matrix all follow from the same decisions.

    Args:
        probabilities: Probability of each class.
        labels: True class of each case.
        class_names: The names of the classes.
        groups: The patient of each case, drawn as a whole by the bootstrap.
        threshold: With two classes, the probability of class 1 from which it is called; choose it
            on validation cases with `choose_threshold`. None calls the likeliest class.
        num_samples: How many bootstrap resamples to draw.
        confidence: The confidence of the intervals.
        num_calibration_bins: Bins of equal width for the calibration error.
        seed: The run's seed.

    Shape:
        `probabilities`: `(cases, classes)`; `labels` and `groups`: `(cases,)`.

    Raises:
        ConfigError: If there is a threshold and there are more than two classes.
        DataError: If the arrays do not fit each other, or the probabilities are none.
    """
    scores, truth = check_probabilities(probabilities, labels)
    num_cases, num_classes = scores.shape
    if len(class_names) != num_classes:
        raise DataError(
            f"There are {num_classes} probabilities a case, but the classes are "
            f"{', '.join(class_names)}. Pass one name for each."
        )
    resamples = draw_resamples(
        num_cases, groups=groups, labels=truth, num_samples=num_samples, seed=seed
    )
    decisions = decide(scores, threshold=threshold)
    bins = num_calibration_bins
    values = _statistics(scores, truth, decisions, np.ones((1, num_cases)), num_bins=bins)
    blocks = [
        _statistics(scores, truth, decisions, weights, num_bins=bins)
        for weights in resamples.blocks()
    ]
    intervals = {}
    for name in METRIC_NAMES:
        resampled = np.concatenate([block[name] for block in blocks])
        if resamples.num_groups < 2:
            resampled = np.full_like(resampled, np.nan)
        intervals[name] = interval(
            float(values[name][0]),
            resampled,
            confidence=confidence,
            num_redrawn=resamples.num_redrawn,
        )
    confusion = weighted_confusion(
        truth, decisions, np.ones((1, num_cases)), num_classes=num_classes
    )[0].astype(int)
    notes = _notes(truth, tuple(class_names), num_groups=resamples.num_groups)
    for note in notes:
        logger.warning("%s", note)
    return ClassificationMetrics(
        class_names=tuple(class_names),
        num_cases=num_cases,
        num_groups=resamples.num_groups,
        threshold=threshold,
        num_calibration_bins=bins,
        confusion_matrix=tuple(tuple(int(count) for count in row) for row in confusion),
        confidence=confidence,
        num_resamples=num_samples,
        stratified_resamples=resamples.stratified,
        notes=notes,
        **intervals,
    )


def choose_threshold(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Choose the probability of class 1 from which it is called, on validation cases.

    It maximises sensitivity + specificity - 1. The thresholds tried lie half way between
    neighbouring probabilities; of several that are equally good, the one nearest to 0.5 is taken.

    Args:
        probabilities: Probabilities of two classes.
        labels: True class of each case, 0 or 1.

    Shape:
        `probabilities`: `(cases, 2)`; `labels`: `(cases,)`.

    Raises:
        ConfigError: If there are more than two classes.
        DataError: If only one class occurs.

    Source:
        Youden: Index for rating diagnostic tests, Cancer 3 (1950).
    """
    scores, truth = check_probabilities(probabilities, labels)
    if scores.shape[1] != 2:
        raise ConfigError(f"A threshold needs 2 classes, but there are {scores.shape[1]}.")
    if len(np.unique(truth)) < 2:
        raise DataError(
            f"All {len(truth)} validation cases are of class {truth[0]}, so no threshold can be "
            "chosen. Give validation cases of both classes, or go without a threshold."
        )
    levels = np.unique(scores[:, 1])
    candidates = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    positives = np.sort(scores[truth == 1, 1])
    negatives = np.sort(scores[truth == 0, 1])
    missed = np.searchsorted(positives, candidates, side="left") / len(positives)
    rejected = np.searchsorted(negatives, candidates, side="left") / len(negatives)
    youden = rejected - missed
    best = candidates[np.isclose(youden, youden.max(), rtol=0, atol=1e-12)]
    return float(best[np.argmin(np.abs(best - 0.5))])


def decide(probabilities: Floats, *, threshold: float | None = None) -> Integers:
    """Call a class for each case: the likeliest, or class 1 from a threshold on.

    Args:
        probabilities: Probability of each class.
        threshold: Probability of class 1 from which it is called, with two classes only.

    Shape:
        `(cases, classes)` -> `(cases,)`.

    Raises:
        ConfigError: If there is a threshold and there are more than two classes.
    """
    if threshold is None:
        likeliest: Integers = np.argmax(probabilities, axis=1).astype(np.int64)
        return likeliest
    if probabilities.shape[1] != 2:
        raise ConfigError(
            f"The threshold {threshold} needs 2 classes, but there are {probabilities.shape[1]}. "
            "Leave it out: the likeliest class is called."
        )
    called: Integers = np.greater_equal(probabilities[:, 1], threshold).astype(np.int64)
    return called


def check_probabilities(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[Floats, Integers]:
    """Check that probabilities and labels fit each other, and give them as arrays.

    Raises:
        DataError: If the shapes are wrong, a number is not a probability, or a label no class.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] < 2 or not len(scores):
        raise DataError(
            f"The probabilities have the shape {scores.shape}, but (cases, classes) with at least "
            "1 case and 2 classes is needed."
        )
    if truth.shape != (len(scores),):
        raise DataError(
            f"The labels have the shape {truth.shape}, but one for each of the {len(scores)} cases "
            "is needed."
        )
    sums_to_one = np.abs(scores.sum(axis=1) - 1) <= PROBABILITY_SUM_TOLERANCE
    wrong = ~sums_to_one | (scores.min(axis=1) < 0)
    if wrong.any():
        worst = int(np.argmax(wrong))
        raise DataError(
            f"Case {worst} has the probabilities {scores[worst].tolist()}, but they must not be "
            "negative and must add up to 1. Pass the logits through a softmax first."
        )
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0:
        raise DataError(f"The labels are {truth.dtype}, but class numbers from 0 on are needed.")
    if truth.max() >= scores.shape[1]:
        raise DataError(
            f"There is a label {truth.max()}, but the {scores.shape[1]} classes end at "
            f"{scores.shape[1] - 1}. Check the manifest against the model's classes."
        )
    return scores, truth.astype(np.int64)


def _statistics(
    scores: Floats, labels: Integers, decisions: Integers, weights: Floats, *, num_bins: int
) -> dict[str, Floats]:
    """Compute every metric for every set of weights."""
    num_classes = scores.shape[1]
    confusion = weighted_confusion(labels, decisions, weights, num_classes=num_classes)
    actual, called = confusion.sum(axis=2), confusion.sum(axis=1)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    total = actual.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        recall = right / actual
        rejected = (total - actual - called + right) / (total - actual)
    confidence = scores.max(axis=1)
    likeliest = scores.argmax(axis=1)
    present = np.unique(labels)
    # With two classes the second is the positive one; with more, each is in its turn.
    positive = np.array([1]) if num_classes == 2 else present
    return {
        "auroc": _mean([weighted_auroc(scores[:, k], labels == k, weights) for k in positive]),
        "auprc": _mean(
            [weighted_average_precision(scores[:, k], labels == k, weights) for k in positive]
        ),
        "accuracy": right.sum(axis=1) / total[:, 0],
        "balanced_accuracy": _mean(list(recall[:, present].T)),
        "sensitivity": _mean(list(recall[:, positive].T)),
        "specificity": _mean(list(rejected[:, positive].T)),
        "calibration_error": weighted_calibration_error(
            confidence, likeliest == labels, weights, num_bins=num_bins
        ),
    }


def _mean(parts: list[Floats]) -> Floats:
    """Average over classes; NaN where the metric of one is not defined."""
    average: Floats = np.stack(parts).mean(axis=0)
    return average


def _notes(labels: Integers, class_names: tuple[str, ...], *, num_groups: int) -> tuple[str, ...]:
    notes = []
    present = np.unique(labels)
    absent = [name for k, name in enumerate(class_names) if k not in present]
    if len(present) == 1:
        notes.append(
            f"All {len(labels)} cases are of class {class_names[present[0]]}: no ranking can be "
            "judged."
        )
    elif absent:
        notes.append(f"No case of class {', '.join(absent)}: left out of the averages.")
    if num_groups < 2:
        notes.append("All cases are of one patient: there are no intervals.")
    return tuple(notes)
