"""The probes against computations of their own: a Newton solver, and distances in plain numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax

from voxlift.core.errors import DataError
from voxlift.inference.feature_classifiers import (
    NEIGHBOURS,
    PENALTIES,
    TrainingFeatures,
    classify_features,
    linear_probabilities,
    log_loss,
    make_folds,
    neighbour_probabilities,
    standardised,
)
from voxlift.metrics.classification import choose_threshold

Array = npt.NDArray[Any]
NAMES = ("a", "b", "c")


def make(num_cases: int = 40, *, num_classes: int = 2, seed: int = 0) -> tuple[Array, Array, Array]:
    """Features that tell the classes apart somewhat, their labels, and other features."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_cases) % num_classes
    known = generator.normal(size=(num_cases, 5)) * [1, 3, 0.2, 1, 1] + [0, 9, -4, 0, 0]
    known[:, 0] += labels
    known[:, 2] -= 0.2 * labels
    return known, labels, generator.normal(size=(25, 5)) + np.array([0.5, 9, -4, 0, 0])


def newton(known: Array, labels: Array, others: Array, c: float) -> Array:
    """Solve two-class logistic regression with a penalty on all weights but the bias."""
    design = np.column_stack([known, np.ones(len(known))])
    penalty = np.diag([1.0] * known.shape[1] + [0.0])
    weights = np.zeros(design.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = c * design.T @ (p - labels) + penalty @ weights
        hessian = c * (design.T * (p * (1 - p))) @ design + penalty
        weights -= np.linalg.solve(hessian, gradient)
    positive = 1 / (1 + np.exp(-np.column_stack([others, np.ones(len(others))]) @ weights))
    return np.column_stack([1 - positive, positive])


def descended(known: Array, labels: Array, others: Array, c: float) -> Array:
    """Solve multinomial logistic regression by plain gradient descent."""
    design = np.column_stack([known, np.ones(len(known))])
    truth = np.eye(3)[labels]
    weights = np.zeros((design.shape[1], 3))
    for _ in range(40_000):
        gradient = c * design.T @ (softmax(design @ weights, axis=1) - truth)
        gradient[:-1] += weights[:-1]
        weights -= 0.02 * gradient
    answers: Array = softmax(np.column_stack([others, np.ones(len(others))]) @ weights, axis=1)
    return answers


def voted(known: Array, labels: Array, others: Array, k: int) -> Array:
    shares = np.bincount(labels) / len(labels)
    rows = []
    for other in others:
        nearest = np.argsort(((known - other) ** 2).sum(1), kind="stable")[:k]
        votes = np.bincount(labels[nearest], minlength=len(shares))
        rows.append((votes + shares) / (k + 1))
    return np.array(rows)


@pytest.mark.parametrize("c", [1e-3, 0.3, 10.0])
def test_the_linear_probe_agrees_with_newtons_method(c: float) -> None:
    known, labels, others = make()
    known, others = standardised(known, others)
    found = linear_probabilities(known, labels, others, c)
    np.testing.assert_allclose(found, newton(known, labels, others, c), atol=1e-5)


def test_the_linear_probe_of_three_classes_agrees_with_gradient_descent() -> None:
    known, labels, others = make(num_classes=3)
    known, others = standardised(known, others)
    found = linear_probabilities(known, labels, others, 0.3)
    np.testing.assert_allclose(found, descended(known, labels, others, 0.3), atol=1e-5)


@pytest.mark.parametrize(("k", "num_classes"), [(1, 2), (5, 2), (9, 3)])
def test_neighbours_agree_with_plain_distances(k: int, num_classes: int) -> None:
    known, labels, others = make(num_classes=num_classes)
    found = neighbour_probabilities(known, labels, others, k)
    np.testing.assert_allclose(found, voted(known, labels, others, k))
    np.testing.assert_allclose(found.sum(1), 1)


def test_settings_and_threshold_are_chosen_on_held_out_folds() -> None:
    known, labels, others = make(60)
    groups = [f"person-{i // 2}" for i in range(60)]
    fold = make_folds(labels, groups, seed=1, class_names=NAMES)
    assert fold is not None
    linear, nearest = classify_features(TrainingFeatures(known, labels, 2, fold), others)
    for verdict, solve, settings in (
        (linear, newton, PENALTIES),
        (nearest, voted, NEIGHBOURS),
    ):
        held_out = {}
        for setting in settings:
            answers = np.empty((60, 2))
            for number in range(5):
                mean, std = known[fold != number].mean(0), known[fold != number].std(0)
                answers[fold == number] = solve(
                    (known[fold != number] - mean) / std,
                    labels[fold != number],
                    (known[fold == number] - mean) / std,
                    setting,  # type: ignore[arg-type]
                )
            held_out[setting] = answers
        best = min(settings, key=lambda s: log_loss(held_out[s], labels))
        assert verdict.setting == best
        assert verdict.threshold == pytest.approx(
            choose_threshold(held_out[best], labels), abs=1e-4
        )
        mean, std = known.mean(0), known.std(0)
        expected = solve((known - mean) / std, labels, (others - mean) / std, best)  # type: ignore[arg-type]
        np.testing.assert_allclose(verdict.probabilities, expected, atol=1e-4)


def test_folds_divide_no_patient_and_hold_every_class() -> None:
    labels = np.arange(30) % 3
    groups = [f"person-{i // 6}" for i in range(30)]
    fold = make_folds(labels, groups, seed=0, class_names=NAMES)
    assert fold is not None
    assert fold.max() == 4
    for person in set(groups):
        assert len({int(f) for f, group in zip(fold, groups, strict=True) if group == person}) == 1


@pytest.mark.parametrize(("num_patients", "num_folds"), [(3, 3), (2, 2), (1, None)])
def test_fewer_patients_make_fewer_folds(
    num_patients: int, num_folds: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.arange(4 * num_patients) % 2
    groups = [f"person-{i // 4}" for i in range(4 * num_patients)]
    fold = make_folds(labels, groups, seed=0, class_names=NAMES)
    assert (None if fold is None else fold.max() + 1) == num_folds
    assert ("Too few patients" in caplog.text) == (fold is None)


def test_without_folds_the_settings_are_given() -> None:
    known, labels, others = make(6)
    linear, nearest = classify_features(TrainingFeatures(known, labels, 2, None), others)
    assert (linear.setting, linear.threshold) == (1e-2, None)
    assert (nearest.setting, nearest.threshold) == (3, None)
    two = TrainingFeatures(known[:2], labels[:2], 2, None)
    assert classify_features(two, others)[1].setting == 1


def test_features_that_do_not_vary_count_for_nothing() -> None:
    known, labels, others = make()
    with_constant = np.column_stack([known, np.full(len(known), 1e4)])
    others_too = np.column_stack([others, np.full(len(others), 77.0)])
    plain = classify_features(TrainingFeatures(known, labels, 2, None), others)
    more = classify_features(TrainingFeatures(with_constant, labels, 2, None), others_too)
    for one, other in zip(plain, more, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_a_class_that_nobody_showed_has_no_probability() -> None:
    known, labels, others = make()
    for verdict in classify_features(TrainingFeatures(known, 2 * labels, 3, None), others):
        assert (verdict.probabilities[:, 1] == 0).all()
        np.testing.assert_allclose(verdict.probabilities.sum(1), 1)


def test_bad_features() -> None:
    known, labels, others = make()
    with pytest.raises(DataError, match="of one class only"):
        classify_features(TrainingFeatures(known, labels * 0, 2, None), others)
    broken = others.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="judged cases hold NaN"):
        classify_features(TrainingFeatures(known, labels, 2, None), broken)
    known[0, 0] = np.inf
    with pytest.raises(DataError, match="training cases hold NaN"):
        classify_features(TrainingFeatures(known, labels, 2, None), others)
