"""How well structures were found: in each case, and over cases with intervals over patients."""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Integer
from pydantic import BaseModel, ConfigDict

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import IGNORED, LabelScheme
from voxlift.metrics.bootstrap import Floats, Interval, Number, draw_resamples, interval
from voxlift.metrics.surface import (
    SURFACE_TOLERANCE_MM,
    Mask,
    Spacing,
    check_spacing,
    surface_metrics,
)

logger = logging.getLogger(__name__)

ClassNumbers = Integer[np.ndarray, "depth height width"]
StructureMasks = Bool[np.ndarray, "structures depth height width"]

SURFACE_METRICS = ("surface_dice", "hd95_mm", "assd_mm")
METRIC_NAMES = ("dice", *SURFACE_METRICS, "volume_error_ml", "absolute_volume_error_ml")


class StructureMetrics(BaseModel):
    """How well one structure was found in one case.

    Where the structure is neither in the truth nor in the prediction, Dice, surface Dice and the
    distances are NaN (null in JSON): such a case is left out of their means, and the cases that
    counted are counted. Where it is in one of them only, Dice and surface Dice are 0 and the
    distances are the diagonal of the volume, so that a structure that was missed never improves a
    mean. Volumes are always defined.

    Attributes:
        dice: Twice the common voxels over the voxels of both.
        surface_dice: Share of both surfaces within the tolerance of the other one.
        hd95_mm: 95th percentile of the distances between the surfaces (Hausdorff).
        assd_mm: Average symmetric surface distance.
        volume_truth_ml: Volume of the structure.
        volume_prediction_ml: Volume that was found.
        surface_tolerance_mm: Distance up to which surfaces agree; None: surfaces were not measured,
            and their metrics are NaN.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: Number
    surface_dice: Number = math.nan
    hd95_mm: Number = math.nan
    assd_mm: Number = math.nan
    volume_truth_ml: float
    volume_prediction_ml: float
    surface_tolerance_mm: float | None = None

    @property
    def volume_error_ml(self) -> float:
        """Volume found less the true one: above 0 where too much was found."""
        return self.volume_prediction_ml - self.volume_truth_ml

    @property
    def absolute_volume_error_ml(self) -> float:
        """The volume error without its sign, for errors of both signs cancel out in a mean."""
        return abs(self.volume_error_ml)


def case_metrics(
    prediction: ClassNumbers | StructureMasks,
    truth: ClassNumbers,
    *,
    labels: LabelScheme,
    spacing_mm: Spacing,
    surface_tolerance_mm: float = SURFACE_TOLERANCE_MM,
    surfaces: bool = True,
) -> dict[str, StructureMetrics]:
    """Compare a prediction with the truth, structure by structure.

    Voxels that nobody labelled (`IGNORED` in the truth) are left out of everything, as if no
    structure were there, in the truth or in the prediction; a surface that runs into them ends at
    the same place in both.

    Args:
        prediction: Class numbers, or a mask for each of `labels.structures`, which may overlap.
        truth: Class numbers, with `IGNORED` where nobody labelled.
        labels: The classes; structures are its regions, or its classes without the background.
        spacing_mm: Distance between voxels.
        surface_tolerance_mm: Distance up to which surfaces agree in the surface Dice.
        surfaces: Measure the surfaces, which takes most of the time.

    Shape:
        `prediction`: `(depth, height, width)` or `(structures, depth, height, width)`; `truth`:
        `(depth, height, width)`.

    Returns:
        The metrics of each structure by its name, in the order of `labels.structures`.

    Raises:
        ConfigError: If the tolerance is negative or not finite.
        DataError: If the arrays do not fit each other or the labels, or the spacing is none.
    """
    _check(prediction, truth, labels)
    check_spacing(spacing_mm)
    voxel_ml = math.prod(spacing_mm) / 1000
    ignored = truth == IGNORED
    judged = ~ignored if ignored.any() else None
    members = labels.members() if labels.is_overlapping else labels.members()[1:]
    metrics = {}
    for number, name in enumerate(labels.structures):
        classes = np.flatnonzero(members[number])
        true = _mask_of(truth, classes)
        found = prediction[number] if prediction.ndim == 4 else _mask_of(prediction, classes)
        if judged is not None:
            found = found & judged
        num_true, num_found = np.count_nonzero(true), np.count_nonzero(found)
        both = num_true + num_found
        overlap = np.count_nonzero(true & found)
        measured = {}
        if surfaces:
            measured = vars(
                surface_metrics(
                    found, true, spacing_mm=spacing_mm, tolerance_mm=surface_tolerance_mm
                )
            )
        metrics[name] = StructureMetrics(
            dice=2 * overlap / both if both else math.nan,
            volume_truth_ml=num_true * voxel_ml,
            volume_prediction_ml=num_found * voxel_ml,
            surface_tolerance_mm=surface_tolerance_mm if surfaces else None,
            **measured,
        )
    return metrics


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


def mean_case_dice(case: Mapping[str, StructureMetrics]) -> float:
    """Average Dice over the structures of one case; NaN if none is in truth or prediction."""
    defined = [metrics.dice for metrics in case.values() if not math.isnan(metrics.dice)]
    return sum(defined) / len(defined) if defined else math.nan


def worst_cases(cases: Sequence[Mapping[str, StructureMetrics]], *, count: int) -> list[int]:
    """Give the places of the cases of the lowest mean Dice, the worst first.

    Cases with nothing in truth and prediction are not among them.
    """
    scores = [(mean_case_dice(case), place) for place, case in enumerate(cases)]
    return [place for score, place in sorted(s for s in scores if not math.isnan(s[0]))[:count]]


def _check(prediction: npt.NDArray[np.generic], truth: ClassNumbers, labels: LabelScheme) -> None:
    """Refuse arrays that do not fit each other or the labels."""
    structures = (len(labels.structures),) if prediction.ndim == 4 else ()
    if truth.ndim != 3 or prediction.shape != (*structures, *truth.shape):
        raise DataError(
            f"The prediction has the size {prediction.shape}, the truth {truth.shape}, and there "
            f"are {len(labels.structures)} structures. Give both as class numbers on one grid "
            "(depth, height, width), or the prediction as one mask a structure on that grid."
        )
    if prediction.ndim == 4 and prediction.dtype != bool:
        raise DataError(
            f"The masks of the prediction are {prediction.dtype}, but bool is needed. Decide where "
            "each structure is, as by a probability above one half."
        )
    for name, array in (("prediction", prediction), ("truth", truth)):
        if array.dtype == bool:
            continue
        if array.dtype.kind not in "iu":
            raise DataError(f"The {name} is {array.dtype}, but class numbers are needed.")
        highest = int(array.max(initial=0, where=array != IGNORED))
        if array is prediction:
            highest = int(array.max(initial=0))
        if highest >= len(labels.names):
            raise DataError(
                f"The {name} holds {highest}, but the class numbers end at {len(labels.names) - 1} "
                f"({labels.describe()}). Turn the values of a mask file into class numbers first."
            )


def _mask_of(classes: ClassNumbers, members: npt.NDArray[np.intp]) -> Mask:
    """Tell where the class is one of several; a table would need eight times the memory."""
    mask: Mask = np.equal(classes, members[0])
    for member in members[1:]:
        mask |= classes == member
    return mask


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
        one_sided = summary.num_missed + summary.num_invented
        if one_sided:
            distances = "; there, distances are the volume's diagonal" if surfaces else ""
            notes.append(
                f"{name}: nothing found in {summary.num_missed} cases that hold it, something in "
                f"{summary.num_invented} that do not{distances}."
            )
    if num_groups < 2:
        notes.append("All cases are of one patient: there are no intervals.")
    return tuple(notes)
