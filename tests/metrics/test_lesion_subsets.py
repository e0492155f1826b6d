import math
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.bootstrap import draw_resamples
from voxlift.metrics.froc import FrocResult, froc
from voxlift.metrics.lesion_subsets import sensitivity_by_size, sensitivity_by_type


def _square(place: int) -> list[float]:
    return [10.0 * place, 0, 10.0 * place + 8, 8]


# Found at 0.9, ignored, found at 0.3; missed; found at 0.7. One false positive at 0.5.
TRUTHS: list[Any] = [[_square(0), _square(1), _square(2)], [], [_square(0), _square(1)]]
BOXES: list[Any] = [
    [[*_square(0), 0.9], [*_square(2), 0.3]],
    [[*_square(5), 0.5]],
    [[*_square(1), 0.7]],
]
SIZES_MM: list[Any] = [[5, 8, 10], [], [math.nan, 40]]
TYPES: list[Any] = [["liver", "lung", "lung"], [], ["liver", None]]


@pytest.fixture
def result() -> FrocResult:
    return froc(BOXES, TRUTHS, truth_ignored=[[0, 1, 0], [], [0, 0]])


def test_sizes_are_judged_at_one_threshold(result: FrocResult) -> None:
    # Below a third of a false positive an image, boxes are called from 0.7 on.
    strict = sensitivity_by_size(result, SIZES_MM, false_positives_per_image=0.2)
    assert [(part.name, part.num_found, part.num_lesions) for part in strict] == [
        ("below 10 mm", 1, 1),
        ("10 to 30 mm", 0, 1),
        ("30 mm and more", 1, 1),
        ("unknown size", 0, 1),
    ]
    lax = sensitivity_by_size(result, SIZES_MM, false_positives_per_image=1)
    assert [part.num_found for part in lax] == [1, 1, 1, 0]
    assert [part.sensitivity.value for part in lax] == [1, 1, 1, 0]


def test_edges_and_unit_can_be_chosen(result: FrocResult) -> None:
    pixels = [[5, 5, 7.5], [], [7.5, 9]]
    parts = sensitivity_by_size(result, pixels, edges=(7.5,), unit="pixels")
    assert [(part.name, part.num_lesions) for part in parts] == [
        ("below 7.5 pixels", 1),
        ("7.5 pixels and more", 3),
    ]
    assert parts[1].sensitivity.value == pytest.approx(2 / 3)
    empty = sensitivity_by_size(result, pixels, edges=(1, 7.5))[0]
    assert (empty.num_lesions, empty.num_found) == (0, 0)
    assert math.isnan(empty.sensitivity.value)


def test_types_are_sorted_by_name(result: FrocResult) -> None:
    parts = sensitivity_by_type(result, TYPES, false_positives_per_image=0)
    assert [(part.name, part.num_found, part.num_lesions) for part in parts] == [
        ("liver", 1, 2),
        ("lung", 0, 1),
        ("unknown type", 1, 1),
    ]


def test_the_subsets_add_up_to_the_curve(result: FrocResult) -> None:
    for rate in (0, 1 / 3, 1):
        parts = sensitivity_by_size(result, SIZES_MM, false_positives_per_image=rate)
        found = sum(part.num_found for part in parts)
        assert found / result.num_lesions == result.sensitivity_at([rate])[0]


def test_the_interval_draws_patients(result: FrocResult) -> None:
    groups = ["one", "two", "three"]
    part = sensitivity_by_type(result, TYPES, groups=groups, num_samples=40, confidence=0.9)[0]
    counts = draw_resamples(3, groups=groups, num_samples=40).counts
    order = np.unique(groups, return_inverse=True)[1]
    drawn = counts[:, order]
    # The liver lesion of the first image is found, that of the third is missed.
    some = drawn[:, 0] + drawn[:, 2] > 0
    shares = drawn[some, 0] / (drawn[some, 0] + drawn[some, 2])
    expected = np.quantile(shares, [0.05, 0.95])
    assert [part.sensitivity.low, part.sensitivity.high] == pytest.approx(list(expected))
    alone = sensitivity_by_type(result, TYPES, groups=["one"] * 3)[0]
    assert math.isnan(alone.sensitivity.low)


def test_a_resample_may_never_hold_a_subset(result: FrocResult) -> None:
    # With this seed the only resample lacks the third image.
    seeds = [
        seed for seed in range(20) if not draw_resamples(3, num_samples=1, seed=seed).counts[0, 2]
    ]
    part = sensitivity_by_type(result, TYPES, num_samples=1, seed=seeds[0])[-1]
    assert part.sensitivity.value == 1
    assert math.isnan(part.sensitivity.low)


def test_every_true_box_needs_an_entry(result: FrocResult) -> None:
    with pytest.raises(DataError, match="sizes of 2 images, but 3 images"):
        sensitivity_by_size(result, SIZES_MM[:2])
    with pytest.raises(DataError, match=r"image 0 have the shape \(2,\), but there are 3 true"):
        sensitivity_by_size(result, [[5, 10], [], [1, 1]])
    with pytest.raises(DataError, match="types of image 2"):
        sensitivity_by_type(result, [*TYPES[:2], [None]])


def test_impossible_settings_are_refused(result: FrocResult) -> None:
    for edges in ((), (30, 10), (10, math.nan)):
        with pytest.raises(ConfigError, match="have to rise"):
            sensitivity_by_size(result, SIZES_MM, edges=edges)
    with pytest.raises(ConfigError, match="below 0"):
        sensitivity_by_type(result, TYPES, false_positives_per_image=-1)
