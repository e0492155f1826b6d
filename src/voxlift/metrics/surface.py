"""How far the surface of a found structure lies from the true one, in millimetres."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from voxlift.core.errors import ConfigError, DataError

Mask = Bool[np.ndarray, "depth height width"]
Spacing = tuple[float, float, float]

SURFACE_TOLERANCE_MM = 1.0


@dataclass(frozen=True)
class SurfaceMetrics:
    """How well two surfaces agree.

    Attributes:
        surface_dice: Share of the boundary voxels of both that have one of the other's within the
            tolerance.
        hd95_mm: 95th percentile of the distances from each surface to the other; the larger of
            the two directions.
        assd_mm: Mean of the distances from all boundary voxels of both to the other surface.
    """

    surface_dice: float
    hd95_mm: float
    assd_mm: float


def surface_metrics(
    prediction: Mask,
    truth: Mask,
    *,
    spacing_mm: Spacing,
    tolerance_mm: float = SURFACE_TOLERANCE_MM,
) -> SurfaceMetrics:
    """Measure the distances between the surfaces of two masks, as MONAI does.

    A surface is the set of the voxels of a mask that its erosion by one voxel takes away: those of
    which one of the six neighbours is outside the mask, or beyond the edge of the volume. A
    distance goes from the centre of such a voxel to the nearest such centre of the other mask.

    Empty in both: all are NaN. Empty in one: the surface Dice is 0, and the distances are the
    diagonal of the volume, more than any that can be found, so that a structure that was missed
    never improves a mean.

    Args:
        prediction: Where the structure was found.
        truth: Where it is.
        spacing_mm: Distance between voxels.
        tolerance_mm: Distance up to which two surfaces agree.

    Raises:
        ConfigError: If the tolerance is negative or not finite.
        DataError: If the masks differ in size, or the spacing is none.
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ConfigError(f"The tolerance is {tolerance_mm} mm, but has to be 0 or more.")
    if prediction.shape != truth.shape or prediction.ndim != 3:
        raise DataError(
            f"The masks have the sizes {prediction.shape} and {truth.shape}, but the same three "
            "(depth, height, width) are needed. Resample the prediction to the grid of the truth."
        )
    check_spacing(spacing_mm)
    if not prediction.any() and not truth.any():
        return SurfaceMetrics(math.nan, math.nan, math.nan)
    if not prediction.any() or not truth.any():
        diagonal_mm = math.hypot(
            *(length * step for length, step in zip(truth.shape, spacing_mm, strict=True))
        )
        return SurfaceMetrics(0.0, diagonal_mm, diagonal_mm)
    from monai.metrics import get_mask_edges, get_surface_distance

    # Beyond the box that holds both masks there is no surface, and what lies beyond an array
    # counts as outside: the box alone gives the same distances as the volume.
    box = _joint_box(prediction, truth)
    edges = get_mask_edges(prediction[box], truth[box], crop=False)
    found, true = (
        np.asarray(get_surface_distance(here, there, spacing=spacing_mm), dtype=np.float64)
        for here, there in (edges, edges[::-1])
    )
    distances_mm = np.concatenate([found, true])
    # MONAI's distances are in single precision.
    within = distances_mm <= tolerance_mm * (1 + 1e-6)
    return SurfaceMetrics(
        surface_dice=float(within.mean()),
        hd95_mm=float(max(np.percentile(found, 95), np.percentile(true, 95))),
        assd_mm=float(distances_mm.mean()),
    )


def check_spacing(spacing_mm: Spacing) -> None:
    """Refuse a spacing that is not three positive numbers.

    Raises:
        DataError: If it is none.
    """
    if len(spacing_mm) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        raise DataError(
            f"spacing_mm is {spacing_mm}; expected three positive numbers (depth, height, width)."
        )


def _joint_box(first: Mask, second: Mask) -> tuple[slice, slice, slice]:
    """Find the smallest box that holds both masks."""
    depth, height, width = (
        np.flatnonzero(first.any(axis=others) | second.any(axis=others))
        for others in ((1, 2), (0, 2), (0, 1))
    )
    return (
        slice(int(depth[0]), int(depth[-1]) + 1),
        slice(int(height[0]), int(height[-1]) + 1),
        slice(int(width[0]), int(width[-1]) + 1),
    )
