from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import bootstrap_interval
from voxlift.metrics.paired import auroc_difference

Array = npt.NDArray[Any]


def probabilities(seed: int, labels: Array, num_classes: int, help_: float) -> Array:
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(len(labels), num_classes))
    scores[np.arange(len(labels)), labels] += help_
    shares: Array = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return shares


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_difference_agrees_with_scikit_learn(num_classes: int) -> None:
    labels = np.arange(60) % num_classes
    groups = np.arange(60) // 2
    ours, theirs = (
        probabilities(0, labels, num_classes, 1.5),
        probabilities(1, labels, num_classes, 0),
    )

    def auroc(scores: Array, truth: Array) -> float:
        if num_classes == 2:
            return float(roc_auc_score(truth, scores[:, 1]))
        return float(roc_auc_score(truth, scores, multi_class="ovr", average="macro"))

    found = auroc_difference(ours, theirs, labels, groups=groups, num_samples=200, seed=3)
    expected = bootstrap_interval(
        lambda a, b, y: auroc(a, y) - auroc(b, y),
        ours,
        theirs,
        labels,
        groups=groups,
        labels=labels,
        num_samples=200,
        seed=3,
    )
    assert found.value == pytest.approx(expected.value)
    assert found.low == pytest.approx(expected.low)
    assert found.high == pytest.approx(expected.high)


def test_the_same_answers_do_not_differ() -> None:
    labels = np.arange(20) % 2
    ours = probabilities(0, labels, 2, 1.0)
    found = auroc_difference(ours, ours, labels)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_what_cannot_be_compared() -> None:
    labels = np.zeros(6, int)
    ours = probabilities(0, labels, 2, 1.0)
    assert np.isnan(auroc_difference(ours, ours, labels).value)
    mixed = np.arange(6) % 2
    one_patient = auroc_difference(ours, ours, mixed, groups=["a"] * 6)
    assert one_patient.value == 0
    assert np.isnan(one_patient.low)
    with pytest.raises(DataError, match="of the same classes"):
        auroc_difference(ours, probabilities(0, labels, 3, 1.0), mixed)
