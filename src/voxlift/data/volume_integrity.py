"""Whether a volume's file holds all that its header promises, checked before it is read.

What the checks of NIfTI, NRRD and MetaImage have in common: numbers in headers that may be
anything, and streams that are decompressed to their end, in little memory.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

from voxlift.core.errors import DataError

MAX_VOXELS = 2**31
MAX_HEADER_BYTES = 2**20
_MAX_DIMENSIONS = 16
_CHUNK_BYTES = 2**20


def check_size(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse a header that claims more voxels than any scan has, before memory is taken for them.

    Raises:
        DataError: If the size is no size, or beyond `MAX_VOXELS`.
    """
    if not shape or min(shape) < 1:
        raise DataError(f"{path}: its header states the size {shape}; there is nothing to read.")
    if len(shape) > _MAX_DIMENSIONS:
        raise damaged(path, f"its header states {len(shape)} dimensions")
    if math.prod(shape) > MAX_VOXELS:
        raise DataError(
            f"{path}: its header states {' x '.join(map(str, shape))} voxels, more than the "
            f"{MAX_VOXELS} that are read. The header is damaged, or the volume has to be split."
        )


def parse_integers(
    path: Path, name: str, text: str, *, count: int | None = None
) -> tuple[int, ...]:
    """Read a field of a text header that holds whole numbers.

    Raises:
        DataError: If it holds anything else, or another number of them.
    """
    try:
        numbers = tuple(int(part) for part in text.split())
    except ValueError as error:
        raise damaged(path, f"{name} is {text[:100]!r}, not whole numbers") from error
    if len(numbers) != (count or len(numbers)):
        raise damaged(path, f"{name} is {text[:100]!r}; expected {count} number(s)")
    return numbers


def parse_numbers(path: Path, name: str, text: str, *, count: int) -> tuple[float, ...]:
    """Read a field of a text header that holds numbers, NaN and infinity among them.

    Raises:
        DataError: If it holds anything else, or another number of them.
    """
    try:
        numbers = tuple(float(part) for part in text.split())
    except ValueError as error:
        raise damaged(path, f"{name} is {text[:100]!r}, not numbers") from error
    if len(numbers) != count:
        raise damaged(path, f"{name} is {text[:100]!r}; expected {count} number(s)")
    return numbers


def check_positive(path: Path, name: str, spacing: tuple[float, ...]) -> None:
    """Refuse a voxel spacing that is none.

    Raises:
        DataError: If a number is not positive and finite.
    """
    if not all(0 < step < math.inf for step in spacing):
        raise DataError(
            f"{path}: {name} is {spacing}; expected positive numbers. Set it right in the file."
        )


def _chunks(file: BufferedIOBase) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def count_gzip(path: Path, file: BufferedIOBase) -> int:
    """Count the bytes that decompress from where the file stands to its end.

    Raises:
        DataError: If the stream is cut, or the check sums at its end are others.
    """
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            return sum(len(chunk) for chunk in _chunks(stream))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, f"it cannot be decompressed to its end ({error})") from error


def _count_compressed(path: Path, chunks: Iterator[bytes], window_bits: int) -> int:
    decompressor = zlib.decompressobj(window_bits)
    count = 0
    try:
        for chunk in chunks:
            left = chunk
            while left:
                count += len(decompressor.decompress(left, _CHUNK_BYTES))
                left = decompressor.unconsumed_tail
            if decompressor.eof:
                return count
    except zlib.error as error:
        raise damaged(path, f"it cannot be decompressed to its end ({error})") from error
    raise damaged(path, "its compressed data end too early")


def count_zlib(path: Path, file: BufferedIOBase) -> int:
    """Count the bytes that decompress, without the header of gzip, from where the file stands.

    Raises:
        DataError: If the stream is cut, or the check sum at its end is another.
    """
    decompressor = zlib.decompressobj()
    count = 0
    try:
        for chunk in _chunks(file):
            left = chunk
            while left:
                count += len(decompressor.decompress(left, _CHUNK_BYTES))
                left = decompressor.unconsumed_tail
            if decompressor.eof:
                return count
    except zlib.error as error:
        raise damaged(path, f"it cannot be decompressed to its end ({error})") from error
    raise damaged(path, "its compressed data end too early")


def check_count(path: Path, *, found: int, promised: int) -> None:
    """Refuse a file that holds fewer bytes of voxels than its header promises.

    Raises:
        DataError: If it does.
    """
    if found < promised:
        raise damaged(path, f"it holds {found} of the {promised} bytes that its header promises")


def damaged(path: Path, what: str) -> DataError:
    """Make the error for a file that is not whole, with the remedy."""
    return DataError(
        f"{path} is damaged or cut off: {what}. Copy it again from its source, "
        "or leave it out (--skip-bad)."
    )


def several_channels(path: Path, count: int) -> DataError:
    """Make the error for a file of several channels where one volume is wanted."""
    return DataError(
        f"{path}: it has four dimensions or several values a voxel, {count} channels or points in "
        "time; expected three dimensions (depth, height, width) with one value. Read it with "
        "read_channels, which gives a volume for each, or save the one that is meant as a file of "
        "its own."
    )
