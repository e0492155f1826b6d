"""The preprocessing contract: checked when made, whole again from JSON."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from voxlift.core.preprocessing import Preprocessing, window_bounds


def test_json_round_trip_is_the_same() -> None:
    preprocessing = Preprocessing(
        size_voxels=(48, 48, 48),
        spacing_mm=(1.0, 1.0, 1.0),
        intensity="window",
        window=(-1000.0, 400.0),
        unit="HU",
        mean=0.25,
        std=0.3,
    )
    assert Preprocessing.model_validate_json(preprocessing.model_dump_json()) == preprocessing


def test_photographs_use_one_mean_and_std_for_all_slices() -> None:
    preprocessing = Preprocessing.for_photographs(224)
    assert preprocessing.size_voxels == (3, 224, 224)
    assert (preprocessing.mean, preprocessing.std) == (114.495, 57.63)
    assert (preprocessing.unit, preprocessing.intensity) == ("0-255", "none")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"intensity": "window"}, "Give window="),
        ({"intensity": "percentiles"}, "Give percentiles="),
        ({"window": (0, 1)}, "and only then"),
        ({"intensity": "window", "window": (400, -1000)}, "low has to be below high"),
        ({"intensity": "percentiles", "percentiles": (1, 101)}, "from 0 to 100"),
        ({"intensity": "percentiles", "percentiles": (-1, 99)}, "from 0 to 100"),
        ({"std": 0}, "greater than 0"),
        ({"mean": math.nan}, "finite"),
        ({"spacing_mm": (-1, 1, 1)}, "greater than or equal to 0"),
        ({"size_voxels": (0, 1, 1)}, "greater than 0"),
        ({"unit": "hu"}, "HU"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocessing(**fields)


def test_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Preprocessing().mean = 1.0


def test_description_names_every_step_in_order() -> None:
    text = Preprocessing(
        spacing_mm=(2.5, 1, 1),
        intensity="window",
        window=(-1000, 400),
        unit="HU",
        mean=0.5,
        std=0.25,
        size_voxels=(16, 48, 48),
    ).describe()
    parts = ["canonical", "2.5 x 1 x 1 mm", "-1000 to 400 HU", "mean 0.5", "16 x 48 x 48 voxels"]
    assert sorted(parts, key=text.index) == parts
    assert "percentiles 1 to 99" in (
        Preprocessing(intensity="percentiles", percentiles=(1, 99)).describe()
    )
    assert "standard deviation" in Preprocessing(intensity="zscore").describe()
    assert Preprocessing(orientation="stored").describe().endswith("as they are")


def test_windows_as_radiologists_write_them() -> None:
    # Liver and lung.
    assert window_bounds(450, 25) == (-200, 250)
    assert window_bounds(1500, -600) == (-1350, 150)
    for width in (0, -1, math.nan):
        with pytest.raises(ValueError, match="has to be positive"):
            window_bounds(width, 0)
