"""Arrays that are too large for the memory, in temporary files that vanish with them."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from voxlift.core.errors import DataError


def scratch_folder(folder: str | Path | None) -> Path:
    """Say where temporary files go: the folder chosen, or that of the system."""
    return Path(folder) if folder is not None else Path(tempfile.gettempdir())


def check_scratch(num_bytes: int, *, folder: str | Path | None) -> None:
    """See that temporary files have room before hours are spent.

    Args:
        num_bytes: How much they will take.
        folder: Where they go; None for the system's folder of temporary files.

    Raises:
        DataError: If the folder is not there or has less room.
    """
    if not num_bytes:
        return
    place = scratch_folder(folder)
    if not place.is_dir():
        raise DataError(
            f"{place}, the folder for temporary files, is not there. Make it, or choose another "
            "one with --scratch."
        )
    free = shutil.disk_usage(place).free
    if free < num_bytes:
        raise DataError(_too_full(place, num_bytes, free))


def scratch_array(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], *, folder: str | Path | None
) -> np.memmap:
    """Make an array of zeros in a temporary file, which is gone when the array is.

    Raises:
        DataError: If there is no room or no right to write.
    """
    place = scratch_folder(folder)
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    try:
        with tempfile.TemporaryFile(dir=place, prefix="voxlift-") as file:
            # A mapped page that finds no room kills the process: the room is taken beforehand.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    except OSError as error:
        free = shutil.disk_usage(place).free if place.is_dir() else 0
        raise DataError(
            f"{_too_full(place, num_bytes, free)} ({error.strerror or error})"
        ) from error


def _too_full(place: Path, num_bytes: int, free: int) -> str:
    return (
        f"Temporary files need {num_bytes / 1e9:.1f} GB in {place}, where {free / 1e9:.1f} GB are "
        "free. Free some space, or choose another folder with --scratch (or the environment "
        "variable TMPDIR)."
    )
