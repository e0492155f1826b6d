"""MetaImage headers (.mha, .mhd), checked before SimpleITK reads the voxels.

SimpleITK crashes on some impossible numbers, takes 0 for others, and reads compressed data with a
wrong check sum without a word.
"""

import math
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from voxlift.core.errors import DataError
from voxlift.data.volume_integrity import (
    MAX_HEADER_BYTES,
    check_count,
    check_positive,
    check_size,
    count_zlib,
    damaged,
    parse_integers,
    parse_numbers,
)

_BYTES = {
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


def check_meta(path: Path) -> None:
    """Check that a MetaImage (.mha, or .mhd with its raw file) holds all its voxels.

    Raises:
        DataError: If the header is broken, or the data are missing, cut or corrupt.
    """
    with path.open("rb") as file:
        fields = _fields(path, file)
        data_start = file.tell()
    shape = parse_integers(path, "DimSize", fields.get("dimsize", ""))
    check_size(path, shape)
    (dimensions,) = parse_integers(path, "NDims", fields.get("ndims", ""), count=1)
    if dimensions != len(shape):
        raise damaged(path, f"its header states {dimensions} dimensions, but the size {shape}")
    _check_geometry(path, fields, len(shape))
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
    if element not in _BYTES:
        raise DataError(f"{path}: ElementType is {element!r}; expected one of {', '.join(_BYTES)}.")
    channels = fields.get("elementnumberofchannels", "1")
    counts = parse_integers(path, "ElementNumberOfChannels", channels, count=1)
    check_size(path, (*shape, *counts))
    promised = math.prod((*shape, *counts)) * _BYTES[element]
    with data.open("rb") as file:
        file.seek(data_start if data == path else 0)
        if fields.get("compresseddata", "false").lower() == "true":
            found = count_zlib(path, file)
        else:
            found = data.stat().st_size - file.tell()
    check_count(path, found=found, promised=promised)


def _fields(path: Path, file: BufferedIOBase) -> dict[str, str]:
    """Read the text header up to and with its last line, which names the data."""
    fields: dict[str, str] = {}
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


def _check_geometry(path: Path, fields: dict[str, str], dimensions: int) -> None:
    """Refuse what SimpleITK would replace without a word."""
    for name in ("ElementSpacing", "ElementSize"):
        if name.lower() in fields:
            spacing = parse_numbers(path, name, fields[name.lower()], count=dimensions)
            check_positive(path, name, spacing)
    for names, count in (
        (("Offset", "Origin", "Position"), dimensions),
        (("TransformMatrix", "Rotation", "Orientation"), dimensions**2),
    ):
        for name in names:
            numbers = parse_numbers(path, name, fields.get(name.lower(), "0 " * count), count=count)
            if not np.isfinite(numbers).all():
                raise DataError(
                    f"{path}: {name} is {fields[name.lower()]!r}; expected finite numbers. "
                    "Set it right in the file."
                )
