"""DICOM series, written here slice by slice, with the traits of real ones."""

import logging
import math
import tracemalloc
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from voxlift.core.errors import DataError
from voxlift.data.dicom_tags import number, numbers
from voxlift.data.volumes import is_volume_path, read_volume

SERIES = "1.2.826.0.1.3680043.8.498.1"
PATIENT = "Doe^Jane"


def write_slice(
    path: Path,
    pixels: np.ndarray,
    *,
    position: Sequence[float],
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (0.75, 0.5),
    slope: float = 1,
    intercept: float = -1024,
    **tags: Any,
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.PatientName = PATIENT
    data.PatientID = "secret-7"
    data.Modality = "CT"
    data.SeriesInstanceUID = SERIES
    data.StudyInstanceUID = SERIES + ".9"
    data.ImagePositionPatient = list(position)
    data.ImageOrientationPatient = list(orientation)
    data.PixelSpacing = list(spacing)
    data.RescaleSlope, data.RescaleIntercept = slope, intercept
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def stored_pixels(count: int = 5) -> np.ndarray:
    numbers = np.random.default_rng(0).integers(0, 3000, (count, 4, 6))
    return numbers.astype(np.uint16)


def write_series(
    folder: Path, heights: Sequence[float] = (0, 2.5, 5, 7.5, 10), **tags: Any
) -> np.ndarray:
    """Write slices whose file names run against their positions."""
    pixels = stored_pixels(len(heights))
    for index, (height, one) in enumerate(zip(heights, pixels, strict=True)):
        name = f"image{len(heights) - index:03d}.dcm"
        write_slice(folder / name, one, position=(-10, -20, height - 100), **tags)
    return pixels.astype(np.int32) - 1024


def test_slices_are_sorted_by_position_and_scaled_to_hu(tmp_path: Path) -> None:
    expected = write_series(tmp_path)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.spacing_mm == (2.5, 0.75, 0.5)
    assert volume.origin_mm == (-10.0, -20.0, -100.0)
    np.testing.assert_array_equal(volume.direction, np.eye(3))


def test_agrees_with_pydicom(tmp_path: Path) -> None:
    write_series(tmp_path)
    slices = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    slices.sort(key=lambda one: one.ImagePositionPatient[2])
    expected = np.stack(
        [one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices]
    )
    np.testing.assert_array_equal(read_volume(tmp_path).array, expected)


def test_slope_of_each_slice_counts(tmp_path: Path) -> None:
    pixels = stored_pixels(3)
    slopes = (1.0, 0.5, 0.25)
    for index, slope in enumerate(slopes):
        write_slice(
            tmp_path / f"{index}",
            pixels[index],
            position=(0, 0, index),
            slope=slope,
            intercept=0,
            Modality="PT",
        )
    expected = pixels * np.array(slopes)[:, None, None]
    np.testing.assert_allclose(read_volume(tmp_path).array, expected, rtol=1e-6)


def test_signed_pixels_and_no_rescale(tmp_path: Path) -> None:
    pixels = stored_pixels(3).astype(np.int16) - 1500
    for index, one in enumerate(pixels):
        write_slice(
            tmp_path / f"{index}.dcm",
            one,
            position=(0, 0, index),
            Modality="MR",
            RescaleSlope=None,
            RescaleIntercept=None,
        )
    np.testing.assert_array_equal(read_volume(tmp_path).array, pixels)


def test_sagittal_series_keeps_its_direction(tmp_path: Path) -> None:
    row, column = np.array([0.0, 1, 0]), np.array([0.0, 0, -1])
    pixels = stored_pixels(4)
    for index, one in enumerate(pixels):
        write_slice(
            tmp_path / f"{index}.dcm",
            one,
            position=(50 - 3 * index, 0, 0),
            orientation=(*row, *column),
        )
    volume = read_volume(tmp_path)
    np.testing.assert_allclose(
        volume.direction, np.stack([row, column, np.cross(row, column)], axis=1)
    )
    np.testing.assert_array_equal(volume.array, pixels.astype(np.int32) - 1024)
    # The third slice has its place in the patient.
    np.testing.assert_allclose((volume.affine @ [2, 0, 0, 1])[:3], [44, 0, 0], atol=1e-9)


def test_rounded_positions_are_tolerated(tmp_path: Path) -> None:
    write_series(tmp_path, (0, 1.2, 2.5, 3.8, 5.0))
    with pytest.raises(DataError, match="not stand at equal distances"):
        read_volume(_series(tmp_path / "uneven", (0, 1.1, 2.5, 3.8, 5.0)))
    assert read_volume(tmp_path).spacing_mm[0] == pytest.approx(1.25)


def _series(folder: Path, heights: Sequence[float], **tags: Any) -> Path:
    folder.mkdir()
    write_series(folder, heights, **tags)
    return folder


@pytest.mark.parametrize("heights", [(0, 2.5, 5, 10, 12.5, 15), (0, 5, 7.5, 10, 12.5, 25, 27.5)])
def test_missing_slices_are_refused(tmp_path: Path, heights: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match=r"slices are missing.*2\.50 mm elsewhere"):
        read_volume(_series(tmp_path / "gap", heights))


def test_unequal_distances_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not stand at equal distances"):
        read_volume(_series(tmp_path / "uneven", (0, 2.5, 5, 8.5, 12)))


def test_two_slices_in_one_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"same place.*image00\d\.dcm"):
        read_volume(_series(tmp_path / "twice", (0, 2.5, 2.5, 5, 7.5)))


def test_gantry_tilt_is_refused(tmp_path: Path) -> None:
    for index, one in enumerate(stored_pixels(4)):
        write_slice(tmp_path / f"{index}.dcm", one, position=(0, 0.8 * index, 2.5 * index))
    with pytest.raises(DataError, match=r"17\.7 degrees .*tilted gantry"):
        read_volume(tmp_path)


def test_several_series_are_listed_and_chosen_by_uid(tmp_path: Path) -> None:
    write_series(tmp_path)
    for index, one in enumerate(stored_pixels(2)):
        write_slice(
            tmp_path / f"other{index}.dcm",
            one,
            position=(0, 0, index),
            SeriesInstanceUID=SERIES + ".2",
            Modality="MR",
        )
    with pytest.raises(DataError, match=r"2 series.*1 \(CT, 5 files\); .*1\.2 \(MR, 2 files\)"):
        read_volume(tmp_path)
    assert read_volume(tmp_path, series_uid=SERIES + ".2").size_voxels == (2, 4, 6)
    with pytest.raises(DataError, match=r"no series 9\.9.*5 files"):
        read_volume(tmp_path, series_uid="9.9")


def test_no_tag_of_the_patient_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path, PatientBirthDate="19500102")
    write_slice(tmp_path / "x.dcm", stored_pixels(1)[0], position=(0, 0, 99), PatientID="secret-8")
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(DataError, match="different patients") as caught,
    ):
        read_volume(tmp_path)
    told = str(caught.value) + caplog.text
    assert not any(word in told for word in ("secret", "Jane", "19500102"))


def test_other_files_are_passed_over_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = write_series(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "nested").mkdir()
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(read_volume(tmp_path).array, expected)
    assert "2 files that are no DICOM images" in caplog.text


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    assert not is_volume_path(tmp_path)
    with pytest.raises(DataError, match="no DICOM file"):
        read_volume(tmp_path)
    write_series(tmp_path)
    assert is_volume_path(tmp_path)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "SEG"}, "modality is SEG"),
        ({"Modality": None}, "modality is missing"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "pixels are MONOCHROME1"),
        ({"PhotometricInterpretation": "RGB"}, "pixels are RGB"),
        ({"ImagePositionPatient": None}, "tag ImagePositionPatient is missing"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "expected 6 numbers"),
        ({"PixelSpacing": None}, "tag PixelSpacing is missing"),
        ({"PixelSpacing": [0, 1]}, "spacing_mm"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.3, 1, 0]}, "right angles"),
        ({"SeriesInstanceUID": None}, "belongs to no series"),
        ({"Rows": None}, "no tag Rows"),
        ({"Modality": "RTSTRUCT", "Rows": None}, "modality is RTSTRUCT.*contours or reports"),
        ({"Modality": "SR", "Rows": None}, "modality is SR; volumes are read from CT"),
        ({"NumberOfFrames": 12}, r"12 frames in one file, .*for 0\. Convert it to NIfTI"),
        ({"PixelData": b"\0" * 20}, "it holds 20 of 48 bytes"),
        ({"PixelData": None}, "it ends before them"),
        ({"Rows": 60000, "Columns": 60000}, "5 x 60000 x 60000 voxels, more than"),
        ({"Rows": 6000, "Columns": 6000}, "it holds 48 of 72000000 bytes"),
    ],
)
def test_slices_that_make_no_volume_are_refused(
    tmp_path: Path, tags: dict[str, Any], message: str
) -> None:
    write_series(tmp_path, **tags)
    with pytest.raises(DataError, match=message):
        read_volume(tmp_path)


def test_slices_of_another_kind_are_refused(tmp_path: Path) -> None:
    odd: dict[str, dict[str, Any]] = {
        "size": {"pixels": np.zeros((5, 6), np.uint16)},
        "parallel": {"orientation": (0, 1, 0, 0, 0, -1)},
        "PixelSpacing": {"spacing": (0.8, 0.5)},
    }
    for message, changes in odd.items():
        folder = _series(tmp_path / message, (0, 1, 2))
        arguments = {"pixels": stored_pixels(1)[0], "position": (-10, -20, -97), **changes}
        write_slice(folder / "odd.dcm", **arguments)
        with pytest.raises(DataError, match=message):
            read_volume(folder)


def test_single_slice_takes_its_thickness(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    thick = read_volume(_series(tmp_path / "thick", (0,), SliceThickness=5))
    assert thick.size_voxels == (1, 4, 6)
    assert thick.spacing_mm == (5.0, 0.75, 0.5)
    assert read_volume(_series(tmp_path / "thin", (0,))).spacing_mm[0] == 1
    assert "1 mm is taken" in caplog.text


def test_cut_slice_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    path = tmp_path / "image003.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"image003\.dcm"):
        read_volume(tmp_path)


def test_single_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_series(tmp_path)
    with pytest.raises(DataError, match="give its folder"):
        read_volume(tmp_path / "image001.dcm")


def test_remedy_of_a_tilted_gantry_is_named(tmp_path: Path) -> None:
    for index, one in enumerate(stored_pixels(4)):
        write_slice(tmp_path / f"{index}.dcm", one, position=(0, 0.8 * index, 2.5 * index))
    with pytest.raises(DataError, match=r"straight grid first: dcm2niix"):
        read_volume(tmp_path)


def test_damaged_headers_tell_nothing_of_the_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.dcm"
    write_slice(path, stored_pixels(1)[0], position=(0, 0, 0))
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    messages = []
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for place in generator.integers(132, len(whole) - 48, 300):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(generator.integers(8))
            path.write_bytes(flipped)
            try:
                read_volume(tmp_path)
            except DataError as error:
                messages.append(str(error))
    assert len(messages) > 20
    told = "".join([*messages, *(str(one.message) for one in warned), caplog.text])
    assert not any(word in told for word in ("Doe", "Jane", "secret"))


def test_non_ascii_folder(tmp_path: Path) -> None:
    folder = tmp_path / "größe 断層" / ("f" * 200)
    folder.mkdir(parents=True)
    expected = write_series(folder)
    np.testing.assert_array_equal(read_volume(folder).array, expected)


@pytest.mark.parametrize("tag", [b"\x10\x00\x20\x00LO", b"\xe0\x7f\x10\x00OW"])
def test_length_beyond_the_file_takes_no_memory(tmp_path: Path, tag: bytes) -> None:
    write_series(tmp_path)
    path = min(tmp_path.iterdir())
    data = path.read_bytes()
    at = data.index(tag)
    # A tag of unknown bytes, which may be of any length.
    length = (2**32 - 16).to_bytes(4, "little")
    path.write_bytes(data[:at] + tag[:4] + b"OB\0\0" + length + data[at + 8 :])
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read_volume(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


class Unreadable:
    """Tags that fail when they are taken out, as some damaged ones of pydicom's do."""

    def get(self, name: str, default: object = None) -> object:
        raise AttributeError(name)

    def __contains__(self, name: str) -> bool:
        return True


@pytest.mark.parametrize("value", [5, ["x"], [None, 1], [1, math.inf], [1, pydicom.Dataset()]])
def test_tags_of_other_kinds_are_refused(value: object) -> None:
    for tags in ({"PixelSpacing": value}, Unreadable()):
        with pytest.raises(DataError, match="PixelSpacing is something else; expected 2 numbers"):
            numbers("a.dcm", tags, "PixelSpacing", 2)  # type: ignore[arg-type]
    for one in (pydicom.Dataset(), [1, 2], "x"):
        with pytest.raises(DataError, match="Rows is not a number"):
            number("a.dcm", {"Rows": one}, "Rows")  # type: ignore[arg-type]
