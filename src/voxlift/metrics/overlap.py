"""Dice: how much two masks overlap."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float64

Masks = Bool[np.ndarray, "structures *size"]


def dice_scores(
    predicted: Masks, truth: Masks, *, judged: npt.NDArray[np.bool_] | None = None
) -> Float64[np.ndarray, " structures"]:
    """Compute the Dice of each structure: twice the overlap over the sum of both volumes.

    A structure that is in neither mask has no Dice (NaN); one that is in only one has 0.

    Args:
        predicted: What was found.
        truth: What is there.
        judged: Voxels that count; all if None.

    Shape:
        `(structures, *size)` twice -> `(structures,)`.
    """
    if judged is not None:
        predicted, truth = predicted & judged, truth & judged
    axes = tuple(range(1, predicted.ndim))
    overlap = (predicted & truth).sum(axes, dtype=np.float64)
    total = predicted.sum(axes, dtype=np.float64) + truth.sum(axes, dtype=np.float64)
    scores = np.full(len(overlap), np.nan)
    np.divide(2 * overlap, total, out=scores, where=total > 0)
    return scores
