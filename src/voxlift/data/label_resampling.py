"""Masks on another grid without stairs: a new voxel takes the class with the most weight near it.

The weights are those of a Gaussian, as in SimpleITK's label-Gaussian interpolation: each class is
blurred as if it were an image of zeros and ones, and the highest value wins. No class is made up
between two others. Structures that are thinner than a voxel of the coarser grid can vanish.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64
from scipy.sparse import csr_array

from voxlift.core.errors import DataError

# Standard deviation in voxels of the coarser of the two grids, and where the Gaussian is cut off.
_SIGMA = 0.5
_REACH = 4.0
_BLOCK_VOXELS = 64
_MAX_CLASSES = 1024
_ALIGNED = 1e-6
_ROUNDING = 1e-5


def resample_labels(
    array: npt.NDArray[Any], places: Sequence[Float64[np.ndarray, " new"]]
) -> npt.NDArray[Any]:
    """Sample a mask on a straight grid.

    The work is done block by block, so that beside the result little memory is needed, and blocks
    within one structure cost nothing. Where two classes have the same weight, the smaller number
    wins.

    Args:
        array: The mask, (depth, height, width).
        places: For each axis, where the new voxels are, counted in old ones, at even distances.

    Raises:
        DataError: If there are too many values for a mask.
    """
    result = np.empty([len(along) for along in places], array.dtype)
    sigmas = _sigmas(places, array.shape)
    for new in _blocks(result.shape):
        weights, old = [], []
        for along, part, sigma, size in zip(places, new, sigmas, array.shape, strict=True):
            matrix, first = _weights(along[part], sigma=sigma, size=size)
            weights.append(matrix)
            old.append(slice(first, first + matrix.shape[1]))
        result[new] = _decide(array[tuple(old)], weights)
    return result


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    starts = [range(0, size, _BLOCK_VOXELS) for size in shape]
    for corner in product(*starts):
        yield tuple(slice(start, start + _BLOCK_VOXELS) for start in corner)


def _sigmas(
    places: Sequence[Float64[np.ndarray, " new"]], shape: tuple[int, ...]
) -> tuple[float, ...]:
    """How far to blur along each axis, in old voxels; not at all where the grids are aligned."""
    steps, aligned = [], True
    for along, size in zip(places, shape, strict=True):
        step = float(along[1] - along[0]) if len(along) > 1 else 1.0
        inside = along.clip(0, size - 1)
        aligned &= abs(step - 1) < _ALIGNED and np.abs(inside - inside.round()).max() < _ALIGNED
        steps.append(step)
    return tuple(0.0 if aligned else _SIGMA * max(step, 1.0) for step in steps)


def _weights(
    places: Float64[np.ndarray, " new"], *, sigma: float, size: int
) -> tuple[csr_array, int]:
    """How much each old voxel counts for each new one, and which old voxel is the first."""
    places = places.clip(0, size - 1)
    reach = _REACH * sigma
    first = max(int(np.ceil(places.min() - reach - 0.5)), 0)
    last = min(int(np.floor(places.max() + reach + 0.5)), size - 1)
    away = np.abs(places[:, None] - np.arange(first, last + 1))
    # Half way between two voxels of an aligned grid there is nothing.
    weights = np.exp(-(away**2) / (2 * max(sigma, 1e-3) ** 2))
    weights[away > max(reach, 0.5)] = 0
    return csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)), first


def _decide(mask: npt.NDArray[Any], weights: Sequence[csr_array]) -> npt.NDArray[Any]:
    classes = np.unique(mask)
    if len(classes) > _MAX_CLASSES:
        raise DataError(
            f"Within {mask.shape} voxels there are {len(classes)} different values, more than the "
            f"{_MAX_CLASSES} of a mask. Resample an image by method 'linear'."
        )
    shape = tuple(matrix.shape[0] for matrix in weights)
    decided = np.full(shape, classes[0])
    if len(classes) == 1:
        return decided
    # What is left over is the weight of the first class. Rounding errors must not decide.
    left = np.ones(shape, np.float32)
    highest = np.zeros(shape, np.float32)
    for one in classes[1:]:
        weight = _blur(mask == one, weights)
        left -= weight
        wins = weight > highest + _ROUNDING
        decided[wins] = one
        np.maximum(highest, weight, out=highest)
    decided[left >= highest - _ROUNDING] = classes[0]
    return decided


def _blur(member: npt.NDArray[np.bool_], weights: Sequence[csr_array]) -> npt.NDArray[np.float32]:
    blurred = member.astype(np.float32)
    for matrix in weights:
        # One axis after the other comes first, is blurred and goes to the end.
        flat = matrix @ blurred.reshape(len(blurred), -1)
        blurred = np.ascontiguousarray(np.moveaxis(flat.reshape(-1, *blurred.shape[1:]), 0, -1))
    return blurred
