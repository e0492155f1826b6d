"""What the DICOM objects that Voxlift writes for a series have in common, SEG and SR alike.

highdicom makes them, an optional part of the installation.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from voxlift.core.errors import DataError
from voxlift.core.files import write_aside

if TYPE_CHECKING:
    from pydicom import Dataset

Kind = Literal["SEG", "SR"]

# Anonymised series often lack these; they may be empty.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
_HAS_TO_BE_THERE = ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
_SEXES = ("M", "F", "O", "")
_FIRST_SERIES_NUMBER = 1000


def complete_header(header: "Dataset", *, folder: Path, kind: Kind) -> None:
    """Fill what may be empty in the header of a slice, so that an object can be made for it.

    Raises:
        DataError: If something is missing that cannot be empty.
    """
    for name in _HAS_TO_BE_THERE:
        if not header.get(name):
            raise DataError(
                f"{folder}: the series has no {name}, which a DICOM {kind} object needs. Export it "
                f"again, or leave --dicom-{kind.lower()} out; the other files do not need it."
            )
    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    if header.PatientSex not in _SEXES:
        header.PatientSex = ""


def series_number(source: "Dataset") -> int:
    """Number the series of an object, apart from those of the scanner."""
    number = source.get("SeriesNumber")
    return _FIRST_SERIES_NUMBER + (int(number) if number is not None else 0)


@contextmanager
def making(kind: Kind, folder: Path) -> Iterator[None]:
    """Keep what a library says of headers to itself: it may be the patient's name.

    Raises:
        DataError: If the headers of the series do not allow the object; only the kind of the error
            is told.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder}: no DICOM {kind} object can be made for this series "
            f"({type(error).__name__}). Correct its headers, or leave --dicom-{kind.lower()} out; "
            "the other files do not need them."
        ) from None


def write_dicom(path: Path, dataset: "Dataset") -> None:
    """Write a DICOM object in one step.

    Raises:
        DataError: If it cannot be written.
    """
    with write_aside(path) as aside:
        dataset.save_as(aside)
