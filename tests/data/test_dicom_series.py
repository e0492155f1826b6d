"""What a folder tells of its DICOM series before one is read."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from voxlift.core.errors import DataError
from voxlift.data.dicom_series import SeriesSummary, choose_series, holds_dicom, list_series


def write(path: Path, series: str, modality: str, **tags: Any) -> None:
    """Write a file without pixels, which are not looked at."""
    data = Dataset()
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data.PatientName, data.PatientID = "Doe^Jane", "secret-7"
    data.Modality, data.SeriesInstanceUID = modality, series
    data.SeriesDescription = "Doe^Jane's abdomen"
    for name, value in tags.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CT of three slices, an MR of one file of 20, contours, and what is no DICOM."""
    for number in range(3):
        write(tmp_path / f"ct{number}", "1.2.9", "CT", Rows=4, Columns=6)
    write(tmp_path / "mr.dcm", "1.2.10", "MR", Rows=8, Columns=7, NumberOfFrames=20)
    write(tmp_path / "contours.dcm", "1.2.11", "RTSTRUCT")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_series_are_listed_without_a_word_on_the_patient(folder: Path) -> None:
    found = list_series(folder)
    assert found == (
        SeriesSummary("1.2.10", "MR", 1, (20, 8, 7)),
        SeriesSummary("1.2.11", "RTSTRUCT", 1, None),
        SeriesSummary("1.2.9", "CT", 3, (3, 4, 6)),
    )
    assert "Doe" not in repr(found)
    assert "secret" not in repr(found)


def test_series_are_chosen_by_uid(folder: Path) -> None:
    files = choose_series(folder, "1.2.9")
    assert sorted(one.path.name for one in files) == ["ct0", "ct1", "ct2"]
    with pytest.raises(DataError, match=r"3 series; .*series_uid.*1\.2\.11 \(RTSTRUCT, 1 files\)"):
        choose_series(folder, None)
    with pytest.raises(DataError, match=r"no series 1\.2\.12\. It holds 1\.2\.10 \(MR"):
        choose_series(folder, "1.2.12")


def test_folders_without_series(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    assert list_series(tmp_path) == ()
    assert not holds_dicom(tmp_path)
    with pytest.raises(DataError, match=r"gone could not be read: No such file"):
        list_series(tmp_path / "gone")


def test_two_patients_are_refused_only_within_a_series(folder: Path) -> None:
    write(folder / "other.dcm", "1.2.10", "MR", PatientID="secret-8")
    assert len(list_series(folder)) == 3
    assert len(choose_series(folder, "1.2.9")) == 3
    with pytest.raises(DataError, match="belong to different patients") as caught:
        choose_series(folder, "1.2.10")
    assert "secret" not in str(caught.value)


def test_damaged_header_is_refused(folder: Path) -> None:
    path = folder / "ct1"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DataError, match=r"ct1: .* or it was cut off"):
        list_series(folder)


def test_numbers_that_are_none_are_refused(folder: Path) -> None:
    path = folder / "mr.dcm"
    path.write_bytes(path.read_bytes().replace(b"IS\x02\x0020", b"IS\x02\x002x"))
    with pytest.raises(DataError, match=r"mr\.dcm: its tag NumberOfFrames is not a number"):
        list_series(folder)
