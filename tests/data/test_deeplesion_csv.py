"""DeepLesion's table."""

from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.deeplesion_csv import COLUMNS, read_lesion_table
from voxlift.data.lesion_images import parse_name

# The form of the published table, with other numbers.
ROW = {
    "File_name": "000007_01_02_109.png",
    "Patient_index": "7",
    "Study_index": "1",
    "Series_ID": "2",
    "Key_slice_index": "109",
    "Measurement_coordinates": '"33.5, 95.0, 34.0, 106.9, 31.1, 101.6, 36.2, 101.1"',
    "Bounding_boxes": '"26.5, 90, 41.25, 111.5"',
    "Lesion_diameters_Pixel_": '"12, 5.5"',
    "Normalized_lesion_location": '"0.44, 0.28, 0.43"',
    "Coarse_lesion_type": "3",
    "Possibly_noisy": "0",
    "Slice_range": '"103, 115"',
    "Spacing_mm_px_": '"0.5, 0.5, 5"',
    "Image_size": '"512, 512"',
    "DICOM_windows": '"-175, 275"',
    "Patient_gender": "F",
    "Patient_age": "62",
    "Train_Val_Test": "3",
}


def write(path: Path, *changes: dict[str, str]) -> Path:
    lines = [",".join(COLUMNS)]
    lines += [",".join((ROW | change)[column] for column in COLUMNS) for change in changes]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "DL_info.csv"


def test_reads_what_is_told(path: Path) -> None:
    images, counts = read_lesion_table(write(path, {}))
    assert len(images) == 1
    image = images[0]
    assert image.name == "000007_01_02/109.png"
    assert (image.series, image.number, image.split) == ("000007_01_02", 109, "test")
    assert (image.spacing_mm, image.interval_mm) == (0.5, 5.0)
    # The table counts from 1.
    np.testing.assert_array_equal(image.corners, [[25.5, 89, 40.25, 110.5]])
    assert image.diameters_mm == ((6.0, 2.75),)
    assert image.lesion_types == ("mediastinum",)
    assert image.window_hu == (-175.0, 275.0)
    assert image.slice_range == (103, 115)
    assert image.noisy.tolist() == [False]
    assert image.sizes == ((512, 512),)
    assert not counts


def test_lesions_of_one_slice_are_put_together(path: Path) -> None:
    other = {
        "Bounding_boxes": '"1, 2, 3, 4"',
        "Possibly_noisy": "1",
        "Coarse_lesion_type": "-1",
        "Lesion_diameters_Pixel_": "",
        "Slice_range": '"100, 112"',
    }
    third = {"File_name": "000007_01_02_009.png", "Train_Val_Test": "1"}
    images, counts = read_lesion_table(write(path, {}, other, third, other))
    assert [image.name for image in images] == ["000007_01_02/109.png", "000007_01_02/009.png"]
    assert images[0].corners.tolist() == [[25.5, 89, 40.25, 110.5], [0, 1, 2, 3]]
    assert images[0].noisy.tolist() == [False, True]
    assert images[0].lesion_types == ("mediastinum", None)
    assert images[0].diameters_mm == ((6.0, 2.75), None)
    assert images[0].slice_range == (100, 115)
    assert images[1].split == "train"
    assert counts == {"lesions listed twice": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"File_name": "109.png"}, r"File_name that is not .* \(1\): row 3"),
        ({"Bounding_boxes": '"1, 2, 3"'}, "Bounding_boxes that are not 4 numbers"),
        ({"Bounding_boxes": '"1, 2, 3, nan"'}, "Bounding_boxes"),
        ({"Bounding_boxes": '"1, 2, 3, 1e300"'}, "Bounding_boxes"),
        ({"Spacing_mm_px_": '"0.5, 0.5, 0"'}, "Spacing_mm_px_ that is not 3 numbers above 0"),
        ({"Spacing_mm_px_": ""}, "Spacing_mm_px_"),
        ({"Train_Val_Test": "4"}, "Train_Val_Test that is not 1, 2 or 3"),
        ({"Train_Val_Test": "1", "Bounding_boxes": '"1, 2, 3, 4"'}, "contradicts another"),
    ],
)
def test_unusable_rows(path: Path, change: dict[str, str], message: str) -> None:
    write(path, {}, change)
    with pytest.raises(DataError, match=message):
        read_lesion_table(path)
    images, _ = read_lesion_table(path, skip_bad=True)
    assert len(images) == 1
    assert len(images[0].corners) == 1


def test_unusable_tables(path: Path) -> None:
    with pytest.raises(DataError, match="could not be read"):
        read_lesion_table(path)
    write(path)
    with pytest.raises(DataError, match="is empty"):
        read_lesion_table(path)
    path.write_text("path,label\na,b\n")
    with pytest.raises(DataError, match="no column File_name, Bounding_boxes, Spacing_mm_px_"):
        read_lesion_table(path)
    write(path, {"Bounding_boxes": ""})
    with pytest.raises(DataError, match="no lesions that can be used"):
        read_lesion_table(path, skip_bad=True)


def test_splits_may_be_missing(path: Path) -> None:
    path.write_text(
        'File_name,Bounding_boxes,Spacing_mm_px_\n000001_01_01_004.png,"1, 1, 5, 5","0.8, 0.8, 1"\n'
    )
    image = read_lesion_table(path)[0][0]
    assert (image.split, image.slice_range, image.window_hu) == ("", None, None)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("000001_01_01_109.png", ("000001_01_01", 109)),
        ("000001_01_01/109.png", ("000001_01_01", 109)),
        ("Images_png/000001_01_01/1009.png", ("000001_01_01", 1009)),
        ("000001_01_109.png", None),
        ("cat.jpg", None),
    ],
)
def test_names_of_key_slices(name: str, parsed: tuple[str, int] | None) -> None:
    assert parse_name(name) == parsed
