"""Which DICOM series lie in a folder. No tag of the patient leaves this file."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxlift.core.errors import DataError
from voxlift.core.types import Triple
from voxlift.data.dicom_tags import number, read_tags

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

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
    "RescaleSlope",
    "RescaleIntercept",
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


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A DICOM file and its tags, as far as volumes need them.

    Attributes:
        path: Where it is.
        tags: Those that say what it is and where it lies in the patient.
        syntax: The transfer syntax: how its pixels are compressed, if they are.
        modality: Such as CT or MR.
        num_frames: How many images it holds, 0 if it is none.
        size: Rows and columns.
    """

    path: Path
    tags: "Dataset"
    syntax: "UID | None"
    modality: str
    num_frames: int
    size: tuple[int, int]


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
            f"{folder}: it holds {len(series)} series; say which one by series_uid (--series-uid), "
            f"or give each a folder of its own. It holds {listing}."
        )
    else:
        (files,) = series.values()
    if len({str(one.tags.get("PatientID", "")) for one in files}) > 1:
        raise DataError(
            f"{folder}: its files belong to different patients. Give each a folder of its own."
        )
    return files


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
    series: dict[str, list[DicomFile]] = {}
    others = 0
    for path in _files(folder):
        if not _is_dicom(path):
            others += 1
            continue
        file = _open(path)
        series.setdefault(str(file.tags.SeriesInstanceUID), []).append(file)
    if others:
        logger.info("%s: %d files that are no DICOM images are passed over.", folder.name, others)
    return series


def _open(path: Path) -> DicomFile:
    tags = read_tags(path, _TAGS)
    if not tags.get("SeriesInstanceUID"):
        raise DataError(
            f"{path}: it has no SeriesInstanceUID, so it belongs to no series, or it was cut off. "
            "Copy or export the series again, or take the file out of the folder."
        )
    rows, columns, frames = (
        int(number(path, tags, name) or 0) for name in ("Rows", "Columns", "NumberOfFrames")
    )
    syntax: UID | None = tags.file_meta.get("TransferSyntaxUID")
    return DicomFile(
        path=path,
        tags=tags,
        # A damaged one may be several.
        syntax=syntax if isinstance(syntax, str) else None,
        # As many characters as the standard allows.
        modality=str(tags.get("Modality") or "missing")[:16],
        num_frames=max(frames, 1) if rows > 0 and columns > 0 else 0,
        size=(rows, columns),
    )


def _summarise(uid: str, files: list[DicomFile]) -> SeriesSummary:
    images = [one for one in files if one.num_frames]
    size = None
    if images:
        size = (sum(one.num_frames for one in images), *images[0].size)
    return SeriesSummary(uid, files[0].modality, len(files), size)
