"""Statistics of weighted cases, for many sets of weights at once.

A bootstrap resample is a set of weights: how often each case occurs in it. Sorting the cases once
and weighing them anew for each resample makes a thousand resamples cost little more than one.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def weighted_auroc(scores: Floats, positive: Mask, weights: Floats) -> Floats:
    """Compute the area under the ROC curve: the chance that a positive outranks a negative.

    Equal scores count one half. Weights that leave no positive or no negative give NaN.

    Args:
        scores: The higher, the more likely positive.
        positive: Which cases are positive.
        weights: How often each case occurs.

    Shape:
        `(cases,)`, `(cases,)`, `(resamples, cases)` -> `(resamples,)`.
    """
    positives, negatives = weighted_score_counts(scores, positive, weights)
    outranked = np.cumsum(negatives, axis=1) - 0.5 * negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return _divide((positives * outranked).sum(axis=1), pairs)


def weighted_average_precision(scores: Floats, positive: Mask, weights: Floats) -> Floats:
    """Compute the area under the precision-recall curve as the average precision, without slopes.

    Weights that leave no positive or no negative give NaN.

    Args:
        scores: The higher, the more likely positive.
        positive: Which cases are positive.
        weights: How often each case occurs.

    Shape:
        `(cases,)`, `(cases,)`, `(resamples, cases)` -> `(resamples,)`.
    """
    positives, negatives = (
        part[:, ::-1] for part in weighted_score_counts(scores, positive, weights)
    )
    found = np.cumsum(positives, axis=1)
    called = found + np.cumsum(negatives, axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    # Without negatives any order is perfect, so nothing is judged.
    judged = np.where(negatives.sum(axis=1) > 0, positives.sum(axis=1), 0)
    return _divide((positives * precision).sum(axis=1), judged)


def weighted_confusion(
    labels: Integers, decisions: Integers, weights: Floats, *, num_classes: int
) -> Floats:
    """Count the cases of each class (rows) that were called each class (columns).

    Shape:
        `(cases,)`, `(cases,)`, `(resamples, cases)` -> `(resamples, classes, classes)`.
    """
    cells = labels * num_classes + decisions
    member = np.equal(cells[:, None], np.arange(num_classes**2)).astype(np.float64)
    counts: Floats = weights @ member
    return counts.reshape(len(weights), num_classes, num_classes)


def weighted_calibration_error(
    confidence: Floats, correct: Mask, weights: Floats, *, num_bins: int
) -> Floats:
    """Compute the expected calibration error over bins of equal width.

    It is the mean distance, over the cases, between the accuracy and the mean confidence of the
    bin that a case falls into.

    Args:
        confidence: The probability of the class that is called, from 0 to 1.
        correct: Whether it is the true class.
        weights: How often each case occurs.
        num_bins: Number of bins between 0 and 1.

    Shape:
        `(cases,)`, `(cases,)`, `(resamples, cases)` -> `(resamples,)`.

    Source:
        Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, arXiv 1706.04599,
        section 2.
    """
    member = np.equal(confidence_bins(confidence, num_bins=num_bins)[:, None], np.arange(num_bins))
    gaps: Floats = weights @ (member * (correct - confidence)[:, None])
    return _divide(np.abs(gaps).sum(axis=1), weights.sum(axis=1))


def confidence_bins(confidence: Floats, *, num_bins: int) -> Integers:
    """Find the bin of each confidence: bins of equal width, open below and closed above.

    The lowest bin holds 0 too.
    """
    bins = np.ceil(confidence * num_bins).astype(np.int64) - 1
    clipped: Integers = np.clip(bins, 0, num_bins - 1)
    return clipped


def weighted_score_counts(scores: Floats, positive: Mask, weights: Floats) -> tuple[Floats, Floats]:
    """Add up the weights of positives and of negatives at each distinct score, lowest first.

    Shape:
        `(cases,)`, `(cases,)`, `(resamples, cases)` -> twice `(resamples, distinct scores)`.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    ordered = weights[:, order]
    positives = np.add.reduceat(ordered * positive[order], starts, axis=1)
    return positives, np.add.reduceat(ordered * ~positive[order], starts, axis=1)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, giving NaN where the denominator is 0."""
    quotient = np.full_like(numerator, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
