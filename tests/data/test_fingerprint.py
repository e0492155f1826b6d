from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.fingerprint import (
    CT_WINDOW_HU,
    MOST_READ,
    propose_preprocessing,
    take_fingerprint,
)
from voxlift.data.preprocess import preprocess


def cases_of(
    volumes: list[npt.NDArray[Any]], *, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> ClassificationCases:
    labels = np.arange(len(volumes)) % 2
    return ClassificationCases.from_arrays(volumes, labels, spacing_mm=spacing_mm)


def random_volumes(
    low: float, high: float, *, count: int = 6, size: tuple[int, int, int] = (6, 7, 8)
) -> list[npt.NDArray[Any]]:
    generator = np.random.default_rng(0)
    return [generator.uniform(low, high, size).astype(np.float32) for _ in range(count)]


def everything(cases: ClassificationCases) -> npt.NDArray[np.int64]:
    return np.arange(len(cases))


@pytest.mark.parametrize(
    ("low", "high", "unit"),
    [(-1000, 500, "HU"), (-150, 900, "raw"), (0, 255, "0-255"), (0, 4000, "raw"), (0, 1, "raw")],
)
def test_unit_is_guessed_from_the_numbers(low: float, high: float, unit: str) -> None:
    found, _ = take_fingerprint(cases := cases_of(random_volumes(low, high)), everything(cases))
    assert found.unit == unit
    assert low <= found.low <= found.high <= high


def test_size_and_spacing_are_medians() -> None:
    volumes = [np.zeros((d, 4, 9), np.float32) for d in (3, 5, 12)]
    spacings = [(1.0, 0.5, 0.5), (2.5, 0.7, 0.7), (5.0, 0.9, 0.9)]
    cases = ClassificationCases(
        cases=tuple(
            ClassificationCase(
                id=str(number), image=volume, label=number % 2, group=str(number), spacing_mm=mm
            )
            for number, (volume, mm) in enumerate(zip(volumes, spacings, strict=True))
        ),
        class_names=("a", "b"),
        origin="test",
    )
    found, chosen = take_fingerprint(cases, everything(cases))
    assert found.size_voxels == (5, 4, 9)
    assert found.spacing_mm == (2.5, 0.7, 0.7)
    assert found.num_read == 3
    assert list(chosen) == [0, 1, 2]


def test_large_sets_are_sampled_from_end_to_end() -> None:
    cases = cases_of([np.full((1, 1, 1), n, np.float32) for n in range(200)])
    found, chosen = take_fingerprint(cases, np.arange(50, 200))
    assert found.num_read == len(chosen) == MOST_READ
    assert (chosen[0], chosen[-1]) == (50, 199)
    assert (found.low, found.high) == (50, 199)


def test_only_the_training_cases_are_looked_at() -> None:
    volumes = random_volumes(0, 200)
    cases = cases_of([*volumes, np.full((6, 7, 8), -1000, np.float32)])
    proposed, _, _ = propose_preprocessing(cases, np.arange(len(volumes)))
    assert proposed.unit == "0-255"


@pytest.mark.parametrize(("low", "high"), [(-1000, 500), (0, 255), (0, 4000)])
def test_proposal_normalises_the_training_volumes(low: float, high: float) -> None:
    cases = cases_of(random_volumes(low, high))
    proposed, spacing_mm, reason = propose_preprocessing(cases, everything(cases))
    volumes = np.stack([preprocess(cases.read_volume(i), proposed) for i in range(len(cases))])
    assert volumes.mean() == pytest.approx(0, abs=2e-3)
    assert volumes.std() == pytest.approx(1, abs=2e-3)
    assert spacing_mm == (1.0, 1.0, 1.0)
    assert "6 training volumes" in reason
    assert "(6, 7, 8)" in reason


def test_what_is_chosen_by_intensity() -> None:
    ct, _, why = propose_preprocessing(
        cases := cases_of(random_volumes(-900, 500)), everything(cases)
    )
    assert (ct.unit, ct.intensity, ct.window) == ("HU", "window", CT_WINDOW_HU)
    assert "window -1000 to 1000" in why
    eight_bit, _, _ = propose_preprocessing(
        cases := cases_of(random_volumes(0, 250)), everything(cases)
    )
    assert (eight_bit.unit, eight_bit.window) == ("0-255", (0.0, 255.0))
    mr, _, why = propose_preprocessing(
        cases := cases_of(random_volumes(0, 3000)), everything(cases)
    )
    assert (mr.unit, mr.intensity, mr.percentiles) == ("raw", "percentiles", (0.5, 99.5))
    assert "percentiles" in why


def test_what_the_user_says_stands() -> None:
    cases = cases_of(random_volumes(0, 255))
    proposed, spacing_mm, _ = propose_preprocessing(
        cases,
        everything(cases),
        size_voxels=(4, 5, 6),
        spacing_mm=(2.0, 1.0, 1.0),
        window=(10.0, 90.0),
        unit="raw",
        orientation="stored",
    )
    assert proposed.size_voxels == (4, 5, 6)
    assert proposed.spacing_mm == spacing_mm == (2.0, 1.0, 1.0)
    assert (proposed.unit, proposed.window) == ("raw", (10.0, 90.0))
    assert proposed.orientation == "stored"


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1000, 400)])
def test_mean_and_std_are_of_0_to_255(low: float, high: float) -> None:
    """The paper subtracts 99.2565 from 8-bit values and divides by 77.3798."""
    cases = cases_of(random_volumes(low, high))
    proposed, _, _ = propose_preprocessing(
        cases, everything(cases), window=(low, high), mean_std=(99.2565, 77.3798)
    )
    volume = cases.read_volume(0)
    grey = (volume.array - low) / (high - low) * 255
    assert proposed.size_voxels is not None
    made = preprocess(volume, proposed.model_copy(update={"size_voxels": None}))
    np.testing.assert_allclose(made[0], (grey - 99.2565) / 77.3798, atol=1e-5)


def test_size_follows_a_new_spacing() -> None:
    cases = cases_of(random_volumes(0, 255, size=(6, 8, 8)), spacing_mm=(3.0, 1.0, 1.0))
    proposed, _, _ = propose_preprocessing(cases, everything(cases), spacing_mm=(1.0, 1.0, 2.0))
    assert proposed.size_voxels == (18, 8, 4)


def test_size_has_a_limit() -> None:
    cases = cases_of(random_volumes(0, 255, count=2, size=(2, 2, 500)))
    proposed, _, _ = propose_preprocessing(cases, everything(cases))
    assert proposed.size_voxels == (2, 2, 160)


def test_constant_volumes_do_not_divide_by_zero() -> None:
    cases = cases_of([np.zeros((3, 3, 3), np.float32)] * 4)
    proposed, _, _ = propose_preprocessing(cases, everything(cases))
    assert proposed.std > 0
    assert np.isfinite(preprocess(cases.read_volume(0), proposed)).all()
