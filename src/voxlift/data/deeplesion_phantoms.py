"""Simulated scans in the very layout of DeepLesion, for tests and for studies without its images.

As in DeepLesion there is one 16-bit PNG a slice, of each scan only the slices about its key slices,
with gaps between; several distances of slices; `DL_info.csv`, and annotations in COCO's form with a
file a split; splits by patient; a few boxes marked as noisy; lesion types outside training only.
"""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.files import write_aside, write_text
from voxlift.core.randomness import numpy_generator
from voxlift.data.deeplesion import IMAGES
from voxlift.data.deeplesion_csv import COLUMNS, LESION_TYPES, SPLIT_NUMBERS, TABLE
from voxlift.data.deeplesion_pixels import HU_OFFSET, slice_name
from voxlift.data.lesion_phantoms import (
    Lesion,
    LesionParameters,
    SimulatedSlices,
    simulate_slices,
)

INTERVALS_MM = (1.0, 2.0, 2.5, 5.0)
# How likely a scan has each.
_INTERVAL_CHANCES = (0.3, 0.15, 0.15, 0.4)
# About the field of view that a chest or belly in 512 pixels has, in millimetres.
_FIELD_MM = 110.0
_TYPE_NUMBERS = {name: number for number, name in LESION_TYPES.items()}
_SPLIT_SHARES = (0.7, 0.15, 0.15)
_SECOND_STUDY = 0.3
_AT_THE_END = 0.1
_NOISY = 0.02
# Lossless at any level; more takes longer and saves little on noise.
_COMPRESSION = 1


@dataclass(frozen=True)
class _Row:
    """One lesion, with what the annotations say of it."""

    series: str
    number: int
    split: str
    box: tuple[float, float, float, float]
    recist: tuple[tuple[float, float], ...]
    diameters_px: tuple[float, float]
    place: tuple[float, float, float]
    lesion_type: str
    noisy: bool
    slice_range: tuple[int, int]
    spacing_mm: float
    interval_mm: float
    window_hu: tuple[float, float]


def write_deeplesion_like(
    folder: str | Path,
    *,
    num_patients: int,
    seed: int,
    size: int = 128,
    reach_mm: float = 12.5,
    intervals_mm: tuple[float, ...] = INTERVALS_MM,
    parameters: LesionParameters | None = None,
) -> Path:
    """Write simulated scans as DeepLesion would hold them: two or three key slices a patient.

    Args:
        folder: Where to; it must be new or empty.
        num_patients: How many, at least 3, so that there is one for each split.
        seed: The same seed gives the same files.
        size: Height and width of the slices in pixels.
        reach_mm: How much of the scan there is to either side of a key slice.
        intervals_mm: Distances of slices that scans may have.
        parameters: What lesions are drawn from; None for the defaults.

    Returns:
        The folder.

    Raises:
        ConfigError: If there are fewer than 3 patients.
        DataError: If the folder is not empty or cannot be written to.
    """
    folder = Path(folder)
    if num_patients < 3:
        raise ConfigError(f"num_patients is {num_patients}; give 3 or more, one for each split.")
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty. Give a new folder.")
    splits = _draw_splits(num_patients, seed)
    rows: list[_Row] = []
    for patient, split in enumerate(splits, start=1):
        generator = numpy_generator(seed, "deeplesion-like", patient)
        for study in range(1, 2 + int(generator.random() < _SECOND_STUDY)):
            series = f"{patient:06d}_{study:02d}_01"
            rows += _write_scan(
                folder / IMAGES / series,
                split,
                size=size,
                reach_mm=reach_mm,
                interval_mm=_draw_interval(intervals_mm, generator),
                generator=generator,
                parameters=parameters or LesionParameters(),
            )
    people = numpy_generator(seed, "deeplesion-like-people")
    ages = people.integers(20, 90, size=num_patients).tolist()
    _write_table(folder / TABLE, rows, ages, size)
    for split in SPLIT_NUMBERS.values():
        chosen = [row for row in rows if row.split == split]
        write_text(
            folder / "annotations" / f"deeplesion_{split}.json",
            json.dumps(_annotations(chosen, size)),
        )
    return folder


def _draw_splits(num_patients: int, seed: int) -> list[str]:
    counts = [max(1, round(share * num_patients)) for share in _SPLIT_SHARES[1:]]
    names = ["val"] * counts[0] + ["test"] * counts[1]
    names = ["train"] * (num_patients - len(names)) + names
    order = numpy_generator(seed, "deeplesion-like-splits").permutation(num_patients)
    return [names[number] for number in order]


def _draw_interval(intervals_mm: tuple[float, ...], generator: np.random.Generator) -> float:
    chances = _INTERVAL_CHANCES if intervals_mm == INTERVALS_MM else None
    return float(generator.choice(intervals_mm, p=chances))


def _write_scan(
    folder: Path,
    split: str,
    *,
    size: int,
    reach_mm: float,
    interval_mm: float,
    generator: np.random.Generator,
    parameters: LesionParameters,
) -> list[_Row]:
    """Write the slices about the key slices of one scan."""
    folder.mkdir(parents=True)
    spacing = round(float(_FIELD_MM / size * generator.uniform(0.9, 1.1)), 6)
    reach = max(1, round(reach_mm / interval_mm))
    next_number = int(generator.integers(1, 40))
    rows: list[_Row] = []
    for _ in range(int(generator.integers(2, 3, endpoint=True))):
        before, after = reach, reach
        if generator.random() < _AT_THE_END:
            before = int(generator.integers(0, reach))
        numbers = np.arange(next_number, next_number + before + 1 + after)
        key = next_number + before
        simulated = simulate_slices(
            np.asarray((numbers - key) * interval_mm, dtype=np.float64),
            size=(size, size),
            spacing_mm=spacing,
            thickness_mm=interval_mm,
            generator=generator,
            parameters=parameters,
        )
        for number, plane in zip(numbers.tolist(), simulated.array, strict=True):
            _write_slice(folder / slice_name(number), plane)
        for lesion in simulated.lesions:
            rows.append(
                _row(
                    lesion,
                    simulated,
                    series=folder.name,
                    key=key,
                    split=split,
                    slice_range=(int(numbers[0]), int(numbers[-1])),
                    size=size,
                    spacing_mm=spacing,
                    interval_mm=interval_mm,
                    margin_px=parameters.box_margin * size,
                    noisy=bool(generator.random() < _NOISY),
                )
            )
        next_number = int(numbers[-1]) + 1 + int(generator.integers(1, 30))
    return rows


def _write_slice(path: Path, plane: npt.NDArray[np.float32]) -> None:
    stored = (np.rint(plane) + HU_OFFSET).clip(0, 65535).astype(np.uint16)
    with write_aside(path) as aside:
        Image.fromarray(stored).save(aside, compress_level=_COMPRESSION)


def _row(
    lesion: Lesion,
    simulated: SimulatedSlices,
    *,
    series: str,
    key: int,
    split: str,
    slice_range: tuple[int, int],
    size: int,
    spacing_mm: float,
    interval_mm: float,
    margin_px: float,
    noisy: bool,
) -> _Row:
    y, x = (place / spacing_mm + size / 2 for place in lesion.centre[1:])
    high, wide = (half / spacing_mm + margin_px for half in lesion.extent(0.0))
    if noisy:
        x += 2 * wide
    one, other = (radius / spacing_mm for radius in lesion.section(0.0))
    across, up = np.cos(lesion.angle), np.sin(lesion.angle)
    ends = [(one * across, one * up), (-other * up, other * across)]
    return _Row(
        series=series,
        number=key,
        split=split,
        box=(x - wide, y - high, x + wide, y + high),
        recist=tuple((x + sign * u, y + sign * v) for u, v in ends for sign in (1, -1)),
        diameters_px=(2 * max(one, other), 2 * min(one, other)),
        place=(x / size, y / size, 0.5),
        lesion_type=simulated.surroundings.lesion_type,
        noisy=noisy,
        slice_range=slice_range,
        spacing_mm=spacing_mm,
        interval_mm=interval_mm,
        window_hu=simulated.surroundings.window_hu,
    )


def _write_table(path: Path, rows: list[_Row], ages: list[int], size: int) -> None:
    numbers = {split: number for number, split in SPLIT_NUMBERS.items()}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        patient, study, series = (int(part) for part in row.series.split("_"))
        known = row.split != "train"
        table.writerow(
            [
                f"{row.series}_{slice_name(row.number)}",
                patient,
                study,
                series,
                row.number,
                # The table counts pixels from 1.
                _joined(value + 1 for end in row.recist for value in end),
                _joined(value + 1 for value in row.box),
                _joined(row.diameters_px),
                _joined(row.place),
                _TYPE_NUMBERS[row.lesion_type] if known else -1,
                int(row.noisy),
                _joined(row.slice_range),
                _joined((row.spacing_mm, row.spacing_mm, row.interval_mm)),
                _joined((size, size)),
                _joined(row.window_hu),
                "FM"[patient % 2],
                ages[patient - 1],
                numbers[row.split],
            ]
        )
    write_text(path, text.getvalue())


def _joined(values: Any) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _annotations(rows: list[_Row], size: int) -> dict[str, Any]:
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for row in rows:
        name = f"{row.series}/{slice_name(row.number)}"
        image = images.setdefault(
            name,
            {
                "file_name": name,
                "height": size,
                "width": size,
                "id": len(images) + 1,
                "slice_no": row.number,
                "spacing": row.spacing_mm,
                "slice_intv": row.interval_mm,
                "z_position": row.place[2],
                "windows": list(row.window_hu),
            },
        )
        left, top, right, bottom = row.box
        annotations.append(
            {
                "segmentation": [[]],
                # As in the files that are about, not the area of the box.
                "area": 10 * (right - left) * (bottom - top),
                "iscrowd": 0,
                "image_id": image["id"],
                "bbox": [left, top, right - left, bottom - top],
                "category_id": 1,
                "id": len(annotations) + 1,
                "noisy": int(row.noisy),
            }
        )
    category = {"supercategory": "DeepLesion", "id": 1, "name": "Lesion"}
    return {"images": list(images.values()), "categories": [category], "annotations": annotations}
