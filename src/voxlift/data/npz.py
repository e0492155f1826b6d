"""Named arrays out of .npz files, without unpickling and without trusting their claims of size."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.volume import Volume

MAX_ARRAY_BYTES = 2**35

# More than this no byte of a compressed entry can become.
_MOST_EXPANSION = 1032

Arrays = dict[str, npt.NDArray[Any]]

ARRAY_ERRORS = (
    ValueError,
    EOFError,
    OverflowError,
    SyntaxError,
    TypeError,
    RecursionError,
    tokenize.TokenError,
)
"""What NumPy raises for damaged arrays: it reads their headers as Python literals."""


@dataclass(frozen=True)
class NamedArray:
    """One of the arrays in an .npz file, with voxels of 1 mm."""

    path: Path
    name: str

    def read_volume(self) -> Volume:
        """Read it as a volume.

        Raises:
            DataError: If it cannot be read, or is not a finite three-dimensional array.
        """
        array = read_npz(self.path, [self.name])[self.name]
        try:
            volume = Volume(array)
            volume.check_finite()
        except DataError as error:
            raise DataError(f"{self.path}, array '{self.name}': {error}") from error
        return volume


def npz_names(path: Path) -> tuple[str, ...]:
    """List the names of the arrays in an .npz file, reading only its table of contents.

    Raises:
        DataError: If the file cannot be read as .npz.
    """
    return tuple(_load(path, names=(), listing=True))


def read_npz(path: Path, names: Collection[str]) -> Arrays:
    """Read the named arrays of an .npz file, to the end, so that its check sums are compared.

    Raises:
        DataError: If the file cannot be read as .npz, an array is missing, or one is too large.
    """
    return _load(path, names=names, listing=False)


def _load(path: Path, *, names: Collection[str], listing: bool) -> Arrays:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                member.filename.removesuffix(".npy"): member
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
            if listing:
                return dict.fromkeys(members, np.empty(0))
            missing = [name for name in names if name not in members]
            if missing:
                raise DataError(
                    f"{path} holds no array {', '.join(missing)}; it has "
                    f"{', '.join(members) or 'none'}. Is it the file that was meant?"
                )
            return {name: _read_member(path, archive, members[name]) for name in names}
    except OSError as error:
        raise DataError(
            f"{path} could not be read: {error.strerror or error}. "
            "Check the path and the right to read it."
        ) from error
    except (*ARRAY_ERRORS, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} could not be read as an .npz file of plain arrays: {error}. "
            "Copy or save it again, or leave it out (--skip-bad)."
        ) from error


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    claimed = math.prod(shape) * dtype.itemsize
    there = min(member.file_size, member.compress_size * _MOST_EXPANSION, MAX_ARRAY_BYTES)
    if min(shape, default=0) < 0 or claimed > there:
        raise DataError(
            f"{path}: its array {member.filename} claims {claimed} bytes, but {member.file_size} "
            f"are there, and at most {MAX_ARRAY_BYTES} are read. The file is damaged or too large."
        )
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        # Reading on to the end compares the check sum.
        file.read(1)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
