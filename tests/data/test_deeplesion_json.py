"""DeepLesion's annotations in COCO's form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.deeplesion_json import is_lesion_annotations, read_lesion_annotations

IMAGE = {
    "file_name": "000002_01_01/162.png",
    "height": 512,
    "width": 512,
    "id": 1,
    "slice_no": 162,
    "spacing": 0.859375,
    "slice_intv": 5.0,
    "z_position": 0.6,
    "windows": [-175.0, 275.0],
}
BOX = {"image_id": 1, "bbox": [10.5, 20.0, 30.0, 40.0], "category_id": 1, "id": 1, "area": 9999.0}


def write(path: Path, change: dict[str, Any], *, second: bool = False) -> Path:
    images = [IMAGE | change]
    if second:
        images.append(IMAGE | {"id": 2, "file_name": "000002_01_01/170.png", "slice_no": 170})
    content = {
        "images": [{k: v for k, v in one.items() if v is not None} for one in images],
        "annotations": [BOX, BOX | {"id": 2, "noisy": 1, "iscrowd": 1}],
        "categories": [{"supercategory": "DeepLesion", "id": 1, "name": "Lesion"}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deeplesion_val.json"


def test_reads_what_is_told(path: Path) -> None:
    images, names, counts = read_lesion_annotations(write(path, {}), split="val")
    assert len(images) == 1
    image = images[0]
    assert (image.series, image.number, image.split) == ("000002_01_01", 162, "val")
    assert (image.spacing_mm, image.interval_mm) == (0.859375, 5.0)
    assert image.corners.tolist() == [[10.5, 20, 40.5, 60]] * 2
    assert image.noisy.tolist() == [False, True]
    assert image.crowd.tolist() == [False, True]
    assert image.window_hu == (-175.0, 275.0)
    assert image.lesion_types == (None, None)
    assert names == ("Lesion",)
    assert not counts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slice_intv": 0}, r"slice_intv missing, zero or no number \(1\): 000002_01_01/162.png"),
        ({"slice_intv": None}, "slice_intv missing"),
        ({"slice_intv": -1.0}, "slice_intv missing"),
        ({"slice_intv": "5"}, "slice_intv missing"),
        ({"slice_intv": 10**400}, "slice_intv missing"),
        ({"slice_no": 163}, "slice_no that is not the number in file_name"),
        ({"file_name": "162.png"}, "file_name that is not"),
        ({"file_name": f"000002_01_01/{'1' * 5000}.png"}, "file_name that is not"),
    ],
)
def test_unusable_images(path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_lesion_annotations(write(path, change), split="")
    with pytest.raises(DataError, match="no key slices that can be used"):
        read_lesion_annotations(path, split="", skip_bad=True)
    images, _, _ = read_lesion_annotations(
        write(path, change, second=True), split="", skip_bad=True
    )
    assert [image.number for image in images] == [170]


def test_spacing_and_window_may_be_missing(path: Path) -> None:
    write(path, {"spacing": None, "windows": ["a", "b"], "slice_no": None})
    images, _, _ = read_lesion_annotations(path, split="")
    assert (images[0].spacing_mm, images[0].window_hu) == (None, None)


def test_tells_its_files_from_those_of_photographs() -> None:
    assert is_lesion_annotations(IMAGE)
    assert not is_lesion_annotations({"file_name": "000000000009.jpg"})
    assert not is_lesion_annotations({"file_name": IMAGE["file_name"]})
    assert not is_lesion_annotations({})


@pytest.mark.data
def test_real_annotations(data_folder: Path) -> None:
    images, names, counts = read_lesion_annotations(
        data_folder / "deeplesion_val.json", split="val"
    )
    assert len(images) == 4793
    assert sum(len(image.corners) for image in images) == 4889
    assert sum(int(image.noisy.sum()) for image in images) == 2
    assert names == ("Lesion",)
    assert not counts
    intervals = np.array([image.interval_mm for image in images])
    assert (intervals.min(), intervals.max()) == (0.25, 5.0)
    assert all(image.spacing_mm and image.window_hu for image in images)
