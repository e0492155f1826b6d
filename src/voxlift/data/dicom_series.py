"""Which DICOM series lie in a folder. No tag of the patient leaves this file."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import DataError
from voxlift.core.types import Triple

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

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
class SeriesSummary:
    """What a folder tells of one series without reading its pixels.

    Attributes:
        uid: SeriesInstanceUID, by which `read_volume` chooses it.
        modality: Such as CT or MR.
        num_files: How many files it has.
        size_voxels: Frames, rows and columns; None where it has no image.
    """

    uid: str
    modality: str
    num_files: int
    size_voxels: Triple | None


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file and its tags, as far as volumes need them."""

    path: Path
    tags: "Dataset"

    @property
    def modality(self) -> str:
        """Such as CT or MR."""
        return str(self.tags.get("Modality", "missing"))

    @property
    def num_frames(self) -> int:
        """How many images it holds, 0 if it is none."""
        if not (self.tags.get("Rows") and self.tags.get("Columns")):
            return 0
        return int(self.tags.get("NumberOfFrames") or 1)


def holds_dicom(folder: Path) -> bool:
    """Tell whether a folder holds a DICOM file (one with the preamble of DICOM files)."""
    return any(_is_dicom(path) for path in _files(folder))


def list_series(folder: str | Path) -> tuple[SeriesSummary, ...]:
    """List the DICOM series in a folder, its subfolders aside.

    Returns:
        One entry a series, in the order of their UIDs; none where there is no DICOM file.

    Raises:
        DataError: If the folder or the header of a DICOM file cannot be read.
    """
    folder = Path(folder)
    try:
        series = _scan(folder)
    except OSError as error:
        raise DataError(
            f"{folder} could not be read: {error.strerror or error}. "
            "Check the path and the right to read it."
        ) from error
    return tuple(_summarise(uid, files) for uid, files in sorted(series.items()))


def choose_series(folder: Path, series_uid: str | None) -> list[DicomFile]:
    """Find the files of one series.

    Args:
        folder: Holds the files under any name; other files are passed over and logged.
        series_uid: SeriesInstanceUID of the series; None if there is only one.

    Raises:
        DataError: If there is no such series, more than one to choose from, or its files belong to
            different patients.
    """
    series = _scan(folder)
    listing = "; ".join(
        f"{uid} ({files[0].modality}, {len(files)} files)" for uid, files in sorted(series.items())
    )
    if not series:
        raise DataError(
            f"{folder}: there is no DICOM file in this folder (its subfolders aside). "
            "Give the folder that holds the slices."
        )
    if series_uid is not None:
        if series_uid not in series:
            raise DataError(f"{folder}: no series {series_uid}. It holds {listing}.")
        files = series[series_uid]
    elif len(series) > 1:
        raise DataError(
            f"{folder}: it holds {len(series)} series; say which one by series_uid, or give each "
            f"a folder of its own. It holds {listing}."
        )
    else:
        (files,) = series.values()
    if len({str(one.tags.get("PatientID", "")) for one in files}) > 1:
        raise DataError(
            f"{folder}: its files belong to different patients. Give each a folder of its own."
        )
    return files


def numbers(where: object, tags: "Dataset", name: str, count: int) -> Float64[np.ndarray, " count"]:
    """Read a tag of several numbers, in doubles.

    Args:
        where: What errors call the image.
        tags: Has the tag.
        name: The tag.
        count: How many numbers it has to hold.

    Raises:
        DataError: If it is missing, or holds anything else.
    """
    value = tags.get(name)
    try:
        found = np.array([float(part) for part in value], dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if len(found) != count or not np.isfinite(found).all():
        raise DataError(
            f"{where}: its tag {name} is {value!r}; expected {count} numbers. Without it "
            "the slice has no place in the patient. Export the series again."
        )
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _is_dicom(path: Path) -> bool:
    """Tell DICOM objects from other files; a DICOMDIR is the index of a medium, no image."""
    if path.name.upper() == "DICOMDIR":
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _scan(folder: Path) -> dict[str, list[DicomFile]]:
    """Read the tags of all DICOM files of a folder, by series."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    series: dict[str, list[DicomFile]] = {}
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
        series.setdefault(uid, []).append(DicomFile(path, tags))
    if others:
        logger.info("%s: %d files that are no DICOM images are passed over.", folder.name, others)
    return series


def _summarise(uid: str, files: list[DicomFile]) -> SeriesSummary:
    images = [one for one in files if one.num_frames]
    size = None
    if images:
        size = (
            sum(one.num_frames for one in images),
            int(images[0].tags.Rows),
            int(images[0].tags.Columns),
        )
    return SeriesSummary(uid, files[0].modality, len(files), size)
