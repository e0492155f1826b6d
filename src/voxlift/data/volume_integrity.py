"""Whether a volume's file holds all that its header promises, checked before it is read.

What the checks of NIfTI, NRRD and MetaImage have in common: numbers in headers that may be
anything.
"""

import math
from pathlib import Path

from voxlift.core.errors import DataError

MAX_VOXELS = 2**31
MAX_HEADER_BYTES = 2**20
_MAX_DIMENSIONS = 16


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


def data_beside(path: Path, name: str) -> Path:
    """Find the file of voxels that a header names.

    Raises:
        DataError: If it is not there, or there are several.
    """
    if name.upper().startswith("LIST") or "%" in name:
        raise DataError(
            f"{path}: its voxels are spread over several files ({name[:100]}). "
            "Save it as one .nrrd, .mha or .nii.gz file."
        )
    data = path.parent / name
    if not data.is_file():
        raise DataError(
            f"{path}: the file of its voxels, {str(data)[:300]}, is not there. Put it beside it."
        )
    return data


def not_three_dimensional(path: Path, shape: tuple[int, ...], *, num_values: int = 1) -> DataError:
    """Make the error for a file of too few or too many dimensions."""
    return DataError(
        f"{path}: it has {len(shape)} dimensions of size {shape} with {num_values} values a voxel; "
        "expected three dimensions (depth, height, width), or four with the channels. Save one "
        "channel or one point in time as a file of its own, a single slice as (1, height, width)."
    )
