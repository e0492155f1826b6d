import math

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.label_scheme import IGNORED, LabelScheme, Region
from voxlift.metrics.structures import (
    StructureMetrics,
    case_metrics,
    mean_case_dice,
    worst_cases,
)

SIZE = (6, 9, 8)
SPACING_MM = (3.0, 0.5, 0.8)
ORGANS = LabelScheme(names=("background", "liver", "spleen"), values=(0, 6, 1))
TUMOUR = LabelScheme(
    names=("background", "oedema", "necrosis", "enhancing"),
    values=(0, 1, 2, 4),
    regions=(
        Region(name="whole tumour", members=(1, 2, 3), value=1),
        Region(name="core", members=(2, 3), value=2),
    ),
)


def _classes(num_classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(num_classes, size=SIZE).astype(np.uint8)


def _voxels(classes: np.ndarray, members: set[int]) -> set[tuple[int, ...]]:
    return {index for index in np.ndindex(classes.shape) if int(classes[index]) in members}


def test_dice_and_volumes_agree_with_sets_of_voxels() -> None:
    prediction, truth = _classes(3, 0), _classes(3, 1)
    metrics = case_metrics(prediction, truth, labels=ORGANS, spacing_mm=SPACING_MM)
    assert list(metrics) == ["liver", "spleen"]
    for number, name in enumerate(ORGANS.structures, start=1):
        found, true = _voxels(prediction, {number}), _voxels(truth, {number})
        assert metrics[name].dice == pytest.approx(2 * len(found & true) / (len(found) + len(true)))
        # A voxel is 3 x 0.5 x 0.8 = 1.2 mm3.
        assert metrics[name].volume_prediction_ml == pytest.approx(len(found) * 0.0012)
        assert metrics[name].volume_truth_ml == pytest.approx(len(true) * 0.0012)
        error_ml = (len(found) - len(true)) * 0.0012
        assert metrics[name].volume_error_ml == pytest.approx(error_ml)
        assert metrics[name].absolute_volume_error_ml == pytest.approx(abs(error_ml))


def test_a_litre_is_a_thousand_millilitres() -> None:
    truth = np.zeros((10, 20, 20), dtype=np.uint8)
    truth[:, 5:15, 5:15] = 1
    metrics = case_metrics(truth, truth, labels=ORGANS, spacing_mm=(10, 10, 10), surfaces=False)
    assert metrics["liver"].volume_truth_ml == pytest.approx(1000)


def test_surfaces_are_those_of_each_structure() -> None:
    truth = np.zeros((8, 8, 20), dtype=np.uint8)
    truth[2:6, 2:6, 2:8], truth[2:6, 2:6, 8:14] = 1, 2
    prediction = np.where(np.roll(truth, 1, axis=2) == 2, 2, truth)
    metrics = case_metrics(
        prediction, truth, labels=ORGANS, spacing_mm=(1, 1, 3), surface_tolerance_mm=2
    )
    assert metrics["liver"].surface_dice == 1
    assert metrics["liver"].hd95_mm == metrics["liver"].assd_mm == 0
    assert metrics["spleen"].hd95_mm == pytest.approx(3)
    assert 0.5 < metrics["spleen"].surface_dice < 1
    assert metrics["spleen"].surface_tolerance_mm == 2


def test_surfaces_may_be_left_out() -> None:
    metrics = case_metrics(
        _classes(3, 0), _classes(3, 1), labels=ORGANS, spacing_mm=SPACING_MM, surfaces=False
    )
    assert math.isnan(metrics["liver"].hd95_mm)
    assert metrics["liver"].surface_tolerance_mm is None
    assert metrics["liver"].dice > 0


def test_regions_overlap() -> None:
    prediction, truth = _classes(4, 0), _classes(4, 1)
    by_classes = case_metrics(prediction, truth, labels=TUMOUR, spacing_mm=SPACING_MM)
    masks = TUMOUR.structure_masks(prediction)
    assert case_metrics(masks, truth, labels=TUMOUR, spacing_mm=SPACING_MM) == by_classes
    for name, members in (("whole tumour", {1, 2, 3}), ("core", {2, 3})):
        found, true = _voxels(prediction, members), _voxels(truth, members)
        overlap = 2 * len(found & true) / (len(found) + len(true))
        assert by_classes[name].dice == pytest.approx(overlap)
    # Masks need not be nested, as those of a network may not be.
    masks = masks.copy()
    masks[0] = False
    metrics = case_metrics(masks, truth, labels=TUMOUR, spacing_mm=SPACING_MM)
    assert metrics["whole tumour"].dice == 0
    assert metrics["core"] == by_classes["core"]


def test_what_nobody_labelled_is_left_out_of_everything() -> None:
    truth = np.zeros((8, 10, 12), dtype=np.uint8)
    truth[2:6, 2:8, 2:10] = 1
    truth[:, :, 6:] = IGNORED
    prediction = np.zeros_like(truth)
    prediction[2:6, 2:8, 2:12] = 1
    prediction[0:2, :, 6:] = 2
    for found in (prediction, ORGANS.structure_masks(prediction)):
        metrics = case_metrics(found, truth, labels=ORGANS, spacing_mm=(1, 1, 1))
        liver = metrics["liver"]
        assert (liver.dice, liver.surface_dice, liver.hd95_mm, liver.assd_mm) == (1, 1, 0, 0)
        assert liver.volume_truth_ml == liver.volume_prediction_ml == pytest.approx(0.096)
        # The spleen was found among ignored voxels only.
        assert math.isnan(metrics["spleen"].dice)
        assert metrics["spleen"].volume_prediction_ml == 0
    assert prediction[2, 2, 11] == 1


def test_empty_structures_count_as_documented() -> None:
    truth = np.zeros((4, 5, 6), dtype=np.uint8)
    truth[1, 1, 1] = 1
    missed = case_metrics(np.zeros_like(truth), truth, labels=ORGANS, spacing_mm=(2, 1, 1))
    invented = case_metrics(truth, np.zeros_like(truth), labels=ORGANS, spacing_mm=(2, 1, 1))
    for metrics in (missed, invented):
        assert metrics["liver"].dice == metrics["liver"].surface_dice == 0
        assert metrics["liver"].hd95_mm == pytest.approx(math.sqrt(8**2 + 5**2 + 6**2))
        absent = metrics["spleen"]
        assert np.isnan([absent.dice, absent.surface_dice, absent.hd95_mm, absent.assd_mm]).all()
        assert absent.volume_truth_ml == absent.volume_error_ml == 0
    assert missed["liver"].volume_error_ml == -invented["liver"].volume_error_ml
    assert missed["liver"].volume_error_ml == pytest.approx(-0.002)
    text = missed["spleen"].model_dump_json()
    assert '"dice":null' in text
    assert math.isnan(StructureMetrics.model_validate_json(text).dice)


def test_the_worst_cases_come_first() -> None:
    def case(*dices: float) -> dict[str, StructureMetrics]:
        return {
            f"s{n}": StructureMetrics(dice=dice, volume_truth_ml=1, volume_prediction_ml=1)
            for n, dice in enumerate(dices)
        }

    cases = [case(0.9, 0.7), case(0.5, math.nan), case(math.nan, math.nan), case(0.2, 0.6)]
    assert mean_case_dice(cases[0]) == pytest.approx(0.8)
    assert mean_case_dice(cases[1]) == pytest.approx(0.5)
    assert math.isnan(mean_case_dice(cases[2]))
    assert worst_cases(cases, count=2) == [3, 1]
    assert worst_cases(cases, count=9) == [3, 1, 0]


def test_other_arrays_are_refused() -> None:
    truth = _classes(3, 0)

    def refuse(match: str, prediction: np.ndarray, truth: np.ndarray = truth) -> None:
        with pytest.raises(DataError, match=match):
            case_metrics(prediction, truth, labels=ORGANS, spacing_mm=(1, 1, 1))

    refuse("one grid", truth[1:])
    refuse("2 structures", np.stack([truth] * 3) > 0)
    refuse("bool is needed", np.stack([truth] * 2))
    refuse("holds 6, but the class numbers end at 2", truth * 3)
    refuse("holds 255", np.where(truth == 1, IGNORED, truth))
    refuse("truth holds 6", truth, truth * 3)
    refuse("float32", truth.astype(np.float32))
    with pytest.raises(DataError, match="three positive numbers"):
        case_metrics(truth, truth, labels=ORGANS, spacing_mm=(0, 1, 1), surfaces=False)
    with pytest.raises(ConfigError, match="0 or more"):
        case_metrics(truth, truth, labels=ORGANS, spacing_mm=(1, 1, 1), surface_tolerance_mm=-1)
