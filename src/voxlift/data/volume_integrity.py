"""Whether a volume's file holds all that its header promises, checked before it is read.

SimpleITK reads a NIfTI file that was cut off, and compressed NRRD or MetaImage data with a wrong
check sum, without a word. The checks here read headers and decompress to the end, in little memory.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from voxlift.core.errors import DataError

MAX_VOXELS = 2**31
_CHUNK_BYTES = 2**20
_MAX_TEXT_HEADER_BYTES = 2**20
_SHEAR_TOLERANCE = 1e-3
_ALIGNMENT_TOLERANCE_MM = 0.01


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


def check_nifti(path: Path) -> None:
    """Check a NIfTI header, that its axes are straight, and that all voxels are there.

    Raises:
        DataError: If the header is broken, its geometry is sheared, or the file is cut or corrupt.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        header = nibabel.load(path).header
        shape = tuple(int(size) for size in header.get_data_shape())
        first_byte = int(header.get_data_offset())
        voxel_bytes = int(header["bitpix"]) // 8
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error) as error:
        raise _damaged(path, f"its NIfTI header cannot be read ({error})") from error
    check_size(path, shape)
    if len(shape) < 3 or math.prod(shape[3:]) > 1:
        raise DataError(
            f"{path}: it has {len(shape)} dimensions, of size {shape[::-1]}; expected three "
            "(depth, height, width). Save one channel or one point in time as a file of its own, "
            "a single slice as (1, height, width)."
        )
    steps = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(steps).all() or (steps <= 0).any():
        raise DataError(
            f"{path}: its header states the voxel spacing {steps[::-1].tolist()} (depth, height, "
            "width); expected positive numbers. Set it right in the file."
        )
    _check_nifti_axes(path, header.get_sform(coded=True)[0])

    promised = first_byte + voxel_bytes * math.prod(shape)
    if path.name.lower().endswith(".gz"):
        with path.open("rb") as file:
            found = _count_gzip(path, file)
    else:
        found = path.stat().st_size
    _check_count(path, found=found, promised=promised)


def _check_nifti_axes(path: Path, sform: np.ndarray | None) -> None:
    if sform is None:
        return
    axes = np.asarray(sform, dtype=np.float64)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or (lengths <= 0).any():
        raise DataError(f"{path}: its sform matrix is {axes.tolist()}, which is no set of axes.")
    axes = axes / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR_TOLERANCE:
        raise DataError(
            f"{path}: the axes of its sform matrix are not at right angles (it is sheared). "
            "Resample it to a straight grid first, for instance with "
            "`nibabel.processing.resample_to_output`."
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
    _check_count(path, found=found, promised=promised)


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


def _meta_fields(path: Path, file: IO[bytes]) -> dict[str, str]:
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
    raise _damaged(path, "its MetaImage header has no line 'ElementDataFile = ...'")


def check_nrrd(path: Path) -> None:
    """Check the size that a NRRD header states and the check sum of its compressed data.

    That all voxels are there is checked by SimpleITK.

    Raises:
        DataError: If the header is broken or the data are corrupt.
    """
    with path.open("rb") as file:
        if not file.readline(16).startswith(b"NRRD"):
            raise _damaged(path, "it does not begin with 'NRRD'")
        fields = _nrrd_fields(path, file)
        check_size(path, _sizes(path, fields.get("sizes", "")))
        attached = "data file" not in fields and "datafile" not in fields
        if attached and fields.get("encoding", "").lower() in {"gzip", "gz"}:
            _count_gzip(path, file)


def _nrrd_fields(path: Path, file: IO[bytes]) -> dict[str, str]:
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
    raise _damaged(path, "its NRRD header has no end")


def _sizes(path: Path, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split())
    except ValueError as error:
        raise _damaged(path, f"its header states the size {text!r}") from error


def _chunks(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _count_gzip(path: Path, file: IO[bytes]) -> int:
    """Decompress from where the file stands to its end; the check sums are compared on the way."""
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            return sum(len(chunk) for chunk in _chunks(stream))
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, f"it cannot be decompressed to its end ({error})") from error


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
        raise _damaged(path, f"it cannot be decompressed to its end ({error})") from error
    raise _damaged(path, "its compressed data end too early")


def _check_count(path: Path, *, found: int, promised: int) -> None:
    if found < promised:
        raise _damaged(path, f"it holds {found} of the {promised} bytes that its header promises")


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} is damaged or cut off: {what}. Copy it again from its source, "
        "or leave it out (--skip-bad)."
    )
