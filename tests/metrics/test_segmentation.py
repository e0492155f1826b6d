import logging
import math

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import bootstrap_interval
from voxlift.metrics.segmentation import METRIC_NAMES, SegmentationMetrics, summarize
from voxlift.metrics.structures import StructureMetrics

NAN = math.nan


def _structure(
    dice: float, *, truth_ml: float = 2.0, error_ml: float = 0.5, tolerance_mm: float | None = 1.0
) -> StructureMetrics:
    if math.isnan(dice):
        truth_ml = error_ml = 0.0
    measured = tolerance_mm is not None
    return StructureMetrics(
        dice=dice,
        surface_dice=dice / 2 if measured else NAN,
        hd95_mm=10 - dice if measured else NAN,
        assd_mm=5 - dice if measured else NAN,
        volume_truth_ml=truth_ml,
        volume_prediction_ml=truth_ml + error_ml,
        surface_tolerance_mm=tolerance_mm,
    )


def _cases(num_cases: int = 20, seed: int = 0) -> list[dict[str, StructureMetrics]]:
    generator = np.random.default_rng(seed)
    return [
        {
            "anterior": _structure(generator.uniform(0.5, 1), error_ml=generator.uniform(-1, 1)),
            "posterior": _structure(generator.uniform(0.2, 0.8), error_ml=generator.uniform(-1, 1)),
        }
        for _ in range(num_cases)
    ]


def test_means_and_intervals_agree_with_a_plain_bootstrap() -> None:
    cases = _cases()
    groups = [f"p{number // 2}" for number in range(len(cases))]
    metrics = summarize(cases, groups=groups, seed=3)
    assert (metrics.num_cases, metrics.num_groups) == (20, 10)
    dices = np.array([[case[name].dice for name in case] for case in cases])
    named = metrics.intervals()
    expected = {
        "dice/anterior": bootstrap_interval(np.mean, dices[:, 0], groups=groups, seed=3),
        "dice": bootstrap_interval(np.mean, dices.mean(axis=1), groups=groups, seed=3),
        "absolute_volume_error_ml/posterior": bootstrap_interval(
            np.mean,
            [abs(case["posterior"].volume_error_ml) for case in cases],
            groups=groups,
            seed=3,
        ),
    }
    for name, interval in expected.items():
        assert named[name].value == pytest.approx(interval.value)
        assert named[name].low == pytest.approx(interval.low)
        assert named[name].high == pytest.approx(interval.high)
        assert named[name].low < named[name].value < named[name].high
    assert metrics.mean_dice == named["dice"]
    assert named["hd95_mm"].value == pytest.approx(10 - dices.mean())
    assert metrics.notes == ()


def test_every_metric_has_a_name() -> None:
    metrics = summarize(_cases(), num_samples=50)
    names = {f"{m}{s}" for m in METRIC_NAMES for s in ("", "/anterior", "/posterior")}
    assert set(metrics.intervals()) == names
    assert list(metrics.intervals())[:2] == ["dice", "surface_dice"]
    assert metrics.surface_tolerance_mm == 1
    again = SegmentationMetrics.model_validate_json(metrics.model_dump_json())
    assert again == metrics


def test_cases_are_drawn_by_patient() -> None:
    cases = _cases(30)
    alone = summarize(cases).mean_dice
    # The same cases three times over are no more evidence if they are of the same patients.
    groups = [str(number) for number in range(30)] * 3
    together = summarize(cases * 3, groups=groups).mean_dice
    apart = summarize(cases * 3).mean_dice
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert apart.high - apart.low < 0.75 * (alone.high - alone.low)


def test_cases_without_a_structure_do_not_count_for_it(caplog: pytest.LogCaptureFixture) -> None:
    full = {"liver": _structure(0.8), "spleen": _structure(0.6)}
    bare = {"liver": _structure(0.4), "spleen": _structure(NAN)}
    missed = {"liver": _structure(0.0, error_ml=-2.0), "spleen": _structure(NAN)}
    invented = {"liver": _structure(0.0, truth_ml=0.0), "spleen": _structure(NAN)}
    with caplog.at_level(logging.WARNING):
        metrics = summarize([full, bare, missed, invented])
    liver, spleen = metrics.structures["liver"], metrics.structures["spleen"]
    assert liver.metrics["dice"].value == pytest.approx(0.3)
    assert (liver.num_cases, liver.num_missed, liver.num_invented) == (4, 1, 1)
    assert spleen.metrics["dice"].value == pytest.approx(0.6)
    assert (spleen.num_cases, spleen.num_missed, spleen.num_invented) == (1, 0, 0)
    # One patient with a spleen gives no interval; volumes are judged in all cases.
    assert math.isnan(spleen.metrics["dice"].low)
    assert spleen.metrics["volume_error_ml"].value == pytest.approx(0.125)
    assert metrics.mean_dice.value == pytest.approx((0.3 + 0.6) / 2)
    assert 0 <= metrics.mean_dice.low < 0.45 < metrics.mean_dice.high < 0.8
    assert "liver was missed in 1 of the 3 cases that hold it" in caplog.text
    assert "found in 1 that do not. The distances there are the volume's diagonal." in caplog.text


def test_a_structure_in_no_case_is_left_out_of_the_mean() -> None:
    cases = [{"liver": _structure(dice), "spleen": _structure(NAN)} for dice in (0.7, 0.9)]
    metrics = summarize(cases)
    assert metrics.mean_dice.value == pytest.approx(0.8)
    assert str(metrics.structures["spleen"].metrics["dice"]) == "not defined"
    assert any("No case holds spleen" in note for note in metrics.notes)
    nothing = summarize([{"liver": _structure(NAN)}] * 2)
    assert math.isnan(nothing.mean_dice.value)
    assert SegmentationMetrics.model_validate_json(nothing.model_dump_json()).num_cases == 2


def test_surfaces_that_were_not_measured_have_no_metric() -> None:
    metrics = summarize([{"liver": _structure(d, tolerance_mm=None)} for d in (0.5, 0.7, 0.0)])
    assert list(metrics.means) == ["dice", "volume_error_ml", "absolute_volume_error_ml"]
    assert metrics.surface_tolerance_mm is None


def test_one_patient_gives_no_interval() -> None:
    metrics = summarize(_cases(4), groups=["p"] * 4)
    assert math.isnan(metrics.mean_dice.low)
    assert metrics.mean_dice.value > 0
    assert any("of one patient" in note for note in metrics.notes)


def test_cases_that_were_not_judged_alike_are_refused() -> None:
    with pytest.raises(DataError, match="no case"):
        summarize([])
    with pytest.raises(DataError, match="judged alike"):
        summarize([{"liver": _structure(1)}, {"spleen": _structure(1)}])
    with pytest.raises(DataError, match="judged alike"):
        summarize([{"liver": _structure(1)}, {"liver": _structure(1, tolerance_mm=2.0)}])
    with pytest.raises(DataError, match="at least one structure"):
        summarize([{}])
    with pytest.raises(DataError, match="groups has the shape"):
        summarize(_cases(3), groups=["a"])
