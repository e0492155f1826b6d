"""NRRD headers (.nrrd, .nhdr), checked before SimpleITK reads the voxels.

SimpleITK takes memory for whatever size is claimed, takes 1 mm for spacings that are no numbers,
turns an axis with a negative one round, and reads compressed data with a wrong check sum.
"""

import math
import re
from io import BufferedIOBase
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.volume_integrity import (
    MAX_HEADER_BYTES,
    check_count,
    check_positive,
    check_size,
    count_gzip,
    damaged,
    parse_integers,
    parse_numbers,
)

# By the first names that the format has for them; `int16` and the like are worked out.
_BYTES = {
    "char": 1,
    "uchar": 1,
    "short": 2,
    "ushort": 2,
    "int": 4,
    "uint": 4,
    "longlong": 8,
    "ulonglong": 8,
    "float": 4,
    "double": 8,
}
_SPACE_AXES = 3


def check_nrrd(path: Path) -> None:
    """Check that a NRRD file (.nrrd, or .nhdr with its data file) holds all its voxels.

    Raises:
        DataError: If the header is broken, or the data are missing, cut or corrupt.
    """
    with path.open("rb") as file:
        if not file.readline(16).startswith(b"NRRD"):
            raise damaged(path, "it does not begin with 'NRRD'")
        fields = _fields(path, file)
        data_start = file.tell()
    shape = parse_integers(path, "sizes", fields.get("sizes", ""))
    check_size(path, shape)
    _check_geometry(path, fields, len(shape))

    name = fields.get("data file", fields.get("datafile"))
    if name is not None and (name.upper().startswith("LIST") or "%" in name):
        raise DataError(
            f"{path}: its voxels are spread over several files ({name}). "
            "Save it as one .nrrd or .nii.gz file."
        )
    data = path if name is None else path.parent / name
    if not data.is_file():
        raise DataError(f"{path}: the file of its voxels, {data}, is not there. Put it beside it.")
    encoding = fields.get("encoding", "").lower()
    bytes_each = _voxel_bytes(path, fields.get("type", ""))
    with data.open("rb") as file:
        file.seek(data_start if name is None else 0)
        if encoding in {"gzip", "gz"}:
            found = count_gzip(path, file)
        else:
            found = data.stat().st_size - file.tell()
    if encoding in {"ascii", "text", "txt"}:
        # A digit and a blank, at least; the last one may be without.
        found, bytes_each = found + 1, 2
    elif encoding not in {"raw", "gzip", "gz"}:
        raise DataError(
            f"{path}: its encoding is {encoding!r}; expected raw, gzip or ascii. Save it as one "
            "of these."
        )
    check_count(path, found=found, promised=math.prod(shape) * bytes_each)


def _fields(path: Path, file: BufferedIOBase) -> dict[str, str]:
    """Read the text header up to and with the empty line that ends it."""
    fields: dict[str, str] = {}
    while file.tell() < MAX_HEADER_BYTES:
        line = file.readline(MAX_HEADER_BYTES)
        text = line.decode("utf-8", errors="replace").strip()
        if not text:
            # A header without data of its own may simply end.
            return fields
        # "key:=value" is for others to read.
        if not text.startswith("#") and ":=" not in text:
            key, _, value = text.partition(":")
            key = key.strip().lower()
            if key in fields:
                raise damaged(path, f"its header states {key} twice")
            fields[key] = value.strip()
    raise damaged(path, "its NRRD header has no end")


def _voxel_bytes(path: Path, text: str) -> int:
    """How many bytes a voxel of a type takes: `short`, `signed short int`, `int16_t`..."""
    name = text.lower()
    if match := re.fullmatch(r"u?int(8|16|32|64)(_t)?", name):
        return int(match[1]) // 8
    words = name.split()
    unsigned = "u" if "unsigned" in words else ""
    rest = [word for word in words if word not in ("signed", "unsigned")]
    if len(rest) > 1 and rest[-1] == "int":
        rest.pop()
    bytes_each = _BYTES.get(unsigned + "".join(rest))
    if bytes_each is None:
        raise DataError(
            f"{path}: its type is {text!r}; expected whole or real numbers, such as short or float."
        )
    return bytes_each


def _check_geometry(path: Path, fields: dict[str, str], dimensions: int) -> None:
    """Refuse what SimpleITK would replace without a word. A fourth axis has no place in space."""
    (stated,) = parse_integers(path, "dimension", fields.get("dimension", ""), count=1)
    if stated != dimensions:
        raise damaged(path, f"its header states {stated} dimensions, but {dimensions} sizes")
    if "spacings" in fields:
        spacings = parse_numbers(path, "spacings", fields["spacings"], count=dimensions)
        known = tuple(step for step in spacings if not math.isnan(step))
        check_positive(path, "spacings", known if len(known) >= _SPACE_AXES else spacings)
    if "space directions" in fields:
        vectors = re.findall(r"\([^)]*\)|none", fields["space directions"])
        in_space = [vector for vector in vectors if vector != "none" and "nan" not in vector]
        if len(vectors) != dimensions or len(in_space) < min(_SPACE_AXES, dimensions):
            raise DataError(
                f"{path}: space directions is {fields['space directions']!r}; expected a vector "
                "for each axis of space. Set it right in the file."
            )
    (skipped,) = parse_integers(
        path, "byte skip", fields.get("byte skip", fields.get("byteskip", "0")), count=1
    )
    if skipped < -1:
        raise damaged(path, f"its header states the byte skip {skipped}")
