"""Whether one classifier ranks better than another, judged on the same cases."""

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import Interval, draw_resamples, interval
from voxlift.metrics.classification import check_probabilities
from voxlift.metrics.weighted import Floats, Integers, weighted_auroc


def auroc_difference(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Subtract the AUROC of their probabilities from that of ours, with a paired interval.

    Every bootstrap resample judges both on the same cases, so that what is hard for both cancels.
    With more than two classes the AUROC is averaged over those that occur, each against the rest.
    NaN where there is one class only; no interval where there is one group only.

    Args:
        ours: Probability of each class.
        theirs: The same by the other classifier.
        labels: True class of each case.
        groups: The patient of each case, drawn as a whole by the bootstrap.
        num_samples: How many bootstrap resamples to draw.
        confidence: The confidence of the interval.
        seed: The run's seed.

    Shape:
        `ours` and `theirs`: `(cases, classes)`; `labels` and `groups`: `(cases,)`.

    Raises:
        DataError: If the arrays do not fit each other, or the probabilities are none.
    """
    mine, truth = check_probabilities(ours, labels)
    other, _ = check_probabilities(theirs, labels)
    if mine.shape != other.shape:
        raise DataError(
            f"The probabilities have the shapes {mine.shape} and {other.shape}; to be compared, "
            "both have to be of the same classes."
        )
    if len(np.unique(truth)) < 2:
        return Interval(value=np.nan, low=np.nan, high=np.nan)
    resamples = draw_resamples(
        len(truth), groups=groups, labels=truth, num_samples=num_samples, seed=seed
    )

    def difference(weights: Floats) -> Floats:
        return macro_auroc(mine, truth, weights) - macro_auroc(other, truth, weights)

    resampled = np.concatenate([difference(weights) for weights in resamples.blocks()])
    if resamples.num_groups < 2:
        resampled[:] = np.nan
    return interval(
        float(difference(np.ones((1, len(truth))))[0]),
        resampled,
        confidence=confidence,
        num_redrawn=resamples.num_redrawn,
    )


def macro_auroc(scores: Floats, labels: Integers, weights: Floats) -> Floats:
    """Compute the AUROC of class 1 of two, or the mean over the classes that occur.

    Shape:
        `(cases, classes)`, `(cases,)`, `(resamples, cases)` -> `(resamples,)`.
    """
    present = np.unique(labels)
    positive = present[present == 1] if scores.shape[1] == 2 else present
    areas = [weighted_auroc(scores[:, k], labels == k, weights) for k in positive]
    average: Floats = np.stack(areas).mean(axis=0)
    return average
