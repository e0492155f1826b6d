import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.bootstrap import Interval, bootstrap_interval, draw_resamples, interval


def test_the_interval_of_a_mean_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(10, 2, size=400)
    found = bootstrap_interval(np.mean, values, num_samples=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.value == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_counts_follow_the_multinomial_distribution() -> None:
    counts = draw_resamples(8, num_samples=20000).counts
    assert (counts.sum(axis=1) == 8).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(8), abs=0.03)
    assert counts.var(axis=0) == pytest.approx(np.full(8, 7 / 8), abs=0.04)
    assert (counts == 0).mean() == pytest.approx((7 / 8) ** 8, abs=0.01)


def test_groups_come_and_go_as_a_whole() -> None:
    groups = np.array(["p", "q", "p", "r", "q", "p"])
    resamples = draw_resamples(6, groups=groups, num_samples=50)
    weights = np.concatenate(list(resamples.blocks()))
    assert resamples.num_groups == 3
    for name in "pqr":
        members = weights[:, groups == name]
        assert (members == members[:, :1]).all()


def test_the_generic_bootstrap_agrees_with_the_weights() -> None:
    generator = np.random.default_rng(1)
    values, groups = generator.normal(size=30), generator.integers(8, size=30)
    found = bootstrap_interval(np.mean, values, groups=groups, num_samples=300, seed=4)
    weights = np.concatenate(
        list(draw_resamples(30, groups=groups, num_samples=300, seed=4).blocks())
    )
    means = (weights @ values) / weights.sum(axis=1)
    expected = np.quantile(means, [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx(list(expected))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=12))
def test_every_resample_holds_every_class(cases: list[tuple[int, int]]) -> None:
    labels, groups = np.array(cases).T
    resamples = draw_resamples(len(cases), groups=groups, labels=labels, num_samples=20)
    weights = np.concatenate(list(resamples.blocks()))
    assert weights.shape == (20, len(cases))
    for label in np.unique(labels):
        assert (weights[:, labels == label].sum(axis=1) > 0).all()


def test_the_share_of_redrawn_resamples_is_as_computed() -> None:
    # One positive among ten is missed by 0.9^10 of all draws.
    resamples = draw_resamples(10, labels=[1] + [0] * 9, num_samples=5000)
    assert not resamples.stratified
    share = resamples.num_redrawn / (resamples.num_redrawn + 5000)
    assert share == pytest.approx(0.9**10, abs=0.02)
    # What is kept is an ordinary draw, given that the positive is in it.
    given_present = 1 / (1 - 0.9**10)
    assert resamples.counts[:, 0].mean() == pytest.approx(given_present, abs=0.03)


def test_very_rare_classes_are_drawn_within_strata(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.arange(30)
    resamples = draw_resamples(30, labels=labels, num_samples=10)
    assert resamples.stratified
    assert (resamples.counts == 1).all()
    assert "too narrow" in caplog.text


def test_strata_keep_the_number_of_groups() -> None:
    labels = [*range(20), *[20] * 6]
    resamples = draw_resamples(26, labels=labels, num_samples=10)
    assert resamples.stratified
    assert (resamples.counts[:, 20:].sum(axis=1) == 6).all()
    assert resamples.counts[:, 20:].max() > 1


def test_labels_are_passed_on_and_redraws_reported() -> None:
    labels = np.array([1, 0, 0, 0])

    def statistic(labels: np.ndarray) -> float:
        return float(1 / labels.sum())

    found = bootstrap_interval(statistic, labels, labels=labels, num_samples=100)
    assert found.num_redrawn > 10
    assert 0 < found.low <= found.value == 1


def test_a_statistic_that_fails_is_an_error() -> None:
    def needs_two_classes(labels: np.ndarray) -> float:
        return 0.5 if len(np.unique(labels)) == 2 else math.nan

    with pytest.raises(DataError, match="labels="):
        bootstrap_interval(needs_two_classes, np.array([1, 0, 0, 0]), num_samples=100)


def test_the_seed_decides() -> None:
    values = np.arange(20.0)
    first = bootstrap_interval(np.mean, values, seed=1, num_samples=100)
    assert first == bootstrap_interval(np.mean, values, seed=1, num_samples=100)
    assert first != bootstrap_interval(np.mean, values, seed=2, num_samples=100)


def test_one_group_has_no_interval() -> None:
    found = bootstrap_interval(np.mean, np.arange(4.0), groups=["p"] * 4)
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert str(found) == "1.500 (no interval)"
    assert Interval.model_validate_json(found.model_dump_json()).model_dump() == found.model_dump()


def test_an_interval_reads_well() -> None:
    assert str(Interval(value=0.8123, low=0.71, high=0.9)) == "0.812 (0.710 to 0.900)"


def test_the_confidence_chooses_the_quantiles() -> None:
    found = interval(0.5, np.linspace(0, 1, 101), confidence=0.8)
    assert [found.low, found.high] == pytest.approx([0.1, 0.9])


def test_large_sets_come_in_blocks() -> None:
    resamples = draw_resamples(30_000, groups=np.arange(30_000) // 3000, num_samples=100)
    blocks = list(resamples.blocks())
    assert len(blocks) > 1
    assert sum(len(block) for block in blocks) == 100


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"\[2, 3\]"):
        bootstrap_interval(np.mean, [1, 2, 3], [1, 2])
    with pytest.raises(DataError, match="groups has the shape"):
        bootstrap_interval(np.mean, [1, 2, 3], groups=[1, 2])
    with pytest.raises(DataError, match="labels has the shape"):
        draw_resamples(3, labels=[0, 1])
    with pytest.raises(DataError, match="no case"):
        draw_resamples(0)
    with pytest.raises(ConfigError, match="num_samples is 0"):
        draw_resamples(3, num_samples=0)
    with pytest.raises(ConfigError, match="confidence is 95"):
        bootstrap_interval(np.mean, [1, 2, 3], confidence=95)
