"""NRRD files (.nrrd, .nhdr): what their headers state, and the volumes in them.

Read without SimpleITK, which dies of some impossible headers, takes 1 mm for spacings that are no
numbers, and turns an axis with a negative one round.

Source:
    Definition of NRRD file format, https://teem.sourceforge.net/nrrd/format.html.
"""

import re
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

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

# By the first names that the format has for them; `int16` and the like are worked out.
_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "longlong": "i8",
    "ulonglong": "u8",
    "float": "f4",
    "double": "f8",
}
_PACKINGS: dict[str, Packing] = {
    "raw": "none",
    **dict.fromkeys(("gzip", "gz"), "gzip"),
    **dict.fromkeys(("ascii", "text", "txt"), "text"),
}
# Axes of other kinds hold the values of a voxel.
_DOMAIN_KINDS = {"domain", "space", "time", "none", "???"}
# What turns the axes of a space into LPS; a space without a name is taken as LPS.
_SPACES = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
}
_SPACES |= {f"{name}-time": way for name, way in _SPACES.items()}
_SPACES |= {"".join(word[0] for word in name.split("-")): way for name, way in _SPACES.items()}
_SPACES[""] = (1.0, 1.0, 1.0)
_SPACE_AXES = 3

_Fields = dict[str, str]


def check_nrrd(path: Path) -> None:
    """Check that a NRRD file (.nrrd, or .nhdr with its data file) holds all its voxels.

    Raises:
        DataError: If the header is broken, or the data are missing, cut or corrupt.
    """
    _stored_voxels(path, *_read_header(path)).check()


def read_nrrd(path: Path) -> tuple[Volume, ...]:
    """Read a NRRD file (.nrrd, or .nhdr with its data file), a volume for each channel.

    Channels are several values a voxel, or a fourth dimension.

    Raises:
        DataError: If the header is broken, the data are missing, cut or corrupt, or there are no
            three dimensions in space.
    """
    fields, data_start = _read_header(path)
    stored = _stored_voxels(path, fields, data_start)
    channel = _channel_axis(path, fields, stored.shape[::-1])
    geometry = _geometry(path, fields, len(stored.shape), channel)
    array = stored.read()
    if channel is None:
        array = array[None]
    else:
        array = np.ascontiguousarray(np.moveaxis(array, array.ndim - 1 - channel, 0))
    return tuple(Volume(one, *geometry) for one in array)


def _read_header(path: Path) -> tuple[_Fields, int]:
    """Read the fields of the header, and where the data begin that follow it."""
    with path.open("rb") as file:
        if not file.readline(16).startswith(b"NRRD"):
            raise damaged(path, "it does not begin with 'NRRD'")
        return _fields(path, file), file.tell()


def _fields(path: Path, file: BufferedIOBase) -> _Fields:
    """Read the text header up to and with the empty line that ends it."""
    fields: _Fields = {}
    while file.tell() < MAX_HEADER_BYTES:
        line = file.readline(MAX_HEADER_BYTES)
        text = line.decode("utf-8", errors="replace").strip()
        if not text:
            # A header without data of its own may simply end.
            return fields
        # "key:=value" is for others to read.
        if not text.startswith("#") and ":=" not in text:
            key, _, value = text.partition(":")
            # Some fields may be written in one word: "data file" and "datafile".
            key = key.replace(" ", "").lower()
            if key in fields:
                raise damaged(path, f"its header states {key} twice")
            fields[key] = value.strip()
    raise damaged(path, "its NRRD header has no end")


def _stored_voxels(path: Path, fields: _Fields, data_start: int) -> StoredVoxels:
    """Find out where the voxels are."""
    shape = parse_integers(path, "sizes", fields.get("sizes", ""))[::-1]
    check_size(path, shape)
    (dimensions,) = parse_integers(path, "dimension", fields.get("dimension", ""), count=1)
    if dimensions != len(shape):
        raise damaged(path, f"its header states {dimensions} dimensions, but {len(shape)} sizes")
    encoding = fields.get("encoding", "").lower()
    if encoding not in _PACKINGS:
        raise DataError(
            f"{path}: its encoding is {encoding[:100]!r}; expected raw, gzip or ascii. Save it as "
            "one of these."
        )
    name = fields.get("datafile")
    data = path if name is None else data_beside(path, name)
    stored = StoredVoxels(
        path=path,
        file=data,
        shape=shape,
        dtype=_voxel_type(path, fields, is_text=_PACKINGS[encoding] == "text"),
        packing=_PACKINGS[encoding],
    )
    start, skipped = _skip(path, fields, stored, 0 if name else data_start)
    return StoredVoxels(path, data, shape, stored.dtype, stored.packing, start, skipped)


def _skip(path: Path, fields: _Fields, stored: StoredVoxels, start: int) -> tuple[int, int]:
    """Work out where the data begin in their file, and what is skipped once it is decompressed."""
    lines, skipped = (
        parse_integers(path, name, fields.get(name.replace(" ", ""), "0"), count=1)[0]
        for name in ("line skip", "byte skip")
    )
    if lines < 0 or skipped < -1 or (skipped == -1 and stored.packing != "none"):
        raise damaged(path, f"its header states the line skip {lines} and the byte skip {skipped}")
    if skipped == -1:
        # The data are what the file ends with.
        return max(0, stored.file.stat().st_size - stored.num_bytes), 0
    with stored.file.open("rb") as file:
        file.seek(start)
        for _ in range(lines):
            if not file.readline():
                raise damaged(path, f"its data have fewer than the {lines} lines to be skipped")
        return file.tell(), skipped


def _voxel_type(path: Path, fields: _Fields, *, is_text: bool) -> np.dtype[Any]:
    """Work out the type that a header states: `short`, `signed short int`, `int16_t`..."""
    text = fields.get("type", "")
    name = text.lower()
    if match := re.fullmatch(r"(u?)int(8|16|32|64)(_t)?", name):
        code = f"{match[1] or 'i'}{int(match[2]) // 8}"
    else:
        words = name.split()
        unsigned = "u" if "unsigned" in words else ""
        rest = [word for word in words if word not in ("signed", "unsigned")]
        if len(rest) > 1 and rest[-1] == "int":
            rest.pop()
        code = _TYPES.get(unsigned + "".join(rest), "")
    if not code:
        raise DataError(
            f"{path}: its type is {text[:100]!r}; expected whole or real numbers, such as short or "
            "float."
        )
    kind = np.dtype(code)
    endian = fields.get("endian", "").lower()
    if kind.itemsize > 1 and not is_text and endian not in ("little", "big"):
        raise damaged(path, f"its endian is {endian[:100]!r}; expected little or big")
    return kind.newbyteorder(">" if endian == "big" else "<")


def _channel_axis(path: Path, fields: _Fields, sizes: tuple[int, ...]) -> int | None:
    """Find the axis that is none of space, the fastest being 0; None where all three are."""
    dimensions = len(sizes)
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * dimensions
    vectors = _vectors(path, fields, dimensions)
    if len(kinds) != dimensions:
        raise damaged(path, f"its header states {len(kinds)} kinds of {dimensions} axes")
    others = [
        axis
        for axis, kind in enumerate(kinds)
        if kind not in _DOMAIN_KINDS or (vectors and vectors[axis] is None)
    ]
    if dimensions == _SPACE_AXES + 1 and not others:
        others = [_SPACE_AXES]
    if dimensions - len(others) != _SPACE_AXES or len(others) > 1:
        if vectors and dimensions == _SPACE_AXES:
            raise _wrong_directions(path, fields)
        raise not_three_dimensional(path, sizes[::-1])
    return others[0] if others else None


def _vectors(path: Path, fields: _Fields, dimensions: int) -> list[tuple[float, ...] | None]:
    """Read the step along each axis in space; None for an axis that is not in space."""
    text = fields.get("spacedirections")
    if text is None:
        return []
    found = re.findall(r"\(([^()]*)\)|(none)", text.lower())
    if len(found) != dimensions:
        raise _wrong_directions(path, fields)
    vectors = [
        None if none else _vector(path, "space directions", inside) for inside, none in found
    ]
    # Some write an axis that is not in space as a vector without numbers.
    return [one if one is not None and np.isfinite(one).all() else None for one in vectors]


def _vector(path: Path, name: str, text: str) -> tuple[float, ...]:
    return parse_numbers(path, name, text.replace(",", " "), count=text.count(",") + 1)


def _wrong_directions(path: Path, fields: _Fields) -> DataError:
    return DataError(
        f"{path}: space directions is {fields['spacedirections'][:200]!r}; expected a vector for "
        "each axis of space. Set it right in the file."
    )


def _geometry(
    path: Path, fields: _Fields, dimensions: int, channel: int | None
) -> tuple[tuple[float, float, float], tuple[float, float, float], np.ndarray]:
    """Work out spacing, origin and direction as a `Volume` has them."""
    axes = [axis for axis in range(dimensions) if axis != channel]
    if any(part.lower() != "nan" for part in fields.get("axismins", "").split()):
        raise DataError(
            f"{path}: it states its place by 'axis mins', in no known space; expected 'space "
            "directions' and 'space origin'. Save it with these."
        )
    vectors = _vectors(path, fields, dimensions)
    if not vectors:
        text = fields.get("spacings", " ".join(["1"] * dimensions))
        steps = parse_numbers(path, "spacings", text, count=dimensions)
        spacing = tuple(steps[axis] for axis in axes)
        check_positive(path, "spacings", spacing)
        return cast("Any", spacing[::-1]), _origin(path, fields, np.ones(3)), np.eye(3)
    space = fields.get("space", "").lower()
    if space not in _SPACES:
        raise DataError(
            f"{path}: its space is {space[:100]!r}; expected left-posterior-superior, "
            "right-anterior-superior or left-anterior-superior. Convert it to one of these."
        )
    turn = np.array(_SPACES[space])
    steps_in_space = [vectors[axis] for axis in axes]
    wide = [*steps_in_space, *(vectors[axis] for axis in range(dimensions) if axis == channel)]
    lengths = {len(one) for one in wide if one is not None}
    if len(lengths) != 1 or not lengths <= {_SPACE_AXES, dimensions} or None in steps_in_space:
        raise _wrong_directions(path, fields)
    if any(np.any(one[_SPACE_AXES:]) for one in steps_in_space if one) or (
        channel is not None and np.any((vectors[channel] or ())[:_SPACE_AXES])
    ):
        raise DataError(
            f"{path}: its fourth axis is turned into space, so it holds no channels. "
            "Save each channel as a file of its own."
        )
    matrix = turn[:, None] * np.array([one[:_SPACE_AXES] for one in steps_in_space if one]).T
    norms = np.linalg.norm(matrix, axis=0)
    width, height, depth = norms.tolist()
    check_positive(path, "the length of space directions", (width, height, depth))
    return (depth, height, width), _origin(path, fields, turn), matrix / norms


def _origin(path: Path, fields: _Fields, turn: np.ndarray) -> tuple[float, float, float]:
    """Read the centre of the first voxel."""
    text = fields.get("spaceorigin", "(0,0,0)")
    place = _vector(path, "space origin", text.strip("() "))
    if len(place) < _SPACE_AXES or not np.isfinite(place).all():
        raise DataError(
            f"{path}: its space origin is {text[:200]!r}; expected finite numbers. Set it right "
            "in the file."
        )
    x, y, z = (turn * place[:_SPACE_AXES]).tolist()
    return x, y, z
