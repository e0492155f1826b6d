"""Values of masks are counted and replaced as NumPy would, in parts, whatever their type."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voxlift.core import mask_values
from voxlift.core.errors import DataError
from voxlift.core.mask_values import count_values, replace_values


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_values, "_PART_VOXELS", 7)


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int64", "float32", "float64", ">i2"]
)
def test_counts_are_those_of_unique_over_all_parts(dtype: str) -> None:
    mask = np.random.default_rng(0).choice([0, 1, 7, 120], (3, 4, 5)).astype(dtype)
    values, counts = np.unique(mask, return_counts=True)
    assert count_values(mask) == {int(v): int(c) for v, c in zip(values, counts, strict=True)}


@given(arrays(np.int32, (3, 3), elements=st.integers(-(2**31), 2**31 - 1)))
def test_values_far_apart_are_counted_as_well(mask: np.ndarray) -> None:
    values, counts = np.unique(mask, return_counts=True)
    assert count_values(mask) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_booleans_are_0_and_1() -> None:
    mask = np.array([[[True, False, True]]])
    assert count_values(mask) == {0: 1, 1: 2}
    assert replace_values(mask, {0: 3, 1: 9}).tolist() == [[[9, 3, 9]]]


def test_rounding_in_scaled_files_is_passed_over() -> None:
    mask = np.array([0.0, 1.0000005, 1.9999996], dtype=np.float32)
    assert count_values(mask) == {0: 1, 1: 1, 2: 1}
    assert replace_values(mask, {0: 0, 1: 1, 2: 2}).tolist() == [0, 1, 2]


@pytest.mark.parametrize("wrong", [0.5, 1.01, np.nan, np.inf, -np.inf])
def test_values_that_are_not_whole_are_refused(wrong: float) -> None:
    with pytest.raises(DataError, match=r"no whole numbers, such as.*probability map"):
        count_values(np.array([0.0, 1.0, wrong]))


@pytest.mark.usefixtures("_small_parts")
def test_values_are_replaced_in_place_whatever_the_layout() -> None:
    numbers = {-1: 255, 0: 0, 3: 1, 500: 2}
    mask = np.random.default_rng(1).choice(list(numbers), (4, 5, 6)).astype(np.int16)
    turned = mask.transpose(2, 0, 1)[::-1]
    expected = np.vectorize(numbers.__getitem__)(turned)
    replaced = replace_values(turned, numbers)
    assert replaced.dtype == np.uint8
    assert np.array_equal(replaced, expected)
