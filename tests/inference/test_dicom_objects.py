"""What DICOM SEG and SR objects have in common."""

import warnings
from pathlib import Path
from typing import get_args

import pytest
from pydicom import Dataset

from voxlift.core.errors import DataError
from voxlift.inference.dicom_objects import (
    Kind,
    complete_header,
    making,
    series_number,
)

KINDS: tuple[Kind, ...] = get_args(Kind)


def header(**tags: object) -> Dataset:
    made = Dataset()
    for name in ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID"):
        setattr(made, name, "1.2")
    for name, value in tags.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_headers_are_completed_or_refused(kind: Kind) -> None:
    found = header(PatientSex="FEMALE")
    complete_header(found, folder=Path("ct"), kind=kind)
    assert (found.PatientSex, found.PatientName, found.StudyDate) == ("", "", "")
    kept = header(PatientSex="F", PatientID="7")
    complete_header(kept, folder=Path("ct"), kind=kind)
    assert (kept.PatientSex, kept.PatientID) == ("F", "7")
    del kept.StudyInstanceUID
    with pytest.raises(DataError, match=rf"ct: .*no StudyInstanceUID.*--dicom-{kind.lower()} out"):
        complete_header(kept, folder=Path("ct"), kind=kind)


def test_series_are_numbered_apart_from_the_scanners() -> None:
    assert series_number(header(SeriesNumber=7)) == 1007
    assert series_number(header()) == 1000


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_library_says_of_headers_is_not_repeated(kind: Kind) -> None:
    with warnings.catch_warnings(record=True) as heard, making(kind, Path("ct")):
        warnings.warn("Doe^Jane is no name", stacklevel=1)
    assert not heard
    refused = pytest.raises(DataError, match=rf"ct: no DICOM {kind} .*\(ValueError\)")
    with refused as told, making(kind, Path("ct")):
        raise ValueError("Doe^Jane")
    assert "Doe" not in str(told.value)
    assert told.value.__cause__ is None
