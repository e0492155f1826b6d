"""Whether a volume's file holds all that its header promises, checked before it is read.

SimpleITK reads compressed NRRD or MetaImage data with a wrong check sum without a word. The checks
here read headers and decompress to the end, in little memory. NIfTI has them in its own file.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

from voxlift.core.errors import DataError

MAX_VOXELS = 2**31
_CHUNK_BYTES = 2**20
_MAX_TEXT_HEADER_BYTES = 2**20


def check_size(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse a header that claims more voxels than any scan has, before memory is taken for them.

    Raises:
        DataError: If the size is no size, or beyond `MAX_VOXELS`.
    """
    if not shape or min(shape) < 1:
        raise DataError(f"{path}: its header states the size {shape}; there is nothing to read.")
    if math.prod(shape) > MAX_VOXELS:
        raise DataError(
            f"{path}: its header states {' x '.join(map(str, shape))} voxels, more than the "
            f"{MAX_VOXELS} that are read. The header is damaged, or the volume has to be split."
        )


def check_meta(path: Path) -> None:
    """Check that a MetaImage (.mha, or .mhd with its raw file) holds all its voxels.

    Raises:
        DataError: If the header is broken, or the data are missing, cut or corrupt.
    """
    with path.open("rb") as file:
        fields = _meta_fields(path, file)
        data_start = file.tell()
    shape = _sizes(path, fields.get("dimsize", ""))
    check_size(path, shape)
    spacing = fields.get("elementspacing", "")
    if any(part.startswith("-") for part in spacing.split()):
        # SimpleITK would turn the axis round.
        raise DataError(
            f"{path}: ElementSpacing is {spacing!r}; expected positive numbers. "
            "Set it right in the file."
        )
    name = fields["elementdatafile"]
    if name.upper().startswith("LIST") or "%" in name:
        raise DataError(
            f"{path}: its voxels are spread over several files ({name}). "
            "Save it as one .mha or .nii.gz file."
        )
    data = path if name.upper() == "LOCAL" else path.parent / name
    if not data.is_file():
        raise DataError(f"{path}: the file of its voxels, {data}, is not there. Put it beside it.")
    element = fields.get("elementtype", "").upper()
    if element not in _META_BYTES:
        raise DataError(
            f"{path}: ElementType is {element!r}; expected one of {', '.join(_META_BYTES)}."
        )
    channels = int(fields.get("elementnumberofchannels", "1"))
    promised = math.prod(shape) * _META_BYTES[element] * channels
    with data.open("rb") as file:
        file.seek(data_start if data == path else 0)
        if fields.get("compresseddata", "false").lower() == "true":
            found = _count_compressed(path, _chunks(file), zlib.MAX_WBITS)
        else:
            found = data.stat().st_size - file.tell()
    check_count(path, found=found, promised=promised)


_META_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}


def _meta_fields(path: Path, file: BufferedIOBase) -> dict[str, str]:
    """Read the text header up to and with its last line, which names the data."""
    fields: dict[str, str] = {}
    while file.tell() < _MAX_TEXT_HEADER_BYTES:
        line = file.readline(_MAX_TEXT_HEADER_BYTES)
        key, sign, value = line.decode("utf-8", errors="replace").partition("=")
        if not sign:
            break
        fields[key.strip().lower()] = value.strip()
        if "elementdatafile" in fields:
            return fields
    raise damaged(path, "its MetaImage header has no line 'ElementDataFile = ...'")


def check_nrrd(path: Path) -> None:
    """Check the size that a NRRD header states and the check sum of its compressed data.

    That all voxels are there is checked by SimpleITK.

    Raises:
        DataError: If the header is broken or the data are corrupt.
    """
    with path.open("rb") as file:
        if not file.readline(16).startswith(b"NRRD"):
            raise damaged(path, "it does not begin with 'NRRD'")
        fields = _nrrd_fields(path, file)
        check_size(path, _sizes(path, fields.get("sizes", "")))
        attached = "data file" not in fields and "datafile" not in fields
        if attached and fields.get("encoding", "").lower() in {"gzip", "gz"}:
            count_gzip(path, file)


def _nrrd_fields(path: Path, file: BufferedIOBase) -> dict[str, str]:
    """Read the text header up to and with the empty line that ends it."""
    fields: dict[str, str] = {}
    while file.tell() < _MAX_TEXT_HEADER_BYTES:
        line = file.readline(_MAX_TEXT_HEADER_BYTES)
        text = line.decode("utf-8", errors="replace").strip()
        if not text:
            # A header without data of its own may simply end.
            return fields
        if not text.startswith("#"):
            key, _, value = text.partition(":")
            fields[key.strip().lower()] = value.strip().removeprefix("=")
    raise damaged(path, "its NRRD header has no end")


def _sizes(path: Path, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split())
    except ValueError as error:
        raise damaged(path, f"its header states the size {text!r}") from error


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
