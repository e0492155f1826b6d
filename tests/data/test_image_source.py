import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.image_source import NAMED_SETS, FolderSource, ImageSource, open_images
from voxlift.data.photographs import PhotographSource


def make_tree(folder: Path, counts: dict[str, int], *, first: int = 0) -> Path:
    """Write images whose red value is a running number."""
    value = first
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 6), (value, 0, 0)).save(folder / name / f"{number:03}.png")
            value += 1
    return folder


def reds(source: ImageSource) -> list[int]:
    return [int(source.read(index)[0, 0, 0]) for index in range(len(source))]


def test_folder_source_numbers_sorted_classes(tmp_path: Path) -> None:
    source = FolderSource(make_tree(tmp_path, {"dog": 2, "cat": 3}))
    assert source.class_names == ("cat", "dog")
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 0, 0, 1, 1]
    assert reds(source) == [2, 3, 4, 0, 1]
    assert source.describe() == f"5 images of 2 classes in {tmp_path}"


def test_folder_source_passes_over_what_is_no_image(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": 1, "b": 1, ".git": 1})
    (tmp_path / "notes.txt").touch()
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / "._000.png").touch()
    make_tree(tmp_path / "b", {"deeper": 1})
    source = FolderSource(tmp_path)
    assert source.class_names == ("a", "b")
    assert len(source) == 3


def test_empty_class_folder(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": 1, "b": 0})
    with pytest.raises(DataError, match=r"b holds no readable image.*remove the folder"):
        FolderSource(tmp_path)


@pytest.mark.parametrize("counts", [{}, {"only": 2}])
def test_single_class(tmp_path: Path, counts: dict[str, int]) -> None:
    make_tree(tmp_path, counts)
    with pytest.raises(DataError, match=r"class folder\(s\).*two or more are needed"):
        FolderSource(tmp_path)


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions bind no superuser, so the refusal is simulated.
    make_tree(tmp_path, {"a": 1, "b": 1})
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == tmp_path / "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"b cannot be read as a folder: Permission denied.*perm"):
        FolderSource(tmp_path)
    with pytest.raises(DataError, match="cannot be read as a folder"):
        FolderSource(tmp_path / "a" / "000.png")


def test_damaged_file_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "a" / "000.png").write_text("no image")
    source = FolderSource(tmp_path)
    with pytest.raises(DataError, match=r"000\.png.*--skip-bad"):
        source.read(0)


def test_skip_bad_lists_and_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_tree(tmp_path, {"a": 3, "b": 1})
    (tmp_path / "a" / "000.png").write_text("no image")
    (tmp_path / "a" / "002.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        source = FolderSource(tmp_path, skip_bad=True)
    assert reds(source) == [1, 3]
    assert [message.split(" ")[1] for message in caplog.messages] == [
        str(tmp_path / "a" / "000.png"),
        str(tmp_path / "a" / "002.png"),
    ]
    (tmp_path / "b" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match="b holds no readable image"):
        FolderSource(tmp_path, skip_bad=True)


def test_open_images_uses_the_folders_for_splits(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"a": 2, "b": 2, "c": 1})
    make_tree(tmp_path / "val", {"a": 1, "c": 1}, first=10)
    make_tree(tmp_path / "test", {"a": 1, "b": 1}, first=20)
    assert reds(open_images(tmp_path, split="train")) == [0, 1, 2, 3, 4]
    validation = open_images(str(tmp_path), split="val")
    assert reds(validation) == [10, 11]
    assert validation.class_names == ("a", "b", "c")
    assert validation.labels.tolist() == [0, 2]


def test_open_images_takes_test_where_there_is_no_val(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"a": 1, "b": 1})
    make_tree(tmp_path / "test", {"a": 1, "b": 1}, first=20)
    assert reds(open_images(tmp_path, split="val")) == [20, 21]


def test_validation_class_that_training_does_not_have(tmp_path: Path) -> None:
    make_tree(tmp_path / "train", {"a": 1, "b": 1})
    make_tree(tmp_path / "val", {"a": 1, "zebra": 1})
    with pytest.raises(DataError, match=r"do not have: zebra"):
        open_images(tmp_path, split="val")


@pytest.mark.parametrize("inside", ["", "train"])
def test_hold_out_is_stratified_seeded_and_disjoint(tmp_path: Path, inside: str) -> None:
    make_tree(tmp_path / inside, {"a": 40, "b": 10, "c": 2})
    train = open_images(tmp_path, split="train", seed=3, val_fraction=0.2)
    val = open_images(tmp_path, split="val", seed=3, val_fraction=0.2)
    assert np.bincount(val.labels).tolist() == [8, 2, 1]
    assert np.bincount(train.labels).tolist() == [32, 8, 1]
    assert sorted(reds(train) + reds(val)) == list(range(52))
    assert reds(open_images(tmp_path, split="val", seed=3, val_fraction=0.2)) == reds(val)
    assert reds(open_images(tmp_path, split="val", seed=4, val_fraction=0.2)) != reds(val)
    assert train.describe().startswith("41 of 52 images of 3 classes in")


def test_class_called_train_is_a_class(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train": 4, "plane": 4})
    assert open_images(tmp_path, split="train").class_names == ("plane", "train")


def test_class_with_one_image_cannot_be_held_out(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": 4, "b": 1})
    with pytest.raises(DataError, match="class b has one image only"):
        open_images(tmp_path, split="val")


@pytest.mark.parametrize("val_fraction", [0.0, 1.0])
def test_val_fraction_out_of_range(val_fraction: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        open_images("photographs", split="val", val_fraction=val_fraction)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"cifar11 is neither a folder nor .*cifar10.*photographs"):
        open_images("cifar11", split="train")


def test_photographs_by_name() -> None:
    source = open_images("photographs", split="val", seed=2)
    assert isinstance(source, PhotographSource)
    assert source.split == "val"
    assert {"cifar10", "cifar100", "flowers102", "food101", "photographs"} <= set(NAMED_SETS)


def test_a_path_is_never_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path / "cifar10", {"a": 2, "b": 2})
    monkeypatch.chdir(tmp_path)
    assert len(open_images("./cifar10", split="train")) == 2


@pytest.mark.data
def test_opens_a_real_set(data_folder: Path) -> None:
    source = open_images(data_folder / "cifar10", split="val")
    assert len(source) == 10_000
    assert np.bincount(source.labels).tolist() == [1000] * 10
    assert source.class_names[:2] == ("airplane", "automobile")
    assert source.read(9_999).shape == (32, 32, 3)
