import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from voxlift.metrics.weighted import (
    confidence_bins,
    weighted_auroc,
    weighted_average_precision,
    weighted_calibration_error,
    weighted_confusion,
)

CASES = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.5001, 0.9]), st.booleans(), st.integers(0, 3)),
    min_size=2,
    max_size=15,
)


def _pairs(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    """Compare every positive with every negative."""
    won, total = 0.0, 0.0
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive):
            weight = weights[i] * weights[j]
            total += weight
            won += weight * (float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j]))
    return won / total if total else np.nan


@settings(deadline=None, derandomize=True)
@given(CASES)
def test_auroc_is_the_share_of_pairs_in_order(cases: list[tuple[float, bool, int]]) -> None:
    scores, positive, weights = (np.array(column) for column in zip(*cases, strict=True))
    found = weighted_auroc(scores, positive, np.stack([weights, np.ones(len(cases))]).astype(float))
    expected = [_pairs(scores, positive, weights), _pairs(scores, positive, np.ones(len(cases)))]
    assert found == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, derandomize=True)
@given(CASES)
def test_weights_act_as_repeated_cases(cases: list[tuple[float, bool, int]]) -> None:
    scores, positive, weights = (np.array(column) for column in zip(*cases, strict=True))
    repeated = np.repeat(np.arange(len(cases)), weights)
    if len(np.unique(positive[repeated])) < 2:
        return
    rows = weights[None].astype(float)
    assert weighted_auroc(scores, positive, rows)[0] == pytest.approx(
        roc_auc_score(positive[repeated], scores[repeated])
    )
    assert weighted_average_precision(scores, positive, rows)[0] == pytest.approx(
        average_precision_score(positive[repeated], scores[repeated])
    )
    assert weighted_calibration_error(scores, positive, rows, num_bins=7)[0] == pytest.approx(
        weighted_calibration_error(
            scores[repeated], positive[repeated], np.ones((1, len(repeated))), num_bins=7
        )[0]
    )


def test_what_cannot_be_ranked_is_not_a_number() -> None:
    scores, ones = np.array([0.2, 0.7]), np.ones((1, 2))
    for positive in (np.array([True, True]), np.array([False, False])):
        assert np.isnan(weighted_auroc(scores, positive, ones))
        assert np.isnan(weighted_average_precision(scores, positive, ones))
    assert np.isnan(weighted_auroc(scores, np.array([True, False]), np.array([[1.0, 0.0]])))


def test_the_confusion_matrix_counts() -> None:
    generator = np.random.default_rng(0)
    labels, decisions = generator.integers(3, size=(2, 50))
    weights = generator.integers(4, size=(5, 50)).astype(float)
    found = weighted_confusion(labels, decisions, weights, num_classes=3)
    for row, matrix in zip(weights, found, strict=True):
        assert np.array_equal(matrix, confusion_matrix(labels, decisions, sample_weight=row))


def test_the_calibration_error_of_a_known_case() -> None:
    # Bin (0.6, 0.8]: confidence 0.7, accuracy 0.5; bin (0.8, 1]: confidence 0.9, accuracy 1.
    confidence = np.array([0.65, 0.75, 0.9, 0.9])
    correct = np.array([True, False, True, True])
    found = weighted_calibration_error(confidence, correct, np.ones((1, 4)), num_bins=5)
    assert found[0] == pytest.approx(0.5 * 0.2 + 0.5 * 0.1)


def test_probabilities_that_come_true_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, size=200_000)
    correct = generator.uniform(size=200_000) < confidence
    found = weighted_calibration_error(confidence, correct, np.ones((1, 200_000)), num_bins=15)
    assert found[0] < 0.005


def test_bins_are_closed_above() -> None:
    bins = confidence_bins(np.array([0.0, 0.1, 0.25, 0.2501, 0.5, 0.75, 1.0]), num_bins=4)
    assert bins.tolist() == [0, 0, 0, 1, 1, 2, 3]
