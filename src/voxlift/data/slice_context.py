"""The slices about a key slice at one distance, whatever the distance in the files.

Positions are counted in slices of the file and may lie between two of them.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from voxlift.core.detection_settings import MAX_SLICES, MIN_SLICES
from voxlift.core.errors import ConfigError, DataError

# Nearer than this to a stored slice, in slices, is that slice.
_ROUNDING = 1e-6


def context_positions(
    num_slices: int, *, interval_mm: float | None, stored_interval_mm: float
) -> Float64[np.ndarray, " slices"]:
    """Tell where the slices of a context lie, counted in stored slices from the key slice.

    The key slice is number `num_slices // 2`; an even number has one more slice before it than
    after.

    Args:
        num_slices: How many slices, 3 to 27.
        interval_mm: Distance between two of them; None takes the stored slices.
        stored_interval_mm: Distance between two stored slices.

    Raises:
        ConfigError: If the number or the interval is out of range.
        DataError: If the stored interval is not positive.
    """
    if not MIN_SLICES <= num_slices <= MAX_SLICES:
        raise ConfigError(
            f"num_slices is {num_slices}; give a number from {MIN_SLICES} to {MAX_SLICES}."
        )
    if interval_mm is not None and not (np.isfinite(interval_mm) and interval_mm > 0):
        raise ConfigError(f"The slice interval is {interval_mm} mm, but has to be positive.")
    if not (np.isfinite(stored_interval_mm) and stored_interval_mm > 0):
        raise DataError(
            f"The stored slices are {stored_interval_mm} mm apart, but the distance has to be "
            "positive. Correct it in the annotations."
        )
    step = 1.0 if interval_mm is None else interval_mm / stored_interval_mm
    positions = np.asarray(step * (np.arange(num_slices) - num_slices // 2), dtype=np.float64)
    nearest = np.rint(positions)
    near = np.abs(positions - nearest) < _ROUNDING
    positions[near] = nearest[near]
    return positions


def interpolate(
    read_slice: Callable[[int], npt.NDArray[np.generic]],
    positions: Float64[np.ndarray, " slices"],
    *,
    first: int,
    last: int,
) -> Float32[np.ndarray, "slices height width"]:
    """Read slices at any positions, each weighed of its two neighbours by its distance to them.

    Beyond the first and the last slice, that slice repeats.

    Args:
        read_slice: Reads the stored slice of a number; it is asked once for each.
        positions: Where the slices lie, in numbers of stored slices.
        first: Number of the first stored slice.
        last: Number of the last one.

    Raises:
        DataError: If the slices that are read have different sizes.
    """
    inside = positions.clip(first, last)
    below = np.floor(inside).astype(int)
    shares = inside - below
    above = below + (shares > 0)
    stored = {
        number: np.asarray(read_slice(number), dtype=np.float32)
        for number in sorted({*below.tolist(), *above.tolist()})
    }
    sizes = {one.shape for one in stored.values()}
    if len(sizes) > 1:
        raise DataError(f"Neighbouring slices have different sizes: {sorted(sizes)}.")
    mixed = [
        stored[low]
        if low == high
        else stored[low] + np.float32(share) * (stored[high] - stored[low])
        for low, high, share in zip(below.tolist(), above.tolist(), shares.tolist(), strict=True)
    ]
    return np.stack(mixed)


def unbroken_run(numbers: set[int], key: int) -> tuple[int, int]:
    """Return the first and the last of the consecutive numbers about `key`.

    Args:
        numbers: Numbers of the stored slices, `key` among them.
        key: Number of the key slice.
    """
    first = last = key
    while first - 1 in numbers:
        first -= 1
    while last + 1 in numbers:
        last += 1
    return first, last
