import json
import time

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    roc_auc_score,
)

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.bootstrap import draw_resamples
from voxlift.metrics.classification import (
    METRIC_NAMES,
    ClassificationMetrics,
    choose_threshold,
    classification_metrics,
    decide,
)


def _binary(num_cases: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=num_cases)
    # Rounded, so that some cases are tied.
    score = np.round(1 / (1 + np.exp(-generator.normal(1.5 * labels - 0.7))), 2)
    groups = generator.integers(num_cases // 3, size=num_cases)
    return np.stack([1 - score, score], axis=1), labels, groups


def _several(num_cases: int = 150, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    labels = generator.integers(num_classes, size=num_cases)
    logits = generator.normal(size=(num_cases, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True), labels


def _calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int) -> float:
    """Walk over the bins one by one."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        inside = [low < value <= high for value in confidence]
        if any(inside):
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            error += gap * sum(inside) / len(labels)
    return error


def test_two_classes_agree_with_scikit_learn() -> None:
    probabilities, labels, _ = _binary()
    metrics = classification_metrics(
        probabilities, labels, class_names=("smooth", "spiculated"), threshold=0.4
    )
    called = (probabilities[:, 1] >= 0.4).astype(int)
    assert metrics.auroc.value == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    assert metrics.auprc.value == pytest.approx(
        average_precision_score(labels, probabilities[:, 1])
    )
    assert metrics.accuracy.value == pytest.approx(accuracy_score(labels, called))
    assert metrics.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, called))
    assert metrics.sensitivity.value == pytest.approx(called[labels == 1].mean())
    assert metrics.specificity.value == pytest.approx(1 - called[labels == 0].mean())
    assert np.array_equal(metrics.confusion_matrix, confusion_matrix(labels, called))
    assert metrics.calibration_error.value == pytest.approx(
        _calibration_error(probabilities, labels, 15)
    )


def test_several_classes_are_averaged_one_against_the_rest() -> None:
    probabilities, labels = _several()
    metrics = classification_metrics(probabilities, labels, class_names=tuple("abcd"))
    called = probabilities.argmax(axis=1)
    assert metrics.auroc.value == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    assert metrics.auprc.value == pytest.approx(
        average_precision_score(np.eye(4)[labels], probabilities, average="macro")
    )
    assert metrics.sensitivity.value == pytest.approx(balanced_accuracy_score(labels, called))
    specificities = [np.mean(called[labels != k] != k) for k in range(4)]
    assert metrics.specificity.value == pytest.approx(np.mean(specificities))
    assert np.array_equal(metrics.confusion_matrix, confusion_matrix(labels, called))


def test_intervals_agree_with_resampling_by_hand() -> None:
    probabilities, labels, groups = _binary(num_cases=60)
    metrics = classification_metrics(
        probabilities, labels, class_names=("a", "b"), groups=groups, num_samples=200, seed=3
    )
    resamples = draw_resamples(60, groups=groups, labels=labels, num_samples=200, seed=3)
    areas, accuracies, errors = [], [], []
    for counts in resamples.counts:
        cases = np.repeat(np.arange(60), counts[resamples.group_of_case])
        areas.append(roc_auc_score(labels[cases], probabilities[cases, 1]))
        accuracies.append(np.mean(probabilities[cases].argmax(axis=1) == labels[cases]))
        errors.append(_calibration_error(probabilities[cases], labels[cases], 15))
    for name, values in (
        ("auroc", areas),
        ("accuracy", accuracies),
        ("calibration_error", errors),
    ):
        found = metrics.intervals()[name]
        assert [found.low, found.high] == pytest.approx(list(np.quantile(values, [0.025, 0.975])))


def test_a_thousand_resamples_take_little_time() -> None:
    probabilities, labels = _several(num_cases=1000, num_classes=8)
    start = time.process_time()
    metrics = classification_metrics(probabilities, labels, class_names=tuple("abcdefgh"))
    assert time.process_time() - start < 10
    assert metrics.num_resamples == 1000


def test_grouped_cases_widen_the_interval() -> None:
    probabilities, labels, _ = _binary(num_cases=40)
    repeated = np.repeat(probabilities, 9, axis=0), np.repeat(labels, 9)
    patients = np.repeat(np.arange(40), 9)
    alone = classification_metrics(*repeated, class_names=("a", "b"))
    grouped = classification_metrics(*repeated, class_names=("a", "b"), groups=patients)
    assert grouped.num_groups == 40
    width = grouped.auroc.high - grouped.auroc.low
    assert width > 2 * (alone.auroc.high - alone.auroc.low)
    # Nine copies of each case say no more than one.
    single = classification_metrics(probabilities, labels, class_names=("a", "b"))
    assert width == pytest.approx(single.auroc.high - single.auroc.low, rel=1e-6)


def test_the_report_survives_json() -> None:
    probabilities, labels, groups = _binary()
    metrics = classification_metrics(probabilities, labels, class_names=("a", "b"), groups=groups)
    assert ClassificationMetrics.model_validate_json(metrics.model_dump_json()) == metrics
    assert tuple(metrics.intervals()) == METRIC_NAMES


@pytest.mark.parametrize("label", [0, 1])
def test_cases_of_one_class_are_not_ranked(label: int) -> None:
    probabilities, _, _ = _binary(num_cases=20)
    metrics = classification_metrics(
        probabilities, np.full(20, label), class_names=("a", "b"), num_samples=50
    )
    assert np.isnan([metrics.auroc.value, metrics.auprc.value, metrics.auroc.low]).all()
    assert np.isfinite([metrics.accuracy.value, metrics.accuracy.low]).all()
    assert "no ranking" in metrics.notes[0]
    written = json.loads(metrics.model_dump_json())
    assert written["auroc"]["value"] is None
    assert json.loads(json.dumps(metrics.model_dump(), allow_nan=False)) == written
    read = ClassificationMetrics.model_validate(written)
    assert str(read.auroc) == "not defined"


def test_an_absent_class_is_left_out_of_the_averages() -> None:
    probabilities, labels = _several()
    kept = labels != 2
    metrics = classification_metrics(probabilities[kept], labels[kept], class_names=tuple("abcd"))
    areas = [roc_auc_score(labels[kept] == k, probabilities[kept, k]) for k in (0, 1, 3)]
    assert metrics.auroc.value == pytest.approx(np.mean(areas))
    assert "class c" in metrics.notes[0]
    assert np.isfinite([metrics.sensitivity.low, metrics.specificity.low]).all()


def test_one_patient_gives_no_interval() -> None:
    probabilities, labels, _ = _binary(num_cases=20)
    metrics = classification_metrics(
        probabilities, labels, class_names=("a", "b"), groups=["p"] * 20, num_samples=10
    )
    assert np.isfinite(metrics.auroc.value)
    assert np.isnan([metrics.auroc.low, metrics.accuracy.high]).all()
    assert "one patient" in metrics.notes[0]


def test_the_threshold_maximises_youden() -> None:
    probabilities, labels, _ = _binary(num_cases=80, seed=5)
    threshold = choose_threshold(probabilities, labels)

    def youden(value: float) -> float:
        called = probabilities[:, 1] >= value
        return float(called[labels == 1].mean() - called[labels == 0].mean())

    assert youden(threshold) == pytest.approx(max(youden(v) for v in np.linspace(0, 1, 2001)))


def test_the_threshold_parts_separable_classes_half_way() -> None:
    score = np.array([0.1, 0.2, 0.6, 0.9])
    probabilities = np.stack([1 - score, score], axis=1)
    assert choose_threshold(probabilities, np.array([0, 0, 1, 1])) == pytest.approx(0.4)


def test_a_threshold_decides_two_classes_only() -> None:
    probabilities, labels = _several()
    with pytest.raises(ConfigError, match="2 classes"):
        decide(probabilities, threshold=0.5)
    with pytest.raises(ConfigError, match="2 classes"):
        choose_threshold(probabilities, labels)
    with pytest.raises(DataError, match="of class 0"):
        choose_threshold(
            probabilities[:, :2] / probabilities[:, :2].sum(1, keepdims=True),
            np.zeros(150, dtype=int),
        )


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([0.5, 0.5], [0, 1], "shape"),
        ([[1.0], [1.0]], [0, 0], "2 classes"),
        (np.empty((0, 2)), [], "1 case"),
        ([[0.5, 0.5]], [0, 1], "labels have the shape"),
        ([[0.5, 0.5], [2.0, -1.0]], [0, 1], "Case 1 .*softmax"),
        ([[0.5, 0.5], [0.9, 0.9]], [0, 1], "Case 1 .*softmax"),
        ([[0.5, 0.5], [np.nan, 0.5]], [0, 1], "Case 1 .*softmax"),
        ([[0.5, 0.5]], [0.0], "float64"),
        ([[0.5, 0.5]], [-1], "from 0 on"),
        ([[0.5, 0.5]], [2], "label 2"),
    ],
)
def test_what_are_no_probabilities_is_refused(
    probabilities: object, labels: object, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        classification_metrics(probabilities, labels, class_names=("a", "b"))  # type: ignore[arg-type]


def test_every_class_needs_a_name() -> None:
    with pytest.raises(DataError, match="one name for each"):
        classification_metrics([[0.5, 0.5]], [0], class_names=("a", "b", "c"))
