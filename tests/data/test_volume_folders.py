"""One folder a class, perhaps within splits."""

import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.classification_source import open_classification
from voxlift.data.volume_folders import read_volume_folders


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((2, 2, 2)))


def test_class_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "well" / "a.npy", tmp_path / "ill" / "b.npy", tmp_path / "ill" / "c.npy")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "ill" / "notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING):
        cases = read_volume_folders(tmp_path)
    assert cases.class_names == ("ill", "well")
    assert {case.id: case.label for case in cases.cases} == {
        "ill/b.npy": 0,
        "ill/c.npy": 0,
        "well/a.npy": 1,
    }
    assert cases.splits == (None,) * 3
    assert [case.id for case in open_classification(tmp_path).cases] == [c.id for c in cases.cases]
    assert "notes.txt" in caplog.text


def test_splits_of_class_folders(tmp_path: Path) -> None:
    save(*(tmp_path / s / c / "v.npy" for s in ("train", "test") for c in ("a", "b")))
    cases = read_volume_folders(tmp_path)
    assert {case.id: case.split for case in cases.cases} == {
        "train/a/v.npy": "train",
        "train/b/v.npy": "train",
        "test/a/v.npy": "test",
        "test/b/v.npy": "test",
    }


def test_empty_class_folder(tmp_path: Path) -> None:
    save(tmp_path / "a" / "v.npy")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"b holds no volume.*remove the folder"):
        read_volume_folders(tmp_path)


def test_single_class(tmp_path: Path) -> None:
    save(tmp_path / "a" / "v.npy")
    with pytest.raises(DataError, match=r"1 class folder\(s\) \(a\); expected"):
        read_volume_folders(tmp_path)


def test_class_that_a_split_lacks(tmp_path: Path) -> None:
    save(tmp_path / "train/a/v.npy", tmp_path / "train/b/v.npy", tmp_path / "test/a/v.npy")
    with pytest.raises(DataError, match=r"test/b"):
        read_volume_folders(tmp_path)


def test_splits_beside_other_folders(tmp_path: Path) -> None:
    save(tmp_path / "train/a/v.npy", tmp_path / "train/b/v.npy", tmp_path / "ill/v.npy")
    with pytest.raises(DataError, match="beside them ill"):
        read_volume_folders(tmp_path)


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"Permission denied.*right to read"):
        read_volume_folders(tmp_path)
