"""Labelled volumes: checks, splits, weights and what is never shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.case_statistics import case_statistics
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.npz import NamedArray

VOLUMES = np.arange(10 * 8, dtype=np.float32).reshape(10, 2, 2, 2)
LABELS = [0, 1, 0, 1, 0, 1, 0, 0, 0, 0]


def test_arrays_become_cases() -> None:
    cases = ClassificationCases.from_arrays(VOLUMES, LABELS, spacing_mm=(2.0, 1.0, 1.0))
    assert len(cases) == 10
    assert cases.class_names == ("0", "1")
    assert cases.labels.dtype == np.int64
    assert cases.read_volume(3).spacing_mm == (2.0, 1.0, 1.0)
    np.testing.assert_array_equal(cases.read_volume(3).array, VOLUMES[3])
    assert cases.cases[3].path is None
    stored = NamedArray(Path("some.npz"), "voxel")
    assert ClassificationCase(id="x", image=stored, label=0, group="g").path == stored.path
    assert "10 cases (0 7, 1 3) in 10 groups" in cases.describe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0] * 10}, "one class only"),
        ({"labels": [0, 1]}, "2 labels, but 10 volumes"),
        ({"labels": [0.5] * 10}, "expected whole numbers"),
        ({"labels": LABELS, "groups": ["a"]}, "but 1 groups"),
        ({"labels": LABELS, "masks": VOLUMES[:1]}, "but 1 masks"),
    ],
)
def test_arrays_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ClassificationCases.from_arrays(VOLUMES, **arguments)


def test_labels_beyond_the_names_and_equal_ids() -> None:
    with pytest.raises(ConfigError, match="exceed 2 names"):
        ClassificationCases.from_arrays(VOLUMES[:2], [0, 2], class_names=["a", "b"])
    case = ClassificationCase(id="x", image=VOLUMES[0], label=0, group="g")
    other = ClassificationCase(id="x", image=VOLUMES[1], label=1, group="h")
    with pytest.raises(DataError, match="same id"):
        ClassificationCases(cases=(case, other), class_names=("a", "b"), origin="here")


def test_class_weights_balance_the_loss() -> None:
    cases = ClassificationCases.from_arrays(VOLUMES, LABELS)
    indices = np.arange(10)
    weights = cases.class_weights(indices)
    np.testing.assert_allclose(weights, [10 / (2 * 7), 10 / (2 * 3)], rtol=1e-6)
    of_case = weights[cases.labels]
    assert of_case.mean() == pytest.approx(1.0)
    assert of_case[cases.labels == 0].sum() == pytest.approx(of_case[cases.labels == 1].sum())
    with pytest.raises(DataError, match="'1' has no case"):
        cases.class_weights(np.array([0, 2]))


def test_splits_are_completed_and_chosen_from() -> None:
    cases = ClassificationCases.from_arrays(VOLUMES, LABELS).with_splits(seed=0)
    parts = [cases.indices(split) for split in ("train", "val", "test")]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(10))
    assert all(set(cases.labels[part]) == {0, 1} for part in parts)
    assert "train" in cases.describe()
    with pytest.raises(ConfigError, match="no split 'holdout'"):
        cases.indices("holdout")
    with pytest.raises(DataError, match="arrays: Class '0' has 1 group"):
        ClassificationCases.from_arrays(VOLUMES, LABELS, groups=["g"] * 10).with_splits(seed=0)


def test_groups_are_not_shown() -> None:
    cases = ClassificationCases.from_arrays(VOLUMES, LABELS, groups=["Doe^Jane"] * 10)
    assert "Doe" not in repr(cases)
    assert "Doe" not in repr(cases.cases[0])
    assert "Doe" not in cases.describe()


def test_statistics_are_means_and_volumes_in_mm3() -> None:
    masks = np.zeros((10, 2, 2, 2))
    masks[4, 0] = 1
    cases = ClassificationCases.from_arrays(
        VOLUMES, LABELS, masks=masks, spacing_mm=(2.5, 0.5, 0.5)
    )
    statistics = case_statistics(cases, np.array([4, 7]))
    np.testing.assert_allclose(statistics.mean_intensity, VOLUMES[[4, 7]].mean((1, 2, 3)))
    assert statistics.mask_volume_mm3 is not None
    np.testing.assert_allclose(statistics.mask_volume_mm3, [4 * 2.5 * 0.25, 0.0])
    without = ClassificationCases.from_arrays(VOLUMES, LABELS)
    assert case_statistics(without, np.array([0])).mask_volume_mm3 is None
    with pytest.raises(DataError, match="00000 has no mask"):
        without.read_mask(0)


def test_nan_in_an_array_names_the_case() -> None:
    volumes = VOLUMES.copy()
    volumes[2, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="Case 00002"):
        ClassificationCases.from_arrays(volumes, LABELS).read_volume(2)
