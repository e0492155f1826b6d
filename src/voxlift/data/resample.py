"""Volumes on another grid: another voxel spacing, or the grid of another volume.

The axes stay where they are; only the spacing, the size and the origin change. Values between two
voxels are taken in proportion (linear), from the nearer one (nearest, for masks) or from the class
with the most weight around (label, for masks, without stairs). A place beyond the centres of the
outermost voxels has the value of the outermost voxel.

The new volume is made slab by slab: beside it, no more memory is needed than for a few slabs
(some 100 MB), whatever the size of the old one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.label_resampling import resample_labels
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import MAX_VOXELS

Method = Literal["linear", "nearest", "label"]
_DIRECTION_TOLERANCE = 1e-4
_SLAB_VOXELS = 2**22


def resample(
    volume: Volume, spacing_mm: tuple[float, float, float], *, method: Method = "linear"
) -> Volume:
    """Bring a volume to another voxel spacing.

    The new grid has the same centre as the old one and, to the nearest whole voxel, the same
    extent. Where the new voxels are the larger ones, values are not averaged over them.

    Args:
        volume: An image, or a mask.
        spacing_mm: Wanted distance of voxel centres along depth, height and width.
        method: "linear" for images: whole numbers become 32-bit floats. "nearest" and "label" for
            masks: the type stays, and no value appears that was not there. "label" has smooth
            borders where "nearest" has stairs, but what is thinner than a voxel can vanish.

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
    if method not in get_args(Method):
        known = ", ".join(repr(name) for name in get_args(Method))
        raise ConfigError(f"method is {method!r}; expected one of {known}.")


def _sample(
    volume: Volume,
    size_voxels: tuple[int, int, int],
    spacing_mm: Float64[np.ndarray, " 3"],
    start_mm: Float64[np.ndarray, " 3"],
    method: Method,
) -> Volume:
    """Sample a straight grid that begins `start_mm` from the first voxel."""
    places = [
        (start_mm[axis] + np.arange(size_voxels[axis]) * spacing_mm[axis]) / volume.spacing_mm[axis]
        for axis in range(3)
    ]
    if method == "label":
        array = resample_labels(volume.array, places)
    elif method == "nearest":
        array = _sample_nearest(volume.array, places)
    else:
        array = _sample_linear(volume.array, places)
    depth, height, width = spacing_mm.tolist()
    shift = volume.direction[:, ::-1] @ start_mm
    x, y, z = (np.array(volume.origin_mm) + shift).tolist()
    return replace(volume, array=array, spacing_mm=(depth, height, width), origin_mm=(x, y, z))


def _slabs(old: tuple[int, ...], new: tuple[int, ...]) -> Iterator[slice]:
    """Cut the new depth so that neither the slab nor what it is made from is large."""
    voxels_per_slice = max(new[1] * new[2], old[1] * old[2] * -(-old[0] // new[0]))
    thickness = max(1, _SLAB_VOXELS // voxels_per_slice)
    for start in range(0, new[0], thickness):
        yield slice(start, min(start + thickness, new[0]))


def _sample_nearest(array: np.ndarray, places: Sequence[Float64[np.ndarray, " new"]]) -> np.ndarray:
    # Half way between two voxels goes to the later one; rounding errors must not decide.
    depth, height, width = (
        np.floor(along + 0.5 + 1e-9).astype(int).clip(0, size - 1)
        for along, size in zip(places, array.shape, strict=True)
    )
    result = np.empty((len(depth), len(height), len(width)), array.dtype)
    for slab in _slabs(array.shape, result.shape):
        result[slab] = array.take(depth[slab], axis=0).take(height, axis=1).take(width, axis=2)
    return result


def _sample_linear(array: np.ndarray, places: Sequence[Float64[np.ndarray, " new"]]) -> np.ndarray:
    places = [along.clip(0, size - 1) for along, size in zip(places, array.shape, strict=True)]
    shape = tuple(len(along) for along in places)
    dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float32
    result = np.empty(shape, dtype)
    # The axis that shrinks most goes first: there is less to do for the others.
    axes = sorted(range(3), key=lambda axis: shape[axis] / array.shape[axis])
    for slab in _slabs(array.shape, shape):
        depth = places[0][slab]
        first, last = int(depth[0]), min(int(depth[-1]) + 1, array.shape[0] - 1)
        part = array[first : last + 1].astype(dtype)
        along = [depth - first, places[1], places[2]]
        for axis in axes:
            part = _pick_linear(part, along[axis], axis)
        result[slab] = part
    return result


def _pick_linear(array: np.ndarray, places: Float64[np.ndarray, " new"], axis: int) -> np.ndarray:
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
