"""MetaImages (.mha, .mhd): what their headers state, and the volumes in them.

Read without SimpleITK, which dies or hangs on some impossible numbers and takes 0 for others.

Source:
    MetaIO, https://itk.org/Wiki/MetaIO/Documentation.
"""

from io import BufferedIOBase
from pathlib import Path

import numpy as np

from voxlift.core.errors import DataError
from voxlift.data.stored_voxels import Packing, StoredVoxels
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import (
    MAX_HEADER_BYTES,
    check_positive,
    check_size,
    damaged,
    data_beside,
    not_three_dimensional,
    parse_integers,
    parse_numbers,
)

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_YES = ("true", "t", "1")
_NO = ("false", "f", "0")
_SPACE_AXES = 3

_Fields = dict[str, str]


def check_meta(path: Path) -> None:
    """Check that a MetaImage (.mha, or .mhd with its raw file) holds all its voxels.

    Raises:
        DataError: If the header is broken, or the data are missing, cut or corrupt.
    """
    _stored_voxels(path, *_read_header(path)).check()


def read_meta(path: Path) -> tuple[Volume, ...]:
    """Read a MetaImage (.mha, or .mhd with its raw file), a volume for each channel.

    Channels are several values a voxel, or a fourth dimension.

    Raises:
        DataError: If the header is broken, the data are missing, cut or corrupt, or there are no
            three dimensions in space.
    """
    fields, data_start = _read_header(path)
    stored = _stored_voxels(path, fields, data_start)
    *sizes, values = stored.shape
    dimensions = len(sizes)
    if dimensions not in (_SPACE_AXES, _SPACE_AXES + 1) or (
        dimensions > _SPACE_AXES and values > 1
    ):
        raise not_three_dimensional(path, tuple(sizes), num_values=values)
    geometry = _geometry(path, fields, dimensions)
    array = np.moveaxis(stored.read(), -1, 0)
    if dimensions > _SPACE_AXES:
        (array,) = array
    return tuple(Volume(one, *geometry) for one in np.ascontiguousarray(array))


def _read_header(path: Path) -> tuple[_Fields, int]:
    """Read the fields of the header, and where the data begin that follow it."""
    with path.open("rb") as file:
        return _fields(path, file), file.tell()


def _fields(path: Path, file: BufferedIOBase) -> _Fields:
    """Read the text header up to and with its last line, which names the data."""
    fields: _Fields = {}
    while file.tell() < MAX_HEADER_BYTES:
        line = file.readline(MAX_HEADER_BYTES)
        key, sign, value = line.decode("utf-8", errors="replace").partition("=")
        key = key.strip().lower()
        if not sign:
            break
        if key in fields and key != "comment":
            raise damaged(path, f"its header states {key} twice")
        fields[key] = value.strip()
        if "elementdatafile" in fields:
            return fields
    raise damaged(path, "its MetaImage header has no line 'ElementDataFile = ...'")


def _stored_voxels(path: Path, fields: _Fields, data_start: int) -> StoredVoxels:
    """Find out where the voxels are; the values of a voxel are the last axis."""
    sizes = parse_integers(path, "DimSize", fields.get("dimsize", ""))
    check_size(path, sizes)
    (dimensions,) = parse_integers(path, "NDims", fields.get("ndims", ""), count=1)
    if dimensions != len(sizes):
        raise damaged(path, f"its header states {dimensions} dimensions, but the size {sizes}")
    channels = fields.get("elementnumberofchannels", "1")
    values = parse_integers(path, "ElementNumberOfChannels", channels, count=1)
    element = fields.get("elementtype", "").upper()
    if element not in _TYPES:
        raise DataError(
            f"{path}: ElementType is {element[:100]!r}; expected one of {', '.join(_TYPES)}."
        )
    # The second is what older files have.
    is_big = _flag(
        path, fields, "BinaryDataByteOrderMSB", default=_flag(path, fields, "ElementByteOrderMSB")
    )
    packing: Packing = "zlib" if _flag(path, fields, "CompressedData") else "none"
    if not _flag(path, fields, "BinaryData", default=True):
        packing = "text"
    name = fields["elementdatafile"]
    is_local = name.upper() == "LOCAL"
    stored = StoredVoxels(
        path=path,
        file=path if is_local else data_beside(path, name),
        shape=(*sizes[::-1], *values),
        dtype=np.dtype(_TYPES[element]).newbyteorder(">" if is_big else "<"),
        packing=packing,
    )
    start = _start(path, fields, stored, data_start if is_local else 0)
    return StoredVoxels(path, stored.file, stored.shape, stored.dtype, packing, start)


def _start(path: Path, fields: _Fields, stored: StoredVoxels, start: int) -> int:
    """Work out where in their file the data begin."""
    header = fields.get("headersize", "0")
    (skipped,) = parse_integers(path, "HeaderSize", header, count=1)
    if skipped < -1 or (skipped == -1 and stored.packing != "none"):
        raise damaged(path, f"its header states the HeaderSize {skipped}")
    if skipped == -1:
        # The data are what the file ends with.
        return max(0, stored.file.stat().st_size - stored.num_bytes)
    return skipped or start


def _flag(path: Path, fields: _Fields, name: str, *, default: bool = False) -> bool:
    text = fields.get(name.lower(), str(default)).lower()
    if text not in (*_YES, *_NO):
        raise damaged(path, f"{name} is {text[:100]!r}; expected True or False")
    return text in _YES


def _geometry(
    path: Path, fields: _Fields, dimensions: int
) -> tuple[tuple[float, float, float], tuple[float, float, float], np.ndarray]:
    """Work out spacing, origin and direction as a `Volume` has them."""
    spacing = _numbers(path, fields, ("ElementSpacing", "ElementSize"), np.ones(dimensions))
    origin = _numbers(path, fields, ("Offset", "Origin", "Position"), np.zeros(dimensions))
    unit = np.eye(dimensions)
    names = ("TransformMatrix", "Rotation", "Orientation")
    # A row of the matrix is the way that an axis takes.
    matrix = _numbers(path, fields, names, unit.ravel()).reshape(unit.shape).T
    if np.any(matrix[_SPACE_AXES:, :_SPACE_AXES]) or np.any(matrix[:_SPACE_AXES, _SPACE_AXES:]):
        raise DataError(
            f"{path}: its fourth axis is turned into space, so it holds no channels. "
            "Save each channel as a file of its own."
        )
    width, height, depth = spacing[:_SPACE_AXES].tolist()
    x, y, z = origin[:_SPACE_AXES].tolist()
    return (depth, height, width), (x, y, z), matrix[:_SPACE_AXES, :_SPACE_AXES]


def _numbers(
    path: Path, fields: _Fields, names: tuple[str, ...], default: np.ndarray
) -> np.ndarray:
    """Read a field under the first of its names that is there; the others are checked too."""
    found = default
    for name in reversed(names):
        text = fields.get(name.lower())
        if text is None:
            continue
        numbers = parse_numbers(path, name, text, count=len(default))
        if name in ("ElementSpacing", "ElementSize"):
            check_positive(path, name, numbers)
        elif not np.isfinite(numbers).all():
            raise DataError(
                f"{path}: {name} is {text[:200]!r}; expected finite numbers. "
                "Set it right in the file."
            )
        found = np.array(numbers)
    return found
