"""Whatever holds images with boxes is opened by what it is."""

import json
from pathlib import Path

import pytest
from PIL import Image

from voxlift.core.errors import DataError
from voxlift.data.deeplesion_phantoms import write_deeplesion_like
from voxlift.data.detection_source import open_detection


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "like"
    return write_deeplesion_like(folder, num_patients=3, seed=3, reach_mm=5.0, intervals_mm=(5.0,))


@pytest.mark.parametrize(
    "part", [".", "DL_info.csv", "annotations", "annotations/deeplesion_val.json"]
)
def test_opens_deeplesion(lesions: Path, part: str) -> None:
    cases = open_detection(lesions / part, noisy="ignore")
    assert cases.unit == "HU"
    assert cases.class_names == ("lesion",)


def test_opens_photographs(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 0, "file_name": "a.png", "width": 20, "height": 10}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    for data in (tmp_path, str(tmp_path / "boxes.json")):
        cases = open_detection(data, images=tmp_path, class_agnostic=True)
        assert cases.unit == "0-255"
        assert cases.class_names == ("object",)


def test_refuses_others(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        open_detection(tmp_path / "nothing")
    with pytest.raises(DataError, match="holds no annotation file"):
        open_detection(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="no data set for detection"):
        open_detection(tmp_path / "a.png")
    (tmp_path / "deep.json").write_text('{"images": ' + "[" * 200_000)
    with pytest.raises(DataError, match="nested too deeply"):
        open_detection(tmp_path / "deep.json")
    (tmp_path / "empty.json").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.json is empty"):
        open_detection(tmp_path / "empty.json")


@pytest.mark.data
def test_real_key_slices_of_8_bits_open_as_photographs(data_folder: Path) -> None:
    cases = open_detection(data_folder / "deeplesion45")
    assert len(cases) == 45
    assert cases.box_counts().sum() == 46
    assert cases.read(0).array.shape == (3, 512, 512)
