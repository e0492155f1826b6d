"""The ROC curve with its bootstrap band, ready to be drawn."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import Interval, draw_resamples, interval
from voxlift.metrics.classification import check_probabilities
from voxlift.metrics.weighted import Floats, weighted_auroc, weighted_score_counts

GRID_POINTS = 101


@dataclass(frozen=True)
class RocCurve:
    """Sensitivity against false positive rate, over all thresholds.

    Attributes:
        false_positive_rate: At each threshold, from 0 to 1.
        sensitivity: At each threshold, from 0 to 1.
        grid: False positive rates at which the band is given.
        low: Lower end of the sensitivity's interval at each point of the grid.
        high: Its upper end.
        auroc: Area under the curve.
    """

    false_positive_rate: Floats
    sensitivity: Floats
    grid: Floats
    low: Floats
    high: Floats
    auroc: Interval


def roc_curve(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    positive_class: int = 1,
    groups: npt.ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RocCurve:
    """Trace the ROC curve of one class against the rest, with a pointwise bootstrap band.

    With one group only the band is NaN.

    Args:
        probabilities: Probability of each class.
        labels: True class of each case.
        positive_class: The class that counts as positive.
        groups: The patient of each case, drawn as a whole by the bootstrap.
        num_samples: How many bootstrap resamples to draw.
        confidence: The confidence of the band.
        seed: The run's seed.

    Shape:
        `probabilities`: `(cases, classes)`; `labels` and `groups`: `(cases,)`.

    Raises:
        DataError: If the arrays do not fit each other, or the cases are all positive or all not.
    """
    scores, truth = check_probabilities(probabilities, labels)
    positive: npt.NDArray[np.bool_] = np.equal(truth, positive_class)
    if positive.all() or not positive.any():
        raise DataError(
            f"{positive.sum()} of {len(truth)} cases are of class {positive_class}, but an ROC "
            "curve needs cases of it and cases of others."
        )
    score = scores[:, positive_class]
    unweighted = np.ones((1, len(truth)))
    resamples = draw_resamples(
        len(truth), groups=groups, labels=positive, num_samples=num_samples, seed=seed
    )
    grid = np.linspace(0, 1, GRID_POINTS)
    areas = np.concatenate([weighted_auroc(score, positive, w) for w in resamples.blocks()])
    traced = np.stack(
        [
            np.interp(grid, false_positive_rate, sensitivity)
            for weights in resamples.blocks()
            for false_positive_rate, sensitivity in zip(
                *_rates(score, positive, weights), strict=True
            )
        ]
    )
    if resamples.num_groups < 2:
        areas[:], traced[:] = np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(traced, [tail, 1 - tail], axis=0)
    false_positive_rate, sensitivity = _rates(score, positive, unweighted)
    return RocCurve(
        false_positive_rate=false_positive_rate[0],
        sensitivity=sensitivity[0],
        grid=grid,
        low=low,
        high=high,
        auroc=interval(
            float(weighted_auroc(score, positive, unweighted)[0]),
            areas,
            confidence=confidence,
            num_redrawn=resamples.num_redrawn,
        ),
    )


def _rates(
    score: Floats, positive: npt.NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats]:
    """Give false positive rate and sensitivity from the strictest threshold to the laxest."""
    positives, negatives = weighted_score_counts(score, positive, weights)
    rates = []
    for counts in (negatives, positives):
        called = np.cumsum(counts[:, ::-1], axis=1)
        called = np.concatenate([np.zeros((len(called), 1)), called], axis=1)
        rates.append(called / called[:, -1:])
    return rates[0], rates[1]
