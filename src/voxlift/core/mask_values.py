"""The values that stand in a mask, counted and looked up part by part, in little memory."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError

# Scaled files give back 2.0000005 for 2.
WHOLE_TOLERANCE = 1e-3
_PART_VOXELS = 2**22
_MOST_SPREAD = 2**17


def count_values(mask: npt.NDArray[Any]) -> dict[int, int]:
    """Count the voxels of each value in a mask, in ascending order of the values.

    Raises:
        DataError: If a value is no whole number.
    """
    counts: dict[int, int] = {}
    for part in _parts(mask):
        lowest = int(part.min())
        if int(part.max()) - lowest < _MOST_SPREAD:
            found = np.bincount(part.astype(np.int64) - lowest)
            values = np.flatnonzero(found)
            found = found[values]
            values = values + lowest
        else:
            values, found = np.unique(part, return_counts=True)
        for value, count in zip(values.tolist(), found.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + count
    return dict(sorted(counts.items()))


def replace_values(mask: npt.NDArray[Any], numbers: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    """Put a number in the place of each value of a mask.

    Args:
        mask: Holds no other values than those of `numbers`.
        numbers: From values, which lie within some ten thousands, to what replaces them.
    """
    lowest, highest = min(numbers), max(numbers)
    table = np.zeros(highest - lowest + 1, dtype=np.uint8)
    for value, number in numbers.items():
        table[value - lowest] = number
    replaced = np.empty(mask.size, dtype=np.uint8)
    start = 0
    for part in _parts(mask):
        replaced[start : start + part.size] = table[part.astype(np.int64) - lowest]
        start += part.size
    return replaced.reshape(mask.shape)


def _parts(mask: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.integer[Any]]]:
    """Yield the values of a mask as whole numbers, some at a time."""
    flat = mask.ravel()
    for start in range(0, flat.size, _PART_VOXELS):
        part = flat[start : start + _PART_VOXELS]
        if part.dtype.kind == "f":
            yield _whole(part)
        else:
            yield part.view(np.uint8) if part.dtype.kind == "b" else part


def _whole(part: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    with np.errstate(invalid="ignore"):
        rounded = np.rint(part)
        # NaN and infinity are near nothing.
        broken = ~(np.abs(part - rounded) <= WHOLE_TOLERANCE)
    if broken.any():
        raise DataError(
            f"the mask holds values that are no whole numbers, such as {part[broken][0]:g}. A mask "
            "holds one class number a voxel; was it resampled, or is it a probability map? "
            "Round it, or save it again."
        )
    whole: npt.NDArray[np.int64] = rounded.astype(np.int64)
    return whole
