import numpy as np
import pytest
from sklearn import metrics

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import draw_resamples
from voxlift.metrics.roc import roc_curve


def _cases(num_cases: int = 80) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=num_cases)
    score = np.round(1 / (1 + np.exp(-generator.normal(1.2 * labels - 0.6))), 2)
    return np.stack([1 - score, score], axis=1), labels


def test_the_curve_agrees_with_scikit_learn() -> None:
    probabilities, labels = _cases()
    curve = roc_curve(probabilities, labels, num_samples=100)
    false_positive_rate, sensitivity, _ = metrics.roc_curve(
        labels, probabilities[:, 1], drop_intermediate=False
    )
    assert curve.false_positive_rate == pytest.approx(false_positive_rate)
    assert curve.sensitivity == pytest.approx(sensitivity)
    assert curve.auroc.value == pytest.approx(metrics.roc_auc_score(labels, probabilities[:, 1]))
    area = np.trapezoid(curve.sensitivity, curve.false_positive_rate)
    assert area == pytest.approx(curve.auroc.value)


def test_the_band_agrees_with_resampling_by_hand() -> None:
    probabilities, labels = _cases()
    groups = np.arange(80) // 2
    curve = roc_curve(probabilities, labels, groups=groups, num_samples=100, seed=2)
    resamples = draw_resamples(80, groups=groups, labels=labels, num_samples=100, seed=2)
    traced = []
    for counts in resamples.counts:
        cases = np.repeat(np.arange(80), counts[resamples.group_of_case])
        rates = metrics.roc_curve(labels[cases], probabilities[cases, 1], drop_intermediate=False)[
            :2
        ]
        traced.append(np.interp(curve.grid, *rates))
    low, high = np.quantile(traced, [0.025, 0.975], axis=0)
    assert curve.low == pytest.approx(low)
    assert curve.high == pytest.approx(high)
    assert (curve.low <= curve.high).all()


def test_any_class_can_be_the_positive_one() -> None:
    probabilities, labels = _cases()
    curve = roc_curve(probabilities, labels, positive_class=0, num_samples=20)
    assert curve.auroc.value == pytest.approx(
        metrics.roc_auc_score(labels == 0, probabilities[:, 0])
    )


def test_one_patient_has_no_band() -> None:
    curve = roc_curve(*_cases(), groups=np.zeros(80), num_samples=10)
    assert np.isnan(curve.low).all()
    assert np.isnan(curve.auroc.low)


def test_one_class_has_no_curve() -> None:
    probabilities, _ = _cases()
    with pytest.raises(DataError, match="0 of 80 cases are of class 1"):
        roc_curve(probabilities, np.zeros(80, dtype=int))
