"""Photographs with boxes."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.coco import read_coco

SIZE = (10, 20)


def write_image(path: Path, seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def content(names: list[str]) -> dict[str, Any]:
    return {
        "images": [
            {"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for n, name in enumerate(names)
        ],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 8, "bbox": [-1, 2, 5, 4]},
            {"id": 2, "image_id": 0, "category_id": 3, "bbox": [2, 2, 5, 0]},
            {"id": 3, "image_id": 0, "category_id": 3, "bbox": [2, 2, 5, 5], "iscrowd": 1},
            {"id": 4, "image_id": 0, "category_id": 3, "bbox": [25, 2, 5, 5]},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        write_image(tmp_path / "images" / f"{number}.png", number)
    (tmp_path / "instances.json").write_text(json.dumps(content(["0.png", "1.png"])))
    return tmp_path


def test_reads_boxes_and_pixels(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        cases = read_coco(folder)
    assert cases.class_names == ("cat", "dog")
    first, second = cases.cases
    np.testing.assert_array_equal(first.truth.boxes, [[0, 2, 4, 6], [2, 2, 7, 7]])
    assert first.truth.labels.tolist() == [1, 0]
    assert first.truth.crowd.tolist() == [False, True]
    assert len(second.truth) == 0
    assert first.size == SIZE
    for text in (
        "2 images",
        "1 boxes clipped",
        "1 boxes dropped for having no area",
        "1 boxes dropped for lying outside",
        "1 crowds to be ignored",
        "1 images without boxes",
    ):
        assert text in caplog.text
    slices = cases.read(1)
    assert slices.unit == "0-255"
    np.testing.assert_array_equal(
        slices.array.transpose(1, 2, 0), np.asarray(Image.open(folder / "images" / "1.png"))
    )
    with pytest.raises(ConfigError, match="num_slices is 9"):
        cases.read(1, num_slices=9)


def test_all_classes_as_one(folder: Path) -> None:
    cases = read_coco(folder, class_agnostic=True)
    assert cases.class_names == ("object",)
    assert cases.cases[0].truth.labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("place", "listed"),
    [
        ("{n}.png", "{n}.png"),
        ("images/train/{n}.png", "train/{n}.png"),
        ("images/{n}.png", "elsewhere/{n}.png"),
        ("train2017/{n}.png", "{n}.png"),
    ],
)
def test_finds_the_images(tmp_path: Path, place: str, listed: str) -> None:
    for number in range(2):
        write_image(tmp_path / place.format(n=number), number)
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(content([listed.format(n=n) for n in range(2)])))
    for data in (path, tmp_path):
        cases = read_coco(data)
        assert len(cases) == 2
        assert cases.read(0).array.shape == (3, *SIZE)


def test_a_file_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / f"{split}2017" / "0.png", len(split))
        path = tmp_path / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content(["0.png"])))
        (path.parent / f"captions_{split}2017.json").write_text("{}")
    cases = read_coco(tmp_path)
    assert [case.id for case in cases.cases] == ["train/0.png", "val/0.png"]
    assert cases.indices("val").tolist() == [1]
    assert not np.array_equal(cases.read(0).array, cases.read(1).array)

    path.write_text(json.dumps(content(["0.png"]) | {"categories": [{"id": 3}, {"id": 8}]}))
    with pytest.raises(DataError, match="other categories"):
        read_coco(tmp_path)
    assert read_coco(tmp_path, class_agnostic=True).class_names == ("object",)


def test_an_image_in_two_splits_is_refused(folder: Path) -> None:
    (folder / "instances.json").rename(folder / "train.json")
    (folder / "val.json").write_bytes((folder / "train.json").read_bytes())
    with pytest.raises(DataError, match=r"train/0\.png and val/0\.png are the same file"):
        read_coco(folder)


def test_which_file_is_meant_must_be_clear(folder: Path) -> None:
    (folder / "instances_b.json").write_text("{}")
    with pytest.raises(DataError, match="do not say which is for training"):
        read_coco(folder)
    with pytest.raises(DataError, match="holds no annotation file"):
        read_coco(folder / "images")
    with pytest.raises(DataError, match="is not there"):
        read_coco(folder / "nowhere")


def test_absent_images(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "images" / "1.png").unlink()
    with pytest.raises(DataError, match=r"image listed but not in .*images \(1\): 1.png"):
        read_coco(folder)
    with caplog.at_level(logging.WARNING):
        assert len(read_coco(folder, skip_bad=True)) == 1
    assert "1.png" in caplog.text
    (folder / "images" / "0.png").unlink()
    with pytest.raises(DataError, match=r"none of 2 images looked for"):
        read_coco(folder)


def test_unreadable_images(folder: Path) -> None:
    (folder / "images" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"image that cannot be read \(1\): .*1\.png is empty"):
        read_coco(folder)
    assert len(read_coco(folder, skip_bad=True)) == 1


def test_images_damaged_behind_their_header(folder: Path) -> None:
    path = folder / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:-300])
    cases = read_coco(folder)
    with pytest.raises(DataError, match=r"1\.png is damaged"):
        cases.read(1)
    assert len(read_coco(folder, skip_bad=True)) == 1


def test_an_image_of_another_size(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = read_coco(folder)
    Image.new("RGB", (SIZE[0], SIZE[1])).save(folder / "images" / "1.png")
    with pytest.raises(DataError, match=r"20 x 10 pixels .* drawn for 10 x 20"):
        cases.read(1)
    with pytest.raises(
        DataError, match=r"another size .* \(1\): 1.png \(20 x 10 instead of 10 x 20"
    ):
        read_coco(folder)
    with caplog.at_level(logging.WARNING):
        assert [case.id for case in read_coco(folder, skip_bad=True).cases] == ["0.png"]
    assert "skipped: image of another size" in caplog.text


def test_an_image_that_its_exif_turns_has_the_size_of_what_is_seen(folder: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (SIZE[0], SIZE[1])).save(folder / "images" / "1.png", exif=exif)
    assert read_coco(folder).read(1).array.shape == (3, *SIZE)


@pytest.mark.parametrize(
    "name", ["../0.png", "a/../0.png", "..\\0.png", "/0.png", "C:\\0.png", "\\\\host\\share\\0.png"]
)
def test_names_that_lead_out_of_the_folder(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(folder / "0.png", 5)
    (folder / "instances.json").write_text(json.dumps(content(["0.png", name])))
    with pytest.raises(DataError, match=r"leads out of the folder of images \(1\): "):
        read_coco(folder)
    with caplog.at_level(logging.WARNING):
        assert [case.id for case in read_coco(folder, skip_bad=True).cases] == ["0.png"]
    assert f"skipped: file_name that leads out of the folder of images: {name}" in caplog.text
    (folder / "instances.json").write_text(json.dumps(content([name])))
    with pytest.raises(DataError, match="no images that can be used"):
        read_coco(folder, skip_bad=True)


def test_names_longer_than_any_file(folder: Path) -> None:
    (folder / "instances.json").write_text(json.dumps(content(["0.png", "b" * 5000])))
    with pytest.raises(DataError, match=r"image listed but not in .* \(1\): b{200}\.\.\."):
        read_coco(folder)
    assert len(read_coco(folder, skip_bad=True)) == 1
    (folder / "instances.json").write_text(json.dumps(content(["b" * 5000])))
    with pytest.raises(DataError, match=r"none of 1 images looked for, such as b{200}\.\.\., is"):
        read_coco(folder)


def test_sizes_larger_than_any_image(folder: Path) -> None:
    given = content(["0.png", "1.png"])
    given["images"][1]["width"] = 10**400
    (folder / "instances.json").write_text(json.dumps(given))
    with pytest.raises(DataError, match=r"another size .* \(1\): 1.png"):
        read_coco(folder)


def test_a_size_that_is_not_listed_comes_from_the_file(folder: Path) -> None:
    given = content(["0.png", "1.png"])
    del given["images"][0]["width"]
    (folder / "instances.json").write_text(json.dumps(given))
    cases = read_coco(folder / "instances.json", images=folder / "images")
    assert cases.cases[0].size == SIZE
    np.testing.assert_array_equal(cases.cases[0].truth.boxes[0], [0, 2, 4, 6])


@pytest.mark.data
def test_real_photographs(data_folder: Path) -> None:
    cases = read_coco(data_folder / "coco128")
    assert len(cases) == 128
    assert cases.box_counts().sum() == 929
    assert len(cases.class_names) == 80
    assert cases.class_names[0] == "person"
    assert len(cases.indices("", with_boxes=True)) == 126
    for index in range(0, 128, 16):
        assert cases.read(index).array.shape[1:] == cases.cases[index].size


def test_grey_images_of_16_bits_are_no_photographs(folder: Path) -> None:
    pixels = np.full(SIZE, 32768, dtype=np.uint16)
    Image.fromarray(pixels).save(folder / "images" / "1.png")
    with pytest.raises(DataError, match=r"1\.png is grey with 16 bits.*layout of DeepLesion"):
        read_coco(folder)
    assert len(read_coco(folder, skip_bad=True)) == 1
