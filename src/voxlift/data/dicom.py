"""DICOM series: many files, each a slice, put into one volume by their place in the patient.

The slices are ordered by position, never by name or number. Whatever would make the grid uneven or
slanted (missing slices, unequal distances, two slices in one place, a tilted gantry) is refused in
words. No tag but the geometry leaves this file.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import DataError
from voxlift.data.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

_MODALITIES = ("CT", "MR", "PT", "NM", "OT")
# Positions are often rounded to a tenth of a millimetre.
_DISTANCE_TOLERANCE = 0.05
_SMALLEST_TOLERANCE_MM = 0.011
_ORIENTATION_TOLERANCE = 1e-3
_TAGS = (
    "SOPClassUID",
    "Modality",
    "PatientID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
)


@dataclass(frozen=True)
class _Slice:
    path: Path
    tags: "Dataset"

    def numbers(self, name: str, count: int) -> Float64[np.ndarray, " count"]:
        """Read a tag of several numbers, in doubles."""
        value = self.tags.get(name)
        try:
            numbers = np.array([float(part) for part in value], dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.empty(0)
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise DataError(
                f"{self.path}: its tag {name} is {value!r}; expected {count} numbers. Without it "
                "the slice has no place in the patient. Export the series again."
            )
        return numbers


def holds_dicom(folder: Path) -> bool:
    """Tell whether a folder holds a DICOM file (one with the preamble of DICOM files)."""
    return any(_is_dicom(path) for path in _files(folder))


def read_dicom_series(folder: Path, *, series_uid: str | None = None) -> Volume:
    """Read the DICOM series in a folder.

    Args:
        folder: Holds the slices as files of any name; other files are passed over and logged.
        series_uid: SeriesInstanceUID of the series to read; None if there is only one.

    Returns:
        The volume in the units of the rescale slope and intercept (HU for CT). The depth grows
        along the cross product of the row and column direction.

    Raises:
        DataError: If there is no series, more than one, or it is no even, straight stack of
            greyscale slices.
    """
    slices = _choose_series(folder, _scan(folder), series_uid)
    for one in slices:
        _check_kind(one)
    first = slices[0]
    orientation = first.numbers("ImageOrientationPatient", 6)
    spacing = first.numbers("PixelSpacing", 2)
    _check_alike(slices, orientation, spacing)

    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    slices, positions, distance_mm = _stack(folder, slices, normal)
    return Volume(
        array=_read_pixels(slices),
        spacing_mm=(distance_mm, float(spacing[0]), float(spacing[1])),
        origin_mm=(float(positions[0, 0]), float(positions[0, 1]), float(positions[0, 2])),
        direction=np.stack([row, column, normal], axis=1),
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _is_dicom(path: Path) -> bool:
    """Tell DICOM objects from other files; a DICOMDIR is the index of a medium, no image."""
    if path.name.upper() == "DICOMDIR":
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _scan(folder: Path) -> dict[str, list[_Slice]]:
    """Read the tags of all DICOM files of a folder, by series."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    series: dict[str, list[_Slice]] = {}
    others = 0
    for path in _files(folder):
        if not _is_dicom(path):
            others += 1
            continue
        try:
            tags = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            uid = str(tags.SeriesInstanceUID)
        except (InvalidDicomError, AttributeError, EOFError, ValueError) as error:
            raise DataError(
                f"{path}: its DICOM header cannot be read ({error}). Copy the series again."
            ) from error
        series.setdefault(uid, []).append(_Slice(path, tags))
    if others:
        logger.info("%s: %d files that are no DICOM images are passed over.", folder.name, others)
    return series


def _choose_series(
    folder: Path, series: dict[str, list[_Slice]], series_uid: str | None
) -> list[_Slice]:
    listing = "; ".join(
        f"{uid} ({slices[0].tags.get('Modality', '?')}, {len(slices)} files)"
        for uid, slices in sorted(series.items())
    )
    if not series:
        raise DataError(f"{folder}: there is no DICOM file in this folder (its subfolders aside).")
    if series_uid is not None:
        if series_uid not in series:
            raise DataError(f"{folder}: no series {series_uid}. It holds {listing}.")
        slices = series[series_uid]
    elif len(series) > 1:
        raise DataError(
            f"{folder}: it holds {len(series)} series; say which one by series_uid, or give each "
            f"a folder of its own. It holds {listing}."
        )
    else:
        (slices,) = series.values()
    if len({str(one.tags.get("PatientID", "")) for one in slices}) > 1:
        raise DataError(
            f"{folder}: its files belong to different patients. Give each a folder of its own."
        )
    return slices


def _check_kind(one: _Slice) -> None:
    """Refuse what is no greyscale slice of a scan."""
    modality = str(one.tags.get("Modality", "missing"))
    if modality not in _MODALITIES:
        raise DataError(
            f"{one.path}: its modality is {modality}; volumes are read from "
            f"{', '.join(_MODALITIES)}. Take it out of the folder."
        )
    if not (one.tags.get("Rows") and one.tags.get("Columns")):
        raise DataError(
            f"{one.path}: it has no tag Rows or Columns, so it holds no image. "
            "Take it out of the folder."
        )
    if int(one.tags.get("NumberOfFrames") or 1) > 1:
        raise DataError(
            f"{one.path}: it holds {one.tags.NumberOfFrames} frames in one file (enhanced DICOM), "
            "which is not read yet. Convert it to NIfTI, or to one file a slice."
        )
    photometric = str(one.tags.get("PhotometricInterpretation", "missing"))
    if photometric != "MONOCHROME2" or int(one.tags.get("SamplesPerPixel") or 1) != 1:
        raise DataError(
            f"{one.path}: its pixels are {photometric}; expected greyscale that grows with "
            "brightness (MONOCHROME2). Take it out of the folder, or convert it."
        )


def _check_alike(
    slices: list[_Slice],
    orientation: Float64[np.ndarray, " 6"],
    spacing: Float64[np.ndarray, " 2"],
) -> None:
    """Refuse a series whose slices differ in size, spacing or orientation."""
    sizes = Counter((int(one.tags.Rows), int(one.tags.Columns)) for one in slices)
    if len(sizes) > 1:
        raise DataError(
            f"{slices[0].path.parent}: its slices differ in size: "
            f"{', '.join(f'{size} in {count}' for size, count in sizes.items())}. "
            "Take out the ones that do not belong to the volume (often a scout view)."
        )
    for one in slices:
        off = np.abs(one.numbers("ImageOrientationPatient", 6) - orientation).max()
        if off > _ORIENTATION_TOLERANCE:
            raise DataError(
                f"{one.path}: it is not parallel to the first slice. "
                "Take it out of the folder (often a scout view)."
            )
        if not np.allclose(one.numbers("PixelSpacing", 2), spacing, rtol=1e-3, atol=0):
            raise DataError(
                f"{one.path}: its PixelSpacing differs from that of the first slice. "
                "Take out the slices that do not belong to the volume."
            )


def _stack(
    folder: Path, slices: list[_Slice], normal: Float64[np.ndarray, " 3"]
) -> tuple[list[_Slice], Float64[np.ndarray, "slices 3"], float]:
    """Order slices along their normal and check that they stand evenly and straight."""
    positions = np.stack([one.numbers("ImagePositionPatient", 3) for one in slices])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    slices, positions, along = [slices[index] for index in order], positions[order], along[order]
    if len(slices) == 1:
        return slices, positions, _thickness(slices[0])

    gaps = np.diff(along)
    typical = float(np.median(gaps))
    tolerance = max(_DISTANCE_TOLERANCE * typical, _SMALLEST_TOLERANCE_MM)
    if (twice := np.flatnonzero(gaps < _SMALLEST_TOLERANCE_MM)).size:
        raise DataError(
            f"{folder}: {twice.size} pairs of slices stand in the same place, the first at "
            f"{along[twice[0]]:.2f} mm ({slices[twice[0]].path.name} and "
            f"{slices[twice[0] + 1].path.name}). Keep one repetition or phase in the folder."
        )
    if (odd := np.flatnonzero(np.abs(gaps - typical) > tolerance)).size:
        worst = odd[0]
        steps = gaps[odd] / typical
        missing = (np.abs(steps - np.round(steps)) < _DISTANCE_TOLERANCE * np.round(steps)).all()
        what = "slices are missing" if missing else "the slices do not stand at equal distances"
        raise DataError(
            f"{folder}: {what}: {gaps[worst]:.2f} mm from {slices[worst].path.name} to "
            f"{slices[worst + 1].path.name}, {typical:.2f} mm elsewhere ({odd.size} such gaps in "
            f"{len(slices)} slices). Copy the whole series, or resample it to equal distances."
        )
    steps_mm = np.diff(positions, axis=0)
    drift = np.linalg.norm(steps_mm - gaps[:, None] * normal, axis=1)
    if (drift > tolerance).any():
        angle = np.degrees(np.arctan2(np.median(drift), typical))
        raise DataError(
            f"{folder}: the slices are shifted sideways against each other by {angle:.1f} degrees "
            "(a tilted gantry). Resample the series to a straight grid first."
        )
    return slices, positions, float(along[-1] - along[0]) / len(gaps)


def _thickness(one: _Slice) -> float:
    """The depth of a single slice."""
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = one.tags.get(name)
        if value is not None and float(value) > 0:
            return float(value)
    logger.warning("%s: a single slice without thickness; 1 mm is taken.", one.path.name)
    return 1.0


def _read_pixels(slices: list[_Slice]) -> np.ndarray:
    """Read the slices one by one, each with its own rescale slope and intercept."""
    import SimpleITK

    pixels = []
    for one in slices:
        try:
            image = SimpleITK.ReadImage(str(one.path))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise DataError(
                f"{one.path}: its pixels cannot be read ({reason}). Copy the series again, or "
                "convert it to an uncompressed transfer syntax."
            ) from error
        pixels.append(SimpleITK.GetArrayFromImage(image)[0])
    return np.stack(pixels)
