"""How well each structure was found in one case: Dice, surfaces and volume."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Integer
from pydantic import BaseModel, ConfigDict

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import IGNORED, LabelScheme
from voxlift.metrics.bootstrap import Number
from voxlift.metrics.surface import (
    SURFACE_TOLERANCE_MM,
    Mask,
    Spacing,
    check_spacing,
    surface_metrics,
)

ClassNumbers = Integer[np.ndarray, "depth height width"]
StructureMasks = Bool[np.ndarray, "structures depth height width"]


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
