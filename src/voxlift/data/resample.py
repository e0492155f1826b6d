"""Volumes on another grid: another voxel spacing, or the grid of another volume.

The axes stay where they are; only the spacing, the size and the origin change. Values between two
voxels are taken in proportion (linear) or from the nearer one (nearest, for masks). A place beyond
the centres of the outermost voxels has the value of the outermost voxel.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import MAX_VOXELS

Method = Literal["linear", "nearest"]
_DIRECTION_TOLERANCE = 1e-4


def resample(
    volume: Volume, spacing_mm: tuple[float, float, float], *, method: Method = "linear"
) -> Volume:
    """Bring a volume to another voxel spacing.

    The new grid has the same centre as the old one and, to the nearest whole voxel, the same
    extent. Where the new voxels are the larger ones, values are not averaged over them.

    Args:
        volume: An image, or a mask.
        spacing_mm: Wanted distance of voxel centres along depth, height and width.
        method: "linear" for images: whole numbers become 32-bit floats. "nearest" for masks: the
            type stays.

    Returns:
        The volume with exactly this spacing; the same object if it has it already.

    Raises:
        ConfigError: If the spacing is not three positive numbers, or the method is unknown.
        DataError: If the result would be too large.
    """
    _check_method(method)
    if len(spacing_mm) != 3 or not all(np.isfinite(spacing_mm)) or min(spacing_mm) <= 0:
        raise ConfigError(
            f"spacing_mm is {spacing_mm}; expected three positive numbers (depth, height, width)."
        )
    if np.allclose(spacing_mm, volume.spacing_mm, rtol=1e-5, atol=0):
        return volume
    old = np.array(volume.spacing_mm)
    new = np.array(spacing_mm, dtype=np.float64)
    size = np.maximum(np.round(np.array(volume.array.shape) * old / new), 1)
    if size.prod() > MAX_VOXELS:
        raise DataError(
            f"A volume of {volume.size_voxels} voxels of {volume.spacing_mm} mm would have "
            f"{size.prod():.3g} voxels at {spacing_mm} mm, more than {MAX_VOXELS}. "
            "Choose a larger spacing."
        )
    # Both grids have their middle in the same place.
    start_mm = ((np.array(volume.array.shape) - 1) * old - (size - 1) * new) / 2
    depth, height, width = size.astype(int).tolist()
    return _sample(volume, (depth, height, width), new, start_mm, method)


def resample_like(volume: Volume, *, like: Volume, method: Method = "linear") -> Volume:
    """Bring a volume to the grid of another one, such as a mask back to the scan it belongs to.

    Args:
        volume: An image, or a mask.
        like: Has the wanted size, spacing and origin, and the same direction.
        method: As for `resample`.

    Raises:
        ConfigError: If the method is unknown.
        DataError: If the axes point elsewhere, or the grid reaches beyond the volume by more than
            a voxel of either.
    """
    _check_method(method)
    if np.abs(volume.direction - like.direction).max() > _DIRECTION_TOLERANCE:
        raise DataError(
            "The two volumes do not have the same direction: "
            f"{volume.direction.round(4).tolist()} and {like.direction.round(4).tolist()}. "
            "Bring both to the canonical order of axes first."
        )
    old, new = np.array(volume.spacing_mm), np.array(like.spacing_mm)
    between = np.array(like.origin_mm) - np.array(volume.origin_mm)
    start_mm = volume.direction[:, ::-1].T @ between
    end_mm = start_mm + (np.array(like.array.shape) - 1) * new
    beyond = np.maximum(-start_mm, end_mm - (np.array(volume.array.shape) - 1) * old)
    if (beyond > np.maximum(old, new) * (1 + 1e-6)).any():
        raise DataError(
            f"The wanted grid reaches {beyond.max():.2f} mm beyond the volume, where there is "
            "nothing to sample. The two do not belong together, or one was cropped."
        )
    return replace(
        _sample(volume, like.size_voxels, new, start_mm, method),
        spacing_mm=like.spacing_mm,
        origin_mm=like.origin_mm,
        direction=like.direction,
    )


def _check_method(method: str) -> None:
    if method not in ("linear", "nearest"):
        raise ConfigError(f"method is {method!r}; expected 'linear' or 'nearest'.")


def _sample(
    volume: Volume,
    size_voxels: tuple[int, int, int],
    spacing_mm: Float64[np.ndarray, " 3"],
    start_mm: Float64[np.ndarray, " 3"],
    method: Method,
) -> Volume:
    """Sample a straight grid that begins `start_mm` from the first voxel, axis after axis."""
    array = volume.array
    # The axis that shrinks most goes first: there is less to do for the others.
    for axis in sorted(range(3), key=lambda one: size_voxels[one] / volume.array.shape[one]):
        places = (start_mm[axis] + np.arange(size_voxels[axis]) * spacing_mm[axis]) / (
            volume.spacing_mm[axis]
        )
        pick = _pick_linear if method == "linear" else _pick_nearest
        array = pick(array, places, axis)
    depth, height, width = spacing_mm.tolist()
    shift = volume.direction[:, ::-1] @ start_mm
    x, y, z = (np.array(volume.origin_mm) + shift).tolist()
    return replace(
        volume,
        array=np.ascontiguousarray(array),
        spacing_mm=(depth, height, width),
        origin_mm=(x, y, z),
    )


def _pick_nearest(array: np.ndarray, places: Float64[np.ndarray, " new"], axis: int) -> np.ndarray:
    # Half way between two voxels goes to the later one; rounding errors must not decide.
    index = np.floor(places + 0.5 + 1e-9).astype(int).clip(0, array.shape[axis] - 1)
    return array.take(index, axis=axis)


def _pick_linear(array: np.ndarray, places: Float64[np.ndarray, " new"], axis: int) -> np.ndarray:
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    places = places.clip(0, array.shape[axis] - 1)
    below = np.floor(places).astype(int)
    above = np.minimum(below + 1, array.shape[axis] - 1)
    share = (places - below).astype(array.dtype)
    shape = [1, 1, 1]
    shape[axis] = -1
    lower: np.ndarray = array.take(below, axis=axis)
    difference = array.take(above, axis=axis)
    difference -= lower
    difference *= share.reshape(shape)
    lower += difference
    return lower
