"""How well structures were found over all cases, with intervals over patients."""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import Floats, Interval, draw_resamples, interval
from voxlift.metrics.structures import StructureMetrics

logger = logging.getLogger(__name__)

SURFACE_METRICS = ("surface_dice", "hd95_mm", "assd_mm")
METRIC_NAMES = ("dice", *SURFACE_METRICS, "volume_error_ml", "absolute_volume_error_ml")


class StructureSummary(BaseModel):
    """How well one structure was found over all cases.

    Attributes:
        metrics: The mean of each metric over the cases where it is defined, by its name.
        num_cases: Cases with the structure in truth or prediction: those that count for Dice,
            surface Dice and distances. All cases count for the volume errors.
        num_missed: Cases of these where it is, but nothing was found.
        num_invented: Cases of these where it is not, but something was found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: dict[str, Interval]
    num_cases: int
    num_missed: int
    num_invented: int


class SegmentationMetrics(BaseModel):
    """How well structures were found in one set of cases.

    Attributes:
        structures: The summary of each structure by its name.
        means: The mean of each metric over the structures, each structure counting the same; one
            for which the metric is defined in no case is left out.
        num_cases: How many cases were judged.
        num_groups: How many groups (patients) they come from.
        surface_tolerance_mm: Distance up to which surfaces agree; None: surfaces were not measured.
        confidence: The confidence of the intervals.
        num_resamples: Bootstrap resamples behind the intervals.
        notes: What could not be computed or has to be known, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: dict[str, StructureSummary]
    means: dict[str, Interval]
    num_cases: int
    num_groups: int
    surface_tolerance_mm: float | None
    confidence: float
    num_resamples: int
    notes: tuple[str, ...] = ()

    @property
    def mean_dice(self) -> Interval:
        """Dice, averaged over cases and then over structures."""
        return self.means["dice"]

    def intervals(self) -> dict[str, Interval]:
        """Give every metric by its name: `dice` over the structures, `dice/liver` of the liver."""
        named = dict(self.means)
        for metric in self.means:
            for name, summary in self.structures.items():
                named[f"{metric}/{name}"] = summary.metrics[metric]
        return named


def summarize(
    cases: Sequence[Mapping[str, StructureMetrics]],
    *,
    groups: Sequence[str] | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> SegmentationMetrics:
    """Average the metrics over cases, each with a bootstrap interval over patients.

    The interval of a structure resamples the patients with cases that count for it; that of a mean
    over structures resamples all patients, and a structure that is in no case of a resample is left
    out of that one.

    Args:
        cases: What `case_metrics` gives, case by case.
        groups: The patient of each case, drawn as a whole; each case is its own if left out.
        num_samples: How many bootstrap resamples to draw.
        confidence: The confidence of the intervals.
        seed: The run's seed.

    Raises:
        DataError: If there is no case, or the cases were not judged alike.
    """
    names, tolerance_mm = _judged_alike(cases)
    patients = np.arange(len(cases)) if groups is None else np.asarray(groups)
    resamples = draw_resamples(len(cases), groups=patients, num_samples=num_samples, seed=seed)
    weights = np.concatenate(list(resamples.blocks()))
    enough = resamples.num_groups > 1
    structures: dict[str, dict[str, Interval]] = {name: {} for name in names}
    means = {}
    for metric in METRIC_NAMES:
        if metric in SURFACE_METRICS and tolerance_mm is None:
            continue
        values = np.array([[getattr(case[name], metric) for name in names] for case in cases])
        for name, column in zip(names, values.T, strict=True):
            counted = np.isfinite(column)
            structures[name][metric] = _mean_interval(
                column[counted],
                patients[counted],
                num_samples=num_samples,
                confidence=confidence,
                seed=seed,
            )
        means[metric] = interval(
            float(_structure_mean(values, np.ones((1, len(cases))))[0]),
            _structure_mean(values, weights) if enough else np.full(num_samples, math.nan),
            confidence=confidence,
        )
    summaries = {name: _summary([case[name] for case in cases], structures[name]) for name in names}
    notes = _notes(summaries, num_groups=resamples.num_groups, surfaces=tolerance_mm is not None)
    for note in notes:
        logger.warning("%s", note)
    return SegmentationMetrics(
        structures=summaries,
        means=means,
        num_cases=len(cases),
        num_groups=resamples.num_groups,
        surface_tolerance_mm=tolerance_mm,
        confidence=confidence,
        num_resamples=num_samples,
        notes=notes,
    )


def _judged_alike(
    cases: Sequence[Mapping[str, StructureMetrics]],
) -> tuple[tuple[str, ...], float | None]:
    """Give the structures and the tolerance that all cases have in common."""
    if not cases:
        raise DataError("There is no case to judge. Check that the split is not empty.")
    found = {tuple(case) for case in cases}
    tolerances = {metrics.surface_tolerance_mm for case in cases for metrics in case.values()}
    if len(found) > 1 or not all(found) or len(tolerances) > 1:
        raise DataError(
            f"The cases were judged on the structures {sorted(found)} with the surface tolerances "
            f"{tolerances}, but all have to be judged alike, on at least one structure."
        )
    return found.pop(), tolerances.pop()


def _mean_interval(
    values: Floats,
    patients: npt.NDArray[np.generic],
    *,
    num_samples: int,
    confidence: float,
    seed: int,
) -> Interval:
    """Average over the cases that count, with an interval over their patients."""
    if not len(values):
        return Interval(value=math.nan, low=math.nan, high=math.nan)
    resamples = draw_resamples(len(values), groups=patients, num_samples=num_samples, seed=seed)
    resampled = np.full(num_samples, math.nan)
    if resamples.num_groups > 1:
        weights = np.concatenate(list(resamples.blocks()))
        resampled = weights @ values / weights.sum(axis=1)
    return interval(float(values.mean()), resampled, confidence=confidence)


def _structure_mean(values: Floats, weights: Floats) -> Floats:
    """Average over the cases where a structure counts, then over the structures that are there.

    Shape:
        `(cases, structures)`, `(resamples, cases)` -> `(resamples,)`; NaN where nothing counts.
    """
    counted = np.isfinite(values)
    number = weights @ counted
    total = weights @ np.where(counted, values, 0)
    means = np.divide(total, number, out=np.zeros_like(total), where=number > 0)
    present = np.count_nonzero(number, axis=1)
    average: Floats = np.full(len(weights), math.nan)
    np.divide(means.sum(axis=1), present, out=average, where=present > 0)
    return average


def _summary(cases: Sequence[StructureMetrics], metrics: dict[str, Interval]) -> StructureSummary:
    truth = np.array([case.volume_truth_ml > 0 for case in cases])
    found = np.array([case.volume_prediction_ml > 0 for case in cases])
    return StructureSummary(
        metrics=metrics,
        num_cases=int((truth | found).sum()),
        num_missed=int((truth & ~found).sum()),
        num_invented=int((found & ~truth).sum()),
    )


def _notes(
    summaries: Mapping[str, StructureSummary], *, num_groups: int, surfaces: bool
) -> tuple[str, ...]:
    notes = []
    absent = [name for name, summary in summaries.items() if not summary.num_cases]
    if absent:
        notes.append(
            f"No case holds {', '.join(absent)}, in truth or prediction: left out of the means."
        )
    for name, summary in summaries.items():
        if summary.num_missed + summary.num_invented:
            distances = " The distances there are the volume's diagonal." if surfaces else ""
            notes.append(
                f"{name} was missed in {summary.num_missed} of the "
                f"{summary.num_cases - summary.num_invented} cases that hold it, and found in "
                f"{summary.num_invented} that do not.{distances}"
            )
    if num_groups < 2:
        notes.append("All cases are of one patient: there are no intervals.")
    return tuple(notes)
