"""Every volume is read once, and nothing is in two splits under whatever name."""

import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.case_checks import check_cases
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.classification_source import open_classification
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume

VOLUMES = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


def test_distinct_cases_stay_as_they_are() -> None:
    cases = ClassificationCases.from_arrays(VOLUMES, [0, 1, 0, 1], groups=list("abab"))
    assert check_cases(cases).groups == cases.groups


def test_same_voxels_in_two_splits_are_refused_whatever_the_type() -> None:
    volumes = [*VOLUMES[:3], VOLUMES[0].astype(np.float64)]
    cases = ClassificationCases.from_arrays(
        volumes, [0, 1, 0, 1], splits=["train", "train", "test", "test"]
    )
    with pytest.raises(DataError, match=r"00000 of split 'train' and 00003.*the same voxels"):
        check_cases(cases)


def test_copies_in_other_splits_are_skipped_on_request(caplog: pytest.LogCaptureFixture) -> None:
    volumes = [VOLUMES[0], VOLUMES[1], VOLUMES[0], VOLUMES[0], VOLUMES[2], VOLUMES[1]]
    cases = ClassificationCases.from_arrays(
        volumes, [0, 1, 0, 0, 1, 1], splits=["train", "train", "test", "val", "train", "train"]
    )
    with caplog.at_level(logging.WARNING):
        checked = check_cases(cases, skip_bad=True)
    assert [case.id for case in checked.cases] == ["00001", "00002", "00004", "00005"]
    assert "skipped: 00000 is in another split" in caplog.text
    assert checked.groups[0] == checked.groups[3]


def test_same_group_in_two_splits_is_refused() -> None:
    cases = ClassificationCases.from_arrays(
        VOLUMES, [0, 1, 0, 1], groups=list("abca"), splits=["train", "train", "test", "test"]
    )
    with pytest.raises(DataError, match="belong to the same group"):
        check_cases(cases)


def test_same_voxels_without_splits_become_one_group(caplog: pytest.LogCaptureFixture) -> None:
    volumes = [VOLUMES[0], VOLUMES[1], VOLUMES[0], VOLUMES[1]]
    cases = ClassificationCases.from_arrays(volumes, [0, 1, 0, 0], groups=["a", "b", "c", "a"])
    with caplog.at_level(logging.WARNING):
        checked = check_cases(cases)
    # a and c are equal, b and a are equal: all belong together.
    assert len(set(checked.groups)) == 1
    assert "00001 and 00003 hold the same voxels, but have different labels" in caplog.text
    assert "2 volumes are there more than once" in caplog.text


def test_blank_volumes_are_not_compared() -> None:
    cases = ClassificationCases.from_arrays(
        np.zeros((2, 3, 3, 3)), [0, 1], splits=["train", "test"]
    )
    assert len(check_cases(cases)) == 2


def test_the_same_scan_in_two_formats_is_found(tmp_path: Path) -> None:
    for number, name in enumerate(["a.nii.gz", "b.mha", "c.nii.gz", "d.mha"]):
        array = np.arange(60, dtype=np.int16).reshape(3, 4, 5) + min(number, 2)
        write_volume(tmp_path / name, Volume(array))
    (tmp_path / "list.csv").write_text(
        "path,label,split\na.nii.gz,0,train\nb.mha,1,train\nc.nii.gz,0,train\nd.mha,1,test\n"
    )
    with pytest.raises(DataError, match=r"c\.nii\.gz of split 'train' and d\.mha of split 'test'"):
        open_classification(tmp_path / "list.csv")


@pytest.mark.parametrize(
    "bad",
    [
        np.full((2, 2, 2), np.nan),
        np.full((2, 2, 2), np.inf),
        np.zeros((2, 2)),
        np.zeros((2, 2, 2, 2, 2)),
        np.zeros((0, 2, 2)),
    ],
    ids=["nan", "inf", "2d", "5d", "empty"],
)
def test_bad_volumes_are_errors_that_name_the_file_or_are_skipped(
    tmp_path: Path, bad: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    for name, array in zip("abcd", [*VOLUMES[:3], bad], strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    path = tmp_path / "list.csv"
    path.write_text("path,label\na.npy,0\nb.npy,1\nc.npy,0\nd.npy,1\n")
    with pytest.raises(DataError, match=r"d\.npy"):
        open_classification(path)
    with caplog.at_level(logging.WARNING):
        cases = open_classification(path, skip_bad=True)
    assert [case.id for case in cases.cases] == ["a.npy", "b.npy", "c.npy"]
    assert "d.npy" in caplog.text
    assert "1 of 4 volumes skipped" in caplog.text


def write_dicom_series(folder: Path, array: np.ndarray) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    series = generate_uid()
    for number, plane in enumerate(array.astype(np.int16)):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.SeriesInstanceUID, one.Modality, one.PatientName = series, "CT", "Doe^Jane"
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.Rows, one.Columns = plane.shape
        one.PixelSpacing, one.SliceThickness = [1.0, 1.0], 2.0
        one.ImagePositionPatient = [0.0, 0.0, 2.0 * number]
        one.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.PixelData = plane.tobytes()
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def test_a_manifest_may_mix_all_formats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a.nii.gz", "b.nrrd", "c.mha", "d.npz", "e.npy", "series"]
    arrays = [np.arange(60, dtype=np.int16).reshape(3, 4, 5) * (n + 1) for n in range(6)]
    for name, array in zip(names[:4], arrays, strict=False):
        write_volume(tmp_path / name, Volume(array))
    np.save(tmp_path / "e.npy", arrays[4])
    write_dicom_series(tmp_path / "series", arrays[5])
    path = tmp_path / "list.csv"
    path.write_text("path,label\n" + "\n".join(f"{name},{n % 2}" for n, name in enumerate(names)))
    with caplog.at_level(logging.DEBUG):
        cases = open_classification(path)
    for index, array in enumerate(arrays):
        np.testing.assert_array_equal(cases.read_volume(index).array, array)
    assert cases.read_volume(5).spacing_mm == (2.0, 1.0, 1.0)
    assert "Doe" not in caplog.text


def test_text_named_as_a_volume_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VOLUMES[0])
    (tmp_path / "b.nii.gz").write_text("not a volume")
    (tmp_path / "list.csv").write_text("path,label\na.npy,0\nb.nii.gz,1\n")
    with pytest.raises(DataError, match=r"b\.nii\.gz"):
        open_classification(tmp_path / "list.csv")


def test_mask_of_another_size_is_an_error() -> None:
    masks = [np.ones((3, 3, 3)), np.ones((2, 3, 3))]
    cases = ClassificationCases.from_arrays(VOLUMES[:2], [0, 1], masks=masks)
    with pytest.raises(DataError, match=r"mask of case 00001 has the size \(2, 3, 3\)"):
        check_cases(cases)


def test_what_opens_as_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        open_classification(tmp_path / "gone.csv")
    (tmp_path / "volume.nii").write_bytes(b"")
    with pytest.raises(DataError, match="no data set for classification"):
        open_classification(tmp_path / "volume.nii")
