"""Splits, folds and label fractions: stratified, nested, and no patient in two places."""

from collections import Counter

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.splits import SPLITS, check_groups, folds, label_fraction, split_cases


def patients(num_cases: int, *, seed: int, num_classes: int = 2) -> tuple[np.ndarray, list[str]]:
    """Make up cases: about two for each patient, the later classes rarer."""
    generator = np.random.default_rng(seed)
    weights = 0.5 ** np.arange(num_classes)
    labels = generator.choice(num_classes, num_cases, p=weights / weights.sum())
    return labels, [f"P{number}" for number in generator.integers(0, num_cases // 2, num_cases)]


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_split_is_stratified_and_keeps_groups_together(num_classes: int, seed: int) -> None:
    labels, groups = patients(400, seed=seed, num_classes=num_classes)
    splits = np.array(split_cases(labels, groups, seed=seed))
    assert all(len({splits[i] for i, g in enumerate(groups) if g == name}) == 1 for name in groups)
    for name, fraction in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        inside = splits == name
        assert abs(inside.mean() - fraction) < 0.02
        for c in range(num_classes):
            assert abs((labels[inside] == c).mean() - (labels == c).mean()) < 0.03


def test_split_depends_on_the_seed_and_not_on_group_names() -> None:
    labels, groups = patients(100, seed=0)
    first = split_cases(labels, groups, seed=1)
    assert split_cases(labels, groups, seed=1) == first
    assert split_cases(labels, [f"renamed {name}" for name in groups], seed=1) == first
    assert split_cases(labels, groups, seed=2) != first


def test_every_part_has_every_class_when_there_are_just_enough_groups() -> None:
    labels = np.array([0] * 50 + [1] * 9)
    groups = [str(i) for i in range(50)] + ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    splits = np.array(split_cases(labels, groups, seed=0))
    assert set(splits[labels == 1]) == set(SPLITS)


def test_a_class_with_too_few_groups_is_an_error() -> None:
    labels = np.array([0] * 10 + [1] * 5)
    groups = [str(i) for i in range(10)] + ["a"] * 4 + ["b"]
    with pytest.raises(DataError, match=r"'malignant' has 2 group.*3 parts"):
        split_cases(labels, groups, seed=0, class_names=("benign", "malignant"))


def test_classes_bound_together_by_their_patients_are_an_error() -> None:
    # Both classes have two groups, but the larger one holds the only case of a third.
    labels = np.array([0, 0, 1, 1])
    splits = split_cases(labels, ["a", "b", "a", "b"], fractions=(0.5, 0.0, 0.5), seed=0)
    assert Counter(splits) == {"train": 2, "test": 2}
    labels = np.array([0, 1, 0, 2, 1, 2])
    with pytest.raises(DataError, match="without dividing a group"):
        split_cases(labels, ["a", "a", "b", "b", "c", "c"], fractions=(0.5, 0.0, 0.5), seed=0)


def test_existing_splits_are_kept_and_val_is_taken_from_train() -> None:
    labels, groups = patients(300, seed=3)
    official = ["test" if int(group[1:]) % 5 == 0 else "train" for group in groups]
    splits = split_cases(labels, groups, seed=0, existing=official)
    assert [s == "test" for s in splits] == [s == "test" for s in official]
    taken = splits.count("val") / official.count("train")
    assert abs(taken - 0.15 / 0.85) < 0.02
    check_groups(splits, groups)


def test_existing_train_and_val_give_up_a_test_unless_it_is_not_wanted() -> None:
    labels, groups = patients(300, seed=3)
    official = ["val" if int(group[1:]) % 5 == 0 else "train" for group in groups]
    splits = split_cases(labels, groups, seed=0, existing=official)
    assert [s == "val" for s in splits] == [s == "val" for s in official]
    assert splits.count("test") > 0
    fractions = (0.8, 0.2, 0.0)
    assert split_cases(labels, groups, seed=0, existing=official, fractions=fractions) == tuple(
        official
    )


def test_complete_splits_stay_as_they_are() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    official = ["train", "train", "val", "val", "test", "test"]
    assert split_cases(labels, list("abcdef"), seed=0, existing=official) == tuple(official)


@pytest.mark.parametrize(
    ("existing", "message"),
    [
        (["train", "train", "train", "holdout"], "holdout"),
        (["train", "train", "train", None], "for every case"),
        (["val", "val", "test", "test"], "No case is in the split 'train'"),
        (["train", "test", "train", "test"], "A group is in two splits: case 0"),
        (["train", "train", "test", "test"], "Class number 1 has no case in the split 'train'"),
    ],
)
def test_unusable_existing_splits_are_refused(existing: list[str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_cases(np.array([0, 0, 1, 1]), ["a", "a", "b", "b"], seed=0, existing=existing)


def test_the_leakage_error_does_not_name_the_patient() -> None:
    with pytest.raises(DataError) as caught:
        check_groups(["train", "val"], ["Doe^Jane", "Doe^Jane"])
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="shares"):
        split_cases(np.array([0, 1]), ["a", "b"], fractions=fractions, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_label_fractions_are_nested_and_stratified(seed: int) -> None:
    labels, groups = patients(300, seed=seed, num_classes=3)
    smaller: set[int] = set()
    for fraction in (0.001, 0.02, 0.05, 0.1, 0.25, 0.5, 0.9, 1.0):
        chosen = label_fraction(labels, groups, fraction=fraction, seed=seed)
        assert smaller <= set(chosen.tolist())
        smaller = set(chosen.tolist())
        assert set(labels[chosen]) == {0, 1, 2}
        taken, left = {groups[i] for i in smaller}, {groups[i] for i in set(range(300)) - smaller}
        assert not taken & left
        if fraction >= 0.05:
            assert abs(len(chosen) / 300 - fraction) < 0.015
        if fraction >= 0.25:
            shares = np.bincount(labels[chosen]) / len(chosen)
            np.testing.assert_allclose(shares, np.bincount(labels) / 300, atol=0.03)
    assert len(chosen) == 300


def test_label_fraction_of_single_cases_is_exact() -> None:
    labels = np.repeat([0, 1], [80, 20])
    groups = [str(i) for i in range(100)]
    chosen = label_fraction(labels, groups, fraction=0.1, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [8, 2]
    assert len(label_fraction(labels, groups, fraction=0.001, seed=0)) == 2
    assert not np.array_equal(chosen, label_fraction(labels, groups, fraction=0.1, seed=1))


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_label_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ConfigError, match="label fraction"):
        label_fraction(np.array([0, 1]), ["a", "b"], fraction=fraction, seed=0)


def test_folds_are_stratified_and_keep_groups_together() -> None:
    labels, groups = patients(300, seed=1)
    numbers = folds(labels, groups, num_folds=5, seed=0)
    assert np.bincount(numbers).min() >= 55
    for fold in range(5):
        inside = {g for g, n in zip(groups, numbers, strict=True) if n == fold}
        outside = {g for g, n in zip(groups, numbers, strict=True) if n != fold}
        assert not inside & outside
        assert abs(labels[numbers == fold].mean() - labels.mean()) < 0.03


def test_folds_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="2 or more"):
        folds(np.array([0, 1]), ["a", "b"], num_folds=1, seed=0)
    with pytest.raises(DataError, match="fewer --folds"):
        folds(np.array([0, 0, 0, 1]), list("abcd"), num_folds=2, seed=0)
    with pytest.raises(ConfigError, match="2 labels, but 3 groups"):
        folds(np.array([0, 1]), list("abc"), num_folds=2, seed=0)
