"""Validation images in one folder, with their classes in a list, as ImageNet publishes them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from voxlift.core.errors import DataError
from voxlift.data.image_source import ImageSource, open_images

CLASSES = ("n01440764", "n01443537", "n01484850")
# Class of each validation image; the development kit numbers classes in an order of its own.
OF_IMAGES = (2, 0, 1, 1)
DEVKIT_NUMBERS = {0: 3, 1: 1, 2: 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(CLASSES):
        (tmp_path / "train" / name).mkdir(parents=True)
        for image in range(2):
            Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"train/{name}/{image}.png")
    (tmp_path / "val").mkdir()
    for number, label in enumerate(OF_IMAGES, start=1):
        place = tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG"
        Image.new("RGB", (8, 6), (10 + label, 0, 0)).save(place, quality=100)
    return tmp_path


def write_list(place: Path, *, by_name: bool) -> None:
    place.parent.mkdir(exist_ok=True)
    lines = [
        f"ILSVRC2012_val_{number:08d}.JPEG {CLASSES[label] if by_name else label}"
        for number, label in enumerate(OF_IMAGES, start=1)
    ]
    # In no order of its own.
    place.write_text("\n".join(reversed(lines)) + "\n")


def write_devkit(folder: Path) -> None:
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    numbers = [str(DEVKIT_NUMBERS[label]) for label in OF_IMAGES]
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(numbers) + "\n")
    synsets = [(number, CLASSES[label], 0) for label, number in DEVKIT_NUMBERS.items()]
    # Behind the classes come the groups that they belong to.
    table = np.array(
        [*sorted(synsets), (4, "n00001740", 3)],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)],
    )
    savemat(data / "meta.mat", {"synsets": table})


def check(source: ImageSource) -> None:
    assert source.class_names == CLASSES
    assert source.labels.tolist() == list(OF_IMAGES)
    reds = [int(source.read(index)[0, 0, 0]) for index in range(len(source))]
    assert np.abs(np.array(reds) - 10 - np.array(OF_IMAGES)).max() <= 1
    assert re.match("4 listed images of 3 classes in .*val", source.describe())


@pytest.mark.parametrize("place", ["val.txt", "meta/val.txt", "val/val.txt"])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_list_of_names_and_classes(folder: Path, place: str, *, by_name: bool) -> None:
    write_list(folder / place, by_name=by_name)
    check(open_images(folder, split="val"))
    training = open_images(folder, split="train")
    assert training.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_the_development_kit(folder: Path) -> None:
    write_devkit(folder)
    check(open_images(folder, split="val"))


def test_unreadable_images_are_left_out_of_either(folder: Path) -> None:
    (folder / "val" / "ILSVRC2012_val_00000002.JPEG").write_bytes(b"no image")
    write_devkit(folder)
    source = open_images(folder, split="val", skip_bad=True)
    assert source.labels.tolist() == [2, 1, 1]


def test_a_folder_without_list_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no list of their classes.*val.txt.*devkit"):
        open_images(folder, split="val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ILSVRC2012_val_00000001.JPEG 0", "no class for 3 of the 4 images, such as .*0002"),
        ("ILSVRC2012_val_00000001.JPEG", "line 1: .*Expected a file name and a class"),
        ("a.JPEG 0\na.JPEG 1", "line 2: .*each file name once"),
    ],
)
def test_lists_that_do_not_fit(folder: Path, text: str, message: str) -> None:
    (folder / "val.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        open_images(folder, split="val")


def test_unknown_classes_and_images(folder: Path) -> None:
    write_list(folder / "val.txt", by_name=False)
    lines = (folder / "val.txt").read_text()
    (folder / "val.txt").write_text(lines.replace(".JPEG 2", ".JPEG 3"))
    with pytest.raises(DataError, match="the class 3, but the 3 training classes are n01440764"):
        open_images(folder, split="val")
    (folder / "val.txt").write_text(lines + "x.JPEG 0\n")
    with pytest.raises(DataError, match=r"lists 1 images that are not in .*val, such as x\.JPEG"):
        open_images(folder, split="val")


def test_development_kits_that_do_not_fit(folder: Path) -> None:
    write_devkit(folder)
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    numbers = truth.read_text()
    truth.write_text(numbers + "1\n")
    with pytest.raises(DataError, match="5 lines for 4 validation images"):
        open_images(folder, split="val")
    truth.write_text(numbers.replace("3", "9"))
    with pytest.raises(DataError, match="could not be read as the table of ImageNet's classes"):
        open_images(folder, split="val")
    (data / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(DataError, match="could not be read as the table of ImageNet's classes"):
        open_images(folder, split="val")
