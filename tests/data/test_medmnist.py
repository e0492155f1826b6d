"""MedMNIST-3D files, with whatever splits they have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.classification_source import open_classification
from voxlift.data.medmnist import is_medmnist, read_medmnist


def arrays(*splits: str) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split in splits:
        made[f"{split}_images"] = generator.integers(0, 256, (4, 5, 6, 7), dtype=np.uint8)
        made[f"{split}_labels"] = np.array([[3], [0], [3], [0]], dtype=np.uint8)
    return made


@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("train", "val", "test")])
def test_reads_whatever_splits_there_are(tmp_path: Path, splits: tuple[str, ...]) -> None:
    path = tmp_path / "set.npz"
    made = arrays(*splits)
    np.savez_compressed(path, **made)
    assert is_medmnist(path)
    cases = read_medmnist(path)
    assert len(cases) == 4 * len(splits)
    assert cases.class_names == ("0", "3")
    assert cases.labels[:4].tolist() == [1, 0, 1, 0]
    for split in splits:
        for number, index in enumerate(cases.indices(split).tolist()):
            volume = cases.read_volume(index)
            np.testing.assert_array_equal(volume.array, made[f"{split}_images"][number])
    assert cases.cases[0].id == "train-00000"


def test_labels_may_be_flat_and_floats(tmp_path: Path) -> None:
    made = arrays("train")
    made["train_labels"] = made["train_labels"].ravel().astype(np.float64)
    np.savez(tmp_path / "set.npz", **made)
    assert read_medmnist(tmp_path / "set.npz").labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((4, 28, 28), np.uint8)}, "3 dimensions.*photographs"),
        ({"train_images": np.zeros((4, 5, 5, 5, 3), np.uint8)}, "5 dimensions"),
        ({"train_images": np.zeros((0, 5, 5, 5), np.uint8)}, "no volume"),
        ({"train_labels": np.zeros((3, 1), np.uint8)}, r"\(3, 1\) for 4 volumes"),
        ({"train_labels": np.zeros((4, 2), np.uint8)}, "several labels"),
        ({"train_labels": np.array([0, 1, np.nan, 0])}, "label nan at 2"),
        ({"train_labels": np.array([0, 1, 0.5, 0])}, "label 0.5 at 2"),
        ({"train_labels": np.array(["a", "b", "a", "b"])}, "expected whole numbers"),
        ({"train_labels": np.zeros(4, np.uint8)}, "one class only"),
        ({"train_labels": None}, "holds no array train_labels"),
        (
            {"train_labels": None, "train_images": None, "image": np.ones(3)},
            "holds image; expected",
        ),
    ],
)
def test_bad_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    made = {**arrays("train"), **changes}
    path = tmp_path / "set.npz"
    np.savez(path, **{name: array for name, array in made.items() if array is not None})
    with pytest.raises(DataError, match=message) as caught:
        read_medmnist(path)
    assert str(path) in str(caught.value)


@pytest.mark.data
def test_adrenalmnist3d(data_folder: Path) -> None:
    cases = open_classification(data_folder / "adrenalmnist3d-trainval.npz")
    assert len(cases) == 1286
    assert len(cases.indices("train")) == 1188
    assert np.bincount(cases.labels[cases.indices("train")]).tolist() == [929, 259]
    whole = cases.with_splits(seed=0)
    np.testing.assert_array_equal(whole.indices("val"), cases.indices("val"))
    test = whole.indices("test")
    assert abs(len(test) / 1188 - 0.15 / 0.85) < 0.01
    assert abs(whole.labels[test].mean() - 259 / 1188) < 0.01
