"""Bring slices that come one after the other to another grid, without holding them all.

A prediction is made at the network's voxel spacing and has to be answered on the grid of the file.
Along depth, a slice of that grid lies between two slices of the network's: only these are held.
The result is that of `voxlift.data.resample.resample_like`, linear.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.data.volume import Volume
from voxlift.inference.sliding_window import SliceProbabilities


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the new voxels lie along one axis: between which old ones, and how far."""

    below: npt.NDArray[np.int64]
    above: npt.NDArray[np.int64]
    share: npt.NDArray[np.float32]


def resample_slices(
    slices: Iterator[SliceProbabilities], *, grid: Volume, like: Volume
) -> Iterator[SliceProbabilities]:
    """Interpolate slices linearly on the grid of another volume.

    A place beyond the outermost voxels has their value.

    Args:
        slices: From the first to the last slice of `grid`.
        grid: The grid that they are on; its voxels are not looked at.
        like: The grid wanted; it has the same directions.

    Yields:
        The slices of `like`, from the first to the last.
    """
    if np.allclose(grid.affine, like.affine) and grid.size_voxels == like.size_voxels:
        yield from slices
        return
    depth, height, width = _places(grid, like)
    # The number of each slice held, and the slice in the wanted plane.
    held: dict[int, SliceProbabilities] = {}
    reached = -1
    for below, above, share in zip(depth.below, depth.above, depth.share, strict=True):
        while reached < above:
            reached += 1
            part = next(slices)
            if reached >= below:
                held[reached] = _interpolate(_interpolate(part, height, axis=1), width, axis=2)
        held = {number: part for number, part in held.items() if number >= below}
        yield held[below] + (held[above] - held[below]) * share
    # Slices beyond the wanted grid are computed all the same, so that progress comes to its end.
    for _ in slices:
        pass


def _places(grid: Volume, like: Volume) -> list[_Places]:
    between = np.array(like.origin_mm) - np.array(grid.origin_mm)
    start_mm = grid.direction[:, ::-1].T @ between
    found = []
    for axis in range(3):
        size = grid.size_voxels[axis]
        places = start_mm[axis] + np.arange(like.size_voxels[axis]) * like.spacing_mm[axis]
        places = (places / grid.spacing_mm[axis]).clip(0, size - 1)
        below = np.floor(places).astype(np.int64)
        share = (places - below).astype(np.float32)
        found.append(_Places(below, np.minimum(below + 1, size - 1), share))
    return found


def _interpolate(part: SliceProbabilities, places: _Places, *, axis: int) -> SliceProbabilities:
    shape = [1, 1, 1]
    shape[axis] = -1
    lower: SliceProbabilities = part.take(places.below, axis=axis)
    difference = part.take(places.above, axis=axis)
    difference -= lower
    difference *= places.share.reshape(shape)
    lower += difference
    return lower
