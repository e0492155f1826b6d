"""Volumes out of .npy and .npz files, which hold an array and perhaps its geometry."""

import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.npz import ARRAY_ERRORS, npz_names, read_npz
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import check_size

logger = logging.getLogger(__name__)

_ARRAY_NAMES = ("voxel", "image", "volume")
_GEOMETRY = ("spacing_mm", "origin_mm", "direction")

_Array = npt.NDArray[Any]


def read_numpy_channels(path: Path) -> tuple[Volume, ...]:
    """Read an .npy or .npz file, a volume for each channel.

    The array is (depth, height, width) or (channels, depth, height, width). In an .npz file it is
    the one named `voxel`, `image` or `volume`, else the only one of so many dimensions; its
    geometry is in `spacing_mm`, `origin_mm` and `direction`, where these are there.

    Raises:
        DataError: If the file cannot be read, or it is not clear which array is the volume.
    """
    if path.name.lower().endswith(".npy"):
        array, geometry = _read_npy(path)
    else:
        array, geometry = _read_npz(path)
    if "spacing_mm" not in geometry:
        logger.info("%s states no geometry: a spacing of 1 mm is taken.", path.name)
    check_size(path, array.shape)
    channels = array if array.ndim == 4 else (array,)
    return tuple(Volume(channel, **cast("dict[str, Any]", geometry)) for channel in channels)


def _read_npy(path: Path) -> tuple[_Array, dict[str, _Array]]:
    try:
        # Mapping the file compares its size with the header before memory is taken.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(mapped, dtype=mapped.dtype.newbyteorder("="), order="C"), {}
    except ARRAY_ERRORS as error:
        raise DataError(
            f"{path} could not be read as a NumPy file of a plain array: {error}. "
            "Copy or save it again, or leave it out (--skip-bad)."
        ) from error


def _read_npz(path: Path) -> tuple[_Array, dict[str, _Array]]:
    names = npz_names(path)
    named = [name for name in _ARRAY_NAMES if name in names]
    geometry = read_npz(path, [name for name in _GEOMETRY if name in names])
    wanted = named[:1] or [name for name in names if name not in geometry]
    arrays = read_npz(path, wanted)
    if len(arrays) > 1:
        for dimensions in (3, 4):
            solid = [name for name, array in arrays.items() if array.ndim == dimensions]
            if len(solid) == 1:
                return arrays[solid[0]], geometry
            if solid:
                break
    if len(arrays) == 1:
        return next(iter(arrays.values())), geometry
    found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
    raise DataError(
        f"{path}: which array is the volume? It holds {found}. Keep one 3D array, or name it "
        f"{' or '.join(_ARRAY_NAMES)}."
    )
