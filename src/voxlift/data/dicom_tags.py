"""Single tags out of DICOM files that may be damaged.

What pydicom says of a damaged file, and what a damaged tag holds, may be bytes of any other tag, so
of the patient's name: neither gets into an error.
"""

import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

_SMALL_BYTES = 2**12


class BoundedReader(io.BufferedReader):
    """A file that makes no room for more bytes than it has, whatever length a tag claims.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._num_bytes = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes, or those that are left."""
        if size is not None and size > _SMALL_BYTES:
            size = min(size, max(0, self._num_bytes - self.tell()))
        return super().read(size)


def read_tags(path: Path, names: Sequence[str]) -> "Dataset":
    """Read some tags of a DICOM file.

    Raises:
        DataError: If its header is damaged.
    """
    import pydicom

    try:
        # Its warnings would tell the values that it does not like.
        with pydicom.config.disable_value_validation():
            with BoundedReader(path) as file:
                tags = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(names))
            # Values are decoded when they are asked for.
            tags.decode()
            tags.file_meta.decode()
    except damages() as error:
        raise DataError(
            f"{path}: its DICOM header is damaged ({type(error).__name__}). Copy the series again."
        ) from None
    return tags


def damages() -> tuple[type[Exception], ...]:
    """List what pydicom raises for damaged files."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        AttributeError,
        BytesLengthException,
        EOFError,
        InvalidDicomError,
        LookupError,
        NotImplementedError,
        OverflowError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    )


def numbers(where: object, tags: "Dataset", name: str, count: int) -> Float64[np.ndarray, " count"]:
    """Read a tag of several numbers, in doubles.

    Args:
        where: What errors call the image.
        tags: Has the tag.
        name: The tag.
        count: How many numbers it has to hold.

    Raises:
        DataError: If it is missing, or holds anything else.
    """
    try:
        # A damaged value may fail when it is taken out, too.
        found = np.array([float(part) for part in tags.get(name, ())], dtype=np.float64)
    except damages():
        found = np.empty(0)
    if len(found) != count or not np.isfinite(found).all():
        what = "something else" if name in tags else "missing"
        raise DataError(
            f"{where}: its tag {name} is {what}; expected {count} numbers. Without it "
            "the slice has no place in the patient. Export the series again."
        )
    return found


def number(where: object, tags: "Dataset", name: str) -> float | None:
    """Read a tag of one number, None where it is missing.

    Args:
        where: What errors call the image.
        tags: May have the tag.
        name: The tag.

    Raises:
        DataError: If it holds anything else.
    """
    try:
        value = tags.get(name)
        if value is None or value == "":
            return None
        found = float(value)
    except damages():
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{where}: its tag {name} is not a number. Export the series again.")
    return found
