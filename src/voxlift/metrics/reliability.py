"""The reliability curve: whether a probability of 0.8 comes true in 8 of 10 cases."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.metrics.bootstrap import draw_resamples
from voxlift.metrics.classification import CALIBRATION_BINS, check_probabilities
from voxlift.metrics.weighted import Floats, Integers, confidence_bins


@dataclass(frozen=True)
class ReliabilityCurve:
    """Accuracy against confidence of the likeliest class, in the bins that hold cases.

    Attributes:
        confidence: Mean probability of the likeliest class in each bin.
        accuracy: Share of the bin's cases where that class is the true one.
        low: Lower end of the accuracy's interval.
        high: Its upper end.
        num_cases: Cases in the bin.
        num_bins: How many bins of equal width there are between 0 and 1, with empty ones.
    """

    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    num_cases: Integers
    num_bins: int


def reliability_curve(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    num_bins: int = CALIBRATION_BINS,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ReliabilityCurve:
    """Compare confidence with accuracy, bin by bin, over the bins of the calibration error.

    The interval of a bin comes from the bootstrap resamples that hold a case of it; with one group
    only it is NaN.

    Args:
        probabilities: Probability of each class.
        labels: True class of each case.
        groups: The patient of each case, drawn as a whole by the bootstrap.
        num_bins: Bins of equal width.
        num_samples: How many bootstrap resamples to draw.
        confidence: The confidence of the intervals.
        seed: The run's seed.

    Shape:
        `probabilities`: `(cases, classes)`; `labels` and `groups`: `(cases,)`.

    Raises:
        DataError: If the arrays do not fit each other, or the probabilities are none.
    """
    scores, truth = check_probabilities(probabilities, labels)
    highest = scores.max(axis=1)
    correct = np.equal(scores.argmax(axis=1), truth)
    bins = confidence_bins(highest, num_bins=num_bins)
    occupied, num_cases = np.unique(bins, return_counts=True)
    member = np.equal(bins[:, None], occupied).astype(np.float64)
    resamples = draw_resamples(len(truth), groups=groups, num_samples=num_samples, seed=seed)
    low = np.full(len(occupied), np.nan)
    high = low.copy()
    if resamples.num_groups > 1:
        tail = (1 - confidence) / 2
        with np.errstate(invalid="ignore"):
            resampled = np.concatenate(
                [
                    (weights @ (member * correct[:, None])) / (weights @ member)
                    for weights in resamples.blocks()
                ]
            )
        low, high = np.nanquantile(resampled, [tail, 1 - tail], axis=0)
    return ReliabilityCurve(
        confidence=(highest @ member) / num_cases,
        accuracy=(correct @ member) / num_cases,
        low=low,
        high=high,
        num_cases=num_cases,
        num_bins=num_bins,
    )
