import time
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import draw_resamples
from voxlift.metrics.froc import FrocResult, froc
from voxlift.metrics.froc_bootstrap import bootstrap_froc, froc_difference

RATES = (0.5, 1.0, 2.0)


def _images(seed: int, *, count: int = 12, skill: float = 0.6) -> tuple[list[Any], list[Any]]:
    """Detect squares on a grid: the true ones by chance, others by mistake."""
    generator = np.random.default_rng(seed)
    predictions, truths = [], []
    for _ in range(count):
        places = generator.permutation(16)
        corners = np.stack([places % 4, places // 4], axis=1) * 10.0
        squares = np.concatenate([corners, corners + 8], axis=1)
        num_truths = int(generator.integers(0, 3))
        found = np.flatnonzero(generator.random(num_truths) < skill)
        false = num_truths + np.arange(generator.integers(0, 5))
        chosen = np.concatenate([found, false]).astype(int)
        # Rounded, so that there are ties.
        scores = np.round(generator.random(len(chosen)), 1)
        predictions.append(np.column_stack([squares[chosen], scores]))
        truths.append(squares[:num_truths])
    return predictions, truths


def _repeated(
    predictions: list[Any], truths: list[Any], counts: np.ndarray, convention: Any = "voxlift"
) -> FrocResult:
    numbers = np.repeat(np.arange(len(counts)), counts)
    return froc(
        [predictions[number] for number in numbers],
        [truths[number] for number in numbers],
        false_positives_per_image=RATES,
        convention=convention,
    )


@pytest.mark.parametrize("convention", ["voxlift", "mp3d"])
def test_the_intervals_are_those_of_judging_every_resample_anew(convention: Any) -> None:
    predictions, truths = _images(0)
    if convention == "mp3d":
        # Of an image drawn twice, boxes of one score would come in another order.
        for number, table in enumerate(predictions):
            table[:, 4] += 1e-3 * np.arange(len(table)) + 1e-5 * number
    groups = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7])
    result = froc(predictions, truths, false_positives_per_image=RATES, convention=convention)
    curve = bootstrap_froc(result, groups=groups, num_samples=60, seed=2, confidence=0.8)
    resamples = draw_resamples(12, groups=groups, num_samples=60, seed=2)
    anew = [
        _repeated(predictions, truths, counts[resamples.group_of_case], convention)
        for counts in resamples.counts
    ]
    at_rates = np.array([each.sensitivity for each in anew])
    for number, found in enumerate(curve.sensitivity):
        assert found.value == result.sensitivity[number]
        expected = np.quantile(at_rates[:, number], [0.1, 0.9])
        assert [found.low, found.high] == pytest.approx(list(expected))
    means = np.quantile(at_rates.mean(axis=1), [0.1, 0.9])
    assert curve.mean_sensitivity.value == pytest.approx(result.mean_sensitivity)
    assert [curve.mean_sensitivity.low, curve.mean_sensitivity.high] == pytest.approx(list(means))
    band = np.quantile([each.sensitivity_at(curve.grid) for each in anew], [0.1, 0.9], axis=0)
    assert np.stack([curve.low, curve.high]) == pytest.approx(band)
    assert curve.num_groups == 8


def test_the_grid_spans_the_rates() -> None:
    predictions, truths = _images(1)
    result = froc(predictions, truths, false_positives_per_image=(0, 0.5, 2))
    curve = bootstrap_froc(result, num_samples=10)
    assert (curve.grid[0], curve.grid[-1]) == (0.5, 2)
    assert curve.grid_sensitivity[[0, -1]] == pytest.approx(result.sensitivity[1:])
    middle = len(curve.grid) // 2
    assert curve.grid[middle] == pytest.approx(1)
    assert curve.grid_sensitivity[middle] == pytest.approx(result.sensitivity_at([1])[0])
    nothing = froc(predictions, truths, false_positives_per_image=(0,))
    assert len(bootstrap_froc(nothing, num_samples=10).grid) == 0


def test_the_difference_is_paired() -> None:
    predictions, truths = _images(2)
    others, _ = _images(2, skill=0.9)
    result = froc(predictions, truths, false_positives_per_image=RATES)
    other = froc(others, truths, false_positives_per_image=RATES)
    groups = np.arange(12) // 2
    gain = froc_difference(other, result, groups=groups, num_samples=50, seed=1)
    resamples = draw_resamples(12, groups=groups, num_samples=50, seed=1)
    anew = np.array(
        [
            _repeated(others, truths, counts[resamples.group_of_case]).sensitivity
            - _repeated(predictions, truths, counts[resamples.group_of_case]).sensitivity
            for counts in resamples.counts
        ]
    )
    expected = np.quantile(anew, [0.025, 0.975], axis=0)
    for number, found in enumerate(gain.sensitivity):
        assert found.value == other.sensitivity[number] - result.sensitivity[number]
        assert [found.low, found.high] == pytest.approx(list(expected[:, number]))
    assert gain.mean_sensitivity.value == pytest.approx(
        other.mean_sensitivity - result.mean_sensitivity
    )
    nothing = froc_difference(result, result, groups=groups, num_samples=50)
    assert [(each.low, each.high) for each in nothing.sensitivity] == [(0, 0)] * 3


def test_only_the_same_lesions_are_compared() -> None:
    predictions, truths = _images(3)
    result = froc(predictions, truths)
    with pytest.raises(DataError, match="not the same lesions"):
        froc_difference(result, froc(predictions[::-1], truths[::-1]))
    with pytest.raises(DataError, match="same rates"):
        froc_difference(result, froc(predictions, truths, false_positives_per_image=(1,)))


def test_resamples_without_lesions_are_left_out() -> None:
    lesion = [[0, 0, 8, 8]]
    predictions: list[Any] = [[[0, 0, 8, 8, 0.9]], [], []]
    curve = bootstrap_froc(froc(predictions, [lesion, [], []]), num_samples=50)
    # Every resample with the lesion finds it; nearly a third of them lack it.
    assert [(each.low, each.high) for each in curve.sensitivity] == [(1, 1)] * 4


@pytest.mark.parametrize(
    ("truths", "groups"), [([[], []], None), ([[[0, 0, 8, 8]], []], ["same", "same"])]
)
def test_there_may_be_no_interval(truths: list[Any], groups: list[str] | None) -> None:
    result = froc([[[0, 0, 8, 8, 0.9]], []], truths)
    curve = bootstrap_froc(result, groups=groups, num_samples=10)
    assert all(np.isnan(each.low) and np.isnan(each.high) for each in curve.sensitivity)
    assert np.isnan(curve.low).all()
    assert np.isnan(curve.mean_sensitivity.high)


def test_one_group_an_image() -> None:
    with pytest.raises(DataError, match="groups"):
        bootstrap_froc(froc([[], []], [[], []]), groups=["one"])


def test_many_images_take_little_time() -> None:
    generator = np.random.default_rng(0)
    corner = generator.random((2000, 20, 2)) * 400
    scores = generator.random((2000, 20, 1))
    boxes = np.concatenate([corner, corner + 30, scores], axis=2)
    truths = boxes[:, :1, :4] + generator.normal(0, 4, (2000, 1, 1))
    start = time.perf_counter()
    curve = bootstrap_froc(froc(list(boxes), list(truths)), num_samples=200)
    assert curve.sensitivity[-1].low < curve.sensitivity[-1].value < curve.sensitivity[-1].high
    # It takes a second; judging every resample anew would take minutes.
    assert time.perf_counter() - start < 20
