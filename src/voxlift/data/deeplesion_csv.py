"""The table of lesions that DeepLesion was published with, `DL_info.csv`."""

import csv
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxlift.core.errors import DataError
from voxlift.data.coco_annotations import FARTHEST
from voxlift.data.lesion_images import LesionImage, parse_name
from voxlift.data.listing_problems import report_problems

TABLE = "DL_info.csv"
COLUMNS = (
    "File_name",
    "Patient_index",
    "Study_index",
    "Series_ID",
    "Key_slice_index",
    "Measurement_coordinates",
    "Bounding_boxes",
    "Lesion_diameters_Pixel_",
    "Normalized_lesion_location",
    "Coarse_lesion_type",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Image_size",
    "DICOM_windows",
    "Patient_gender",
    "Patient_age",
    "Train_Val_Test",
)
LESION_TYPES = {
    1: "bone",
    2: "abdomen",
    3: "mediastinum",
    4: "liver",
    5: "lung",
    6: "kidney",
    7: "soft tissue",
    8: "pelvis",
}
SPLIT_NUMBERS = {1: "train", 2: "val", 3: "test"}

_NEEDED = ("File_name", "Bounding_boxes", "Spacing_mm_px_")


def read_lesion_table(
    path: Path, *, skip_bad: bool = False
) -> tuple[tuple[LesionImage, ...], Counter[str]]:
    """Read the key slices of a table; lesions in the same slice are put together.

    The table counts pixels from 1; the boxes returned begin at 0.

    Args:
        path: The table.
        skip_bad: List and leave out rows that cannot be used, instead of raising.

    Returns:
        The key slices in the order of the table, and how often something had to be put right.

    Raises:
        DataError: If the table cannot be read, lacks a column, or a row cannot be used.
    """
    problems: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    rows: dict[str, list[_Lesion]] = {}
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(_read_rows(path), start=2):
        try:
            lesion = _parse_row(row)
        except _UnusableError as error:
            problems.setdefault(str(error), []).append(f"row {number}")
            continue
        earlier = rows.setdefault(lesion.name, [])
        if (lesion.name, row["Bounding_boxes"]) in seen:
            counts["lesions listed twice"] += 1
        elif earlier and earlier[0].of_slice != lesion.of_slice:
            kind = "row that contradicts another of its slice in split or spacing"
            problems.setdefault(kind, []).append(f"row {number}")
        else:
            earlier.append(lesion)
            seen.add((lesion.name, row["Bounding_boxes"]))
    report_problems(str(path), problems, skip_bad=skip_bad, remedy="Correct the table.")
    images = tuple(_join(lesions) for lesions in rows.values())
    if not images:
        raise DataError(f"{path} lists no lesions that can be used.")
    return images, counts


class _UnusableError(Exception):
    """Why a row cannot be used."""


@dataclass(frozen=True)
class _Lesion:
    name: str
    box: tuple[float, ...]
    noisy: bool
    lesion_type: str | None
    diameters_px: tuple[float, float] | None
    window_hu: tuple[float, float] | None
    slice_range: tuple[int, int] | None
    sizes: tuple[tuple[int, int], ...]
    of_slice: tuple[str, float, float]


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {str(name).strip(): (cell or "").strip() for name, cell in row.items() if name}
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} could not be read as a table: {error}.") from error
    if not rows:
        raise DataError(f"{path} is empty: it lists no lesions.")
    missing = [name for name in _NEEDED if name not in rows[0]]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; expected those of DeepLesion's {TABLE}."
        )
    return rows


def _parse_row(row: dict[str, str]) -> _Lesion:
    if parse_name(row["File_name"]) is None:
        raise _UnusableError("File_name that is not <patient>_<study>_<series>_<slice>.png")
    box = _numbers(row, "Bounding_boxes", 4)
    if box is None or max(map(abs, box)) > FARTHEST:
        raise _UnusableError("Bounding_boxes that are not 4 numbers")
    spacing = _numbers(row, "Spacing_mm_px_", 3)
    if spacing is None or min(spacing) <= 0:
        raise _UnusableError("Spacing_mm_px_ that is not 3 numbers above 0")
    split = _whole(row, "Train_Val_Test")
    if split is not None and split not in SPLIT_NUMBERS:
        raise _UnusableError("Train_Val_Test that is not 1, 2 or 3")
    diameters = _numbers(row, "Lesion_diameters_Pixel_", 2)
    window = _numbers(row, "DICOM_windows", 2)
    slice_range = _numbers(row, "Slice_range", 2)
    return _Lesion(
        name=row["File_name"],
        box=tuple(value - 1 for value in box),
        noisy=bool(_whole(row, "Possibly_noisy")),
        lesion_type=LESION_TYPES.get(_whole(row, "Coarse_lesion_type") or -1),
        diameters_px=None if diameters is None else (diameters[0], diameters[1]),
        window_hu=None if window is None else (window[0], window[1]),
        slice_range=None if slice_range is None else (int(slice_range[0]), int(slice_range[1])),
        sizes=_sizes(row),
        of_slice=(SPLIT_NUMBERS[split] if split is not None else "", spacing[0], spacing[2]),
    )


def _sizes(row: dict[str, str]) -> tuple[tuple[int, int], ...]:
    size = _numbers(row, "Image_size", 2)
    if size is None:
        return ()
    # The table does not tell which comes first.
    one, other = int(size[0]), int(size[1])
    return ((one, other),) if one == other else ((one, other), (other, one))


def _numbers(row: dict[str, str], column: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(float(cell) for cell in row.get(column, "").split(","))
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def _whole(row: dict[str, str], column: str) -> int | None:
    values = _numbers(row, column, 1)
    return None if values is None else int(values[0])


def _join(lesions: list[_Lesion]) -> LesionImage:
    split, spacing, interval = lesions[0].of_slice
    ranges = [lesion.slice_range for lesion in lesions if lesion.slice_range is not None]
    parsed = parse_name(lesions[0].name)
    assert parsed is not None
    return LesionImage(
        series=parsed[0],
        number=parsed[1],
        split=split,
        spacing_mm=spacing,
        interval_mm=interval,
        corners=np.array([lesion.box for lesion in lesions]),
        labels=np.zeros(len(lesions), dtype=np.int64),
        noisy=np.array([lesion.noisy for lesion in lesions]),
        crowd=np.zeros(len(lesions), dtype=np.bool_),
        lesion_types=tuple(lesion.lesion_type for lesion in lesions),
        diameters_mm=tuple(
            None
            if lesion.diameters_px is None
            else (lesion.diameters_px[0] * spacing, lesion.diameters_px[1] * spacing)
            for lesion in lesions
        ),
        window_hu=lesions[0].window_hu,
        slice_range=(min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else None,
        sizes=next((lesion.sizes for lesion in lesions if lesion.sizes), ()),
    )
