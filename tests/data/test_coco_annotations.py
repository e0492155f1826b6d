"""Annotation files in COCO's form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.coco_annotations import read_coco_annotations

Content = dict[str, list[dict[str, Any]]]


def content() -> Content:
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 10, "width": 20},
            {"id": 3, "file_name": "b.png", "height": 10, "width": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0.5, 0, 1, 1]},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 2, "name": "ant"}],
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instances.json"


def write(path: Path, given: object) -> Path:
    path.write_text(json.dumps(given), encoding="utf-8")
    return path


def test_numbers_categories_without_gaps(path: Path) -> None:
    annotations = read_coco_annotations(write(path, content()))
    assert annotations.categories == {2: "ant", 90: "zebra"}
    first, second = annotations.images
    assert (first.name, first.size) == ("a.png", (10, 20))
    assert annotations.labels(first).tolist() == [1, 0]
    np.testing.assert_array_equal(first.corners, [[1, 2, 4, 6], [0.5, 0, 1.5, 1]])
    assert first.crowd.tolist() == [True, False]
    assert second.annotations == ()
    assert second.corners.shape == (0, 4)
    assert not annotations.counts


def test_repeated_entries_count_once(path: Path) -> None:
    given = content()
    given["images"].append(dict(given["images"][0]))
    given["annotations"].append(dict(given["annotations"][0]))
    given["annotations"].append(given["annotations"][1] | {"bbox": [2, 2, 2, 2]})
    given["annotations"].append(given["annotations"][1] | {"id": 9, "image_id": 99})
    annotations = read_coco_annotations(write(path, given))
    assert len(annotations.images) == 2
    assert len(annotations.images[0].annotations) == 3
    assert annotations.counts == {
        "images listed twice": 1,
        "annotations given twice": 1,
        "annotation ids of two boxes": 1,
        "annotations of images not listed": 1,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{", "is no JSON"),
        ("[]", "no list of images"),
        ('{"images": ' + "[" * 200_000, "nested too deeply"),
        ('{"images": []}', "no list of annotations"),
        ('{"images": [], "annotations": []}', "its list of images has no entry"),
    ],
)
def test_empty_or_foreign_files(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_coco_annotations(path)


def test_no_boxes_at_all(path: Path) -> None:
    with pytest.raises(DataError, match="list of annotations has no entry"):
        read_coco_annotations(write(path, content() | {"annotations": []}))


def test_missing_file(path: Path) -> None:
    with pytest.raises(DataError, match="could not be read"):
        read_coco_annotations(path)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "has no categories"),
        ([{"id": 2, "name": "ant"}, {"id": 2, "name": "bee"}], "'ant' and 'bee' have the same id"),
        ([{"name": "ant"}], "a category has the id None"),
    ],
)
def test_unusable_categories(path: Path, categories: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_coco_annotations(write(path, content() | {"categories": categories}))


@pytest.mark.parametrize(
    ("images", "message", "left"),
    [
        (
            [{"id": 3, "file_name": "c.png"}],
            r"image id of two images \(1\): 3 \(c.png\)",
            {"a.png"},
        ),
        ([{"id": 4, "file_name": "a.png"}], r"file under two image ids \(1\): a.png", None),
        ([{"id": 4}], r"image without id or file_name \(1\): entry 2", None),
        (["d.png"], "image without id", None),
        ([{"id": 4, "file_name": 4}], r"file_name that is no text \(1\): entry 2", None),
        ([{"id": 4, "file_name": ["c.png"]}], "file_name that is no text", None),
    ],
)
def test_unusable_images(
    path: Path, images: list[Any], message: str, left: set[str] | None
) -> None:
    given = content()
    given["images"] += images
    write(path, given)
    with pytest.raises(DataError, match=message):
        read_coco_annotations(path)
    annotations = read_coco_annotations(path, skip_bad=True)
    assert {image.name for image in annotations.images} == (left or {"a.png", "b.png"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"annotation without a bbox of 4 numbers \(1\): annotation 2"),
        ({"bbox": [1, 2, 3, float("nan")]}, "without a bbox"),
        ({"bbox": None}, "without a bbox"),
        ({"bbox": [1, 2, 3, 10**400]}, "without a bbox"),
        ({"bbox": [1, 2, 3, 1e300]}, "without a bbox"),
        ({"bbox": [1, 2, 3, float("inf")]}, "without a bbox"),
        ({"category_id": 5}, "unknown category"),
        ({"category_id": None}, "unknown category"),
        ({"image_id": None}, "annotation without image_id"),
    ],
)
def test_unusable_boxes(path: Path, change: dict[str, Any], message: str) -> None:
    given = content()
    given["annotations"][1] |= change
    write(path, given)
    with pytest.raises(DataError, match=message):
        read_coco_annotations(path)
    assert len(read_coco_annotations(path, skip_bad=True).images[0].annotations) == 1


def test_sizes_may_be_missing(path: Path) -> None:
    given = content()
    del given["images"][0]["height"]
    given["images"][1]["width"] = 0
    annotations = read_coco_annotations(write(path, given))
    assert [image.size for image in annotations.images] == [None, None]
