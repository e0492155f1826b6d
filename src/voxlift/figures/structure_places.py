"""Where structures lie in a mask, found slice by slice so that a large mask needs no copy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.core.types import Triple

Mask = npt.NDArray[Any]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class StructurePlace:
    """Where one structure lies.

    Attributes:
        num_voxels: How large it is.
        point: The voxel of the structure that is nearest to its centroid.
        first: The lowest index along each axis.
        last: The highest index along each axis.
    """

    num_voxels: int
    point: Triple
    first: Triple
    last: Triple


def count_voxels(mask: Mask) -> tuple[dict[int, int], dict[int, list[int]]]:
    """Count the voxels of each value of a mask, and list the slices where it occurs.

    Args:
        mask: Values from 0 on, (depth, height, width).

    Raises:
        DataError: If the mask does not hold whole numbers from 0 on.
    """
    if mask.dtype.kind not in "biu":
        raise DataError(f"The mask to draw is {mask.dtype}, but whole numbers are needed.")
    totals: dict[int, int] = {}
    slices: dict[int, list[int]] = {}
    for depth in range(len(mask)):
        plane = mask[depth].ravel()
        if plane.dtype.kind == "i" and plane.min() < 0:
            raise DataError(
                f"The mask to draw holds {plane.min()}, but values from 0 on are needed."
            )
        counts = np.bincount(plane.astype(np.int64))
        for value in np.flatnonzero(counts).tolist():
            totals[value] = totals.get(value, 0) + int(counts[value])
            slices.setdefault(value, []).append(depth)
    return totals, slices


def locate_structure(
    mask: Mask, values: Sequence[int], *, depths: Sequence[int], spacing_mm: Spacing
) -> StructurePlace:
    """Find the voxel of a structure that is nearest to its centroid, and the box that it fills.

    Args:
        mask: Values from 0 on, (depth, height, width).
        values: The values that stand for the structure.
        depths: The slices where it occurs.
        spacing_mm: Distance between voxels.
    """
    rows = np.zeros(mask.shape[1], dtype=np.int64)
    columns = np.zeros(mask.shape[2], dtype=np.int64)
    layers = np.zeros(len(mask), dtype=np.int64)
    for depth in depths:
        plane = values_mask(mask[depth], values)
        rows += np.count_nonzero(plane, axis=1)
        columns += np.count_nonzero(plane, axis=0)
        layers[depth] = np.count_nonzero(plane)
    profiles = (layers, rows, columns)
    centroid = [float(np.average(np.arange(len(profile)), weights=profile)) for profile in profiles]
    present = [np.flatnonzero(profile) for profile in profiles]
    first, last = (tuple(int(indices[end]) for indices in present) for end in (0, -1))
    return StructurePlace(
        num_voxels=int(layers.sum()),
        point=_nearest_voxel(mask, values, depths, centroid, spacing_mm),
        first=(first[0], first[1], first[2]),
        last=(last[0], last[1], last[2]),
    )


def values_mask(mask: Mask, values: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Tell where a mask holds one of several values."""
    found = np.zeros(mask.shape, dtype=bool)
    for value in values:
        found |= mask == value
    return found


def _nearest_voxel(
    mask: Mask,
    values: Sequence[int],
    depths: Sequence[int],
    centroid: Sequence[float],
    spacing_mm: Spacing,
) -> Triple:
    """Look through the slices from the nearest on, until none can hold a nearer voxel."""
    nearest, least = (0, 0, 0), math.inf
    for depth in sorted(depths, key=lambda index: abs(index - centroid[0])):
        away = ((depth - centroid[0]) * spacing_mm[0]) ** 2
        if away >= least:
            break
        rows, columns = np.nonzero(values_mask(mask[depth], values))
        squares = (
            away
            + ((rows - centroid[1]) * spacing_mm[1]) ** 2
            + ((columns - centroid[2]) * spacing_mm[2]) ** 2
        )
        best = int(squares.argmin())
        if squares[best] < least:
            nearest, least = (int(depth), int(rows[best]), int(columns[best])), squares[best]
    return nearest
