import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from voxlift.metrics.classification import classification_metrics
from voxlift.metrics.reliability import reliability_curve


def _cases(num_cases: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    score = generator.uniform(0.02, 0.98, size=num_cases)
    labels = (generator.uniform(size=num_cases) < score).astype(int)
    return np.stack([1 - score, score], axis=1), labels


def test_the_curve_agrees_with_scikit_learn() -> None:
    probabilities, labels = _cases()
    curve = reliability_curve(probabilities, labels, num_bins=10, num_samples=50)
    correct = probabilities.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(correct, probabilities.max(axis=1), n_bins=10)
    assert curve.accuracy == pytest.approx(accuracy)
    assert curve.confidence == pytest.approx(confidence)
    assert curve.num_cases.sum() == 300
    assert curve.num_bins == 10


def test_the_curve_adds_up_to_the_calibration_error() -> None:
    probabilities, labels = _cases()
    curve = reliability_curve(probabilities, labels, num_samples=50)
    error = np.sum(curve.num_cases * np.abs(curve.accuracy - curve.confidence)) / 300
    metrics = classification_metrics(probabilities, labels, class_names="ab", num_samples=50)
    assert metrics.calibration_error.value == pytest.approx(error)


def test_the_interval_of_a_bin_is_about_the_binomial_one() -> None:
    probabilities, labels = _cases(3000)
    curve = reliability_curve(probabilities, labels, num_bins=5, num_samples=2000)
    half = 1.96 * np.sqrt(curve.accuracy * (1 - curve.accuracy) / curve.num_cases)
    assert (curve.high - curve.low) / 2 == pytest.approx(half, rel=0.1)


def test_rare_bins_and_single_patients() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45]])
    curve = reliability_curve(probabilities, [0, 1, 1], num_bins=10, num_samples=50)
    assert curve.num_cases.tolist() == [1, 1, 1]
    assert curve.low.tolist() == curve.accuracy.tolist() == [0, 1, 1]
    alone = reliability_curve(probabilities, [0, 1, 1], groups=["p"] * 3, num_samples=50)
    assert np.isnan(alone.low).all()
