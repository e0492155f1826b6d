"""Intervals of FROC curves over patients, and the difference of two detectors on the same images.

Each image's lesions and false positives are sorted by score once; a resample then only weighs them
anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import Interval, Resamples, draw_resamples, interval
from voxlift.metrics.findings import NOT_FOUND, Floats, Integers
from voxlift.metrics.froc import FrocResult, interpolate_sensitivity

GRID_POINTS = 257


@dataclass(frozen=True, eq=False)
class FrocCurve:
    """An FROC curve with intervals, ready to be drawn.

    Attributes:
        false_positives_per_image: The rates at which the sensitivity was asked for.
        sensitivity: At each of them.
        mean_sensitivity: Over the rates.
        grid: Rates for drawing, from the lowest positive rate asked for to the highest, evenly
            spaced on a logarithmic axis.
        grid_sensitivity: At each point of the grid.
        low: Lower end of its interval.
        high: Upper end.
        num_groups: Patients that were drawn from.
        confidence: The confidence of the intervals.
    """

    false_positives_per_image: Floats
    sensitivity: tuple[Interval, ...]
    mean_sensitivity: Interval
    grid: Floats
    grid_sensitivity: Floats
    low: Floats
    high: Floats
    num_groups: int
    confidence: float


@dataclass(frozen=True, eq=False)
class FrocDifference:
    """By how much one detector finds more lesions than another, on the same images.

    Attributes:
        false_positives_per_image: The rates.
        sensitivity: Difference at each of them.
        mean_sensitivity: Difference of the means over the rates.
    """

    false_positives_per_image: Floats
    sensitivity: tuple[Interval, ...]
    mean_sensitivity: Interval


def bootstrap_froc(
    result: FrocResult,
    *,
    groups: npt.ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> FrocCurve:
    """Compute intervals of an FROC curve by drawing patients with replacement.

    Resamples without any lesion are left out, for they have no sensitivity. With one patient only,
    or without lesions, the intervals are NaN.

    Args:
        result: The curve.
        groups: The patient of each image, drawn as a whole; each image is its own if left out.
        num_samples: How many resamples to draw.
        confidence: The confidence of the intervals.
        seed: The run's seed.

    Raises:
        DataError: If there is not one group an image.
    """
    resamples = draw_resamples(result.num_images, groups=groups, num_samples=num_samples, seed=seed)
    return froc_curve(result, resamples=resamples, confidence=confidence)


def froc_curve(result: FrocResult, *, resamples: Resamples, confidence: float = 0.95) -> FrocCurve:
    """Compute intervals of an FROC curve over resamples of its images, as `bootstrap_froc` does.

    Args:
        result: The curve.
        resamples: Resamples of the images.
        confidence: The confidence of the intervals.
    """
    rates = result.false_positives_per_image
    grid = _grid(rates)
    resampled = _resampled(result, np.concatenate([rates, grid]), resamples)
    at_rates, on_grid = resampled[:, : len(rates)], resampled[:, len(rates) :]
    bands = _intervals(result.sensitivity_at(grid), on_grid, confidence=confidence)
    return FrocCurve(
        false_positives_per_image=rates,
        sensitivity=_intervals(result.sensitivity, at_rates, confidence=confidence),
        mean_sensitivity=interval(
            result.mean_sensitivity, at_rates.mean(axis=1), confidence=confidence
        ),
        grid=grid,
        grid_sensitivity=result.sensitivity_at(grid),
        low=np.array([point.low for point in bands]),
        high=np.array([point.high for point in bands]),
        num_groups=resamples.num_groups,
        confidence=confidence,
    )


def froc_difference(
    ours: FrocResult,
    theirs: FrocResult,
    *,
    groups: npt.ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> FrocDifference:
    """Subtract the sensitivity of their detector from that of ours, with paired intervals.

    Both are judged on the same resamples of patients, so what makes a patient hard for both does
    not widen the interval.

    Args:
        ours: The curve of the detector whose gain is asked for.
        theirs: That of the detector it is compared with.
        groups: The patient of each image, drawn as a whole; each image is its own if left out.
        num_samples: How many resamples to draw.
        confidence: The confidence of the intervals.
        seed: The run's seed.

    Raises:
        DataError: If the two were not judged on the same images, lesions and rates, or there is not
            one group an image.
    """
    _check_pair(ours, theirs)
    rates = ours.false_positives_per_image
    resamples = draw_resamples(ours.num_images, groups=groups, num_samples=num_samples, seed=seed)
    resampled = _resampled(ours, rates, resamples) - _resampled(theirs, rates, resamples)
    return FrocDifference(
        false_positives_per_image=rates,
        sensitivity=_intervals(
            ours.sensitivity - theirs.sensitivity, resampled, confidence=confidence
        ),
        mean_sensitivity=interval(
            ours.mean_sensitivity - theirs.mean_sensitivity,
            resampled.mean(axis=1),
            confidence=confidence,
        ),
    )


def weights_of_images(resamples: Resamples, images: Integers) -> Iterator[Floats]:
    """Yield how often what lies in the given images occurs, some resamples at a time.

    Args:
        resamples: Resamples of the images.
        images: Number of the image of each finding.

    Shape:
        Each block is `(resamples, findings)`.
    """
    return replace(resamples, group_of_case=resamples.group_of_case[images]).blocks()


def _check_pair(ours: FrocResult, theirs: FrocResult) -> None:
    if not np.array_equal(ours.false_positives_per_image, theirs.false_positives_per_image):
        raise DataError(
            f"Our curve was read at {ours.false_positives_per_image.tolist()} false positives an "
            f"image, theirs at {theirs.false_positives_per_image.tolist()}. Read both at the same "
            "rates."
        )
    same = all(
        np.array_equal(getattr(ours.findings, name), getattr(theirs.findings, name))
        for name in ("num_truths", "lesion_rows", "lesion_labels")
    )
    if not same:
        raise DataError(
            f"Our curve is of {ours.num_lesions} lesions in {ours.num_images} images, theirs of "
            f"{theirs.num_lesions} in {theirs.num_images}, and they are not the same lesions. "
            "Judge both detectors on the same images in the same order."
        )


def _grid(rates: Floats) -> Floats:
    positive = rates[rates > 0]
    if not len(positive):
        return np.zeros(0)
    return np.geomspace(positive[0], positive[-1], GRID_POINTS if len(positive) > 1 else 1)


def _resampled(result: FrocResult, rates: Floats, resamples: Resamples) -> Floats:
    """Compute the sensitivity at the rates in every resample that holds a lesion.

    Shape:
        `(resamples, rates)`; NaN, in one row, where there is nothing to resample.
    """
    findings = result.findings
    if resamples.num_groups < 2 or not findings.num_lesions:
        return np.full((1, len(rates)), np.nan)
    found = findings.lesion_scores > NOT_FOUND
    scores = np.concatenate([findings.lesion_scores[found], findings.false_scores])
    images = np.concatenate([findings.lesion_images[found], findings.false_images])
    order = np.argsort(-scores, kind="stable")
    is_false = order >= np.count_nonzero(found)
    # The curve has a point where the score changes, and one at the end.
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    num_images = _totals(resamples, np.arange(findings.num_images))
    num_lesions = _totals(resamples, findings.lesion_images)
    rows = []
    every = (weights for block in weights_of_images(resamples, images[order]) for weights in block)
    for weights, images_drawn, lesions_drawn in zip(every, num_images, num_lesions, strict=True):
        if not lesions_drawn:
            continue
        false_counts = np.cumsum(weights * is_false)[ends]
        found_counts = np.cumsum(weights)[ends] - false_counts
        rows.append(
            interpolate_sensitivity(
                np.concatenate([[0.0], false_counts]),
                np.concatenate([[0.0], found_counts / lesions_drawn]),
                rates * images_drawn,
                convention=result.convention,
            )
        )
    return np.stack(rows) if rows else np.full((1, len(rates)), np.nan)


def _totals(resamples: Resamples, images: Integers) -> Floats:
    return np.concatenate([block.sum(axis=1) for block in weights_of_images(resamples, images)])


def _intervals(values: Floats, resampled: Floats, *, confidence: float) -> tuple[Interval, ...]:
    return tuple(
        interval(float(value), column, confidence=confidence)
        for value, column in zip(values, resampled.T, strict=True)
    )
