"""Slices at one distance about a key slice, against a resampling of the whole stack."""

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.slice_context import context_positions, interpolate, unbroken_run

STACK = np.random.default_rng(0).normal(size=(40, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("stored_mm", [0.5, 0.59998, 1.0, 2.0, 2.5, 3.0, 5.0])
@pytest.mark.parametrize("num_slices", [3, 4, 9, 10, 27])
@pytest.mark.parametrize("key", [0, 1, 20, 39])
def test_equals_a_resampling_of_the_whole_stack(
    stored_mm: float, num_slices: int, key: int
) -> None:
    positions = key + context_positions(num_slices, interval_mm=2.5, stored_interval_mm=stored_mm)
    slices = interpolate(lambda number: STACK[number], positions, first=0, last=39)

    # Every pixel by itself, on an axis in millimetres; beyond its ends np.interp repeats them.
    depths_mm = np.arange(40) * stored_mm
    wanted_mm = key * stored_mm + 2.5 * (np.arange(num_slices) - num_slices // 2)
    expected = np.stack(
        [np.interp(wanted_mm, depths_mm, column) for column in STACK.reshape(40, -1).T], axis=-1
    ).reshape(num_slices, 3, 4)
    np.testing.assert_allclose(slices, expected, atol=1e-5)
    np.testing.assert_array_equal(slices[num_slices // 2], STACK[key])


def test_beyond_a_gap_the_last_slice_repeats() -> None:
    read: list[int] = []

    def read_slice(number: int) -> npt.NDArray[np.float32]:
        read.append(number)
        plane: npt.NDArray[np.float32] = STACK[number]
        return plane

    positions = 20 + context_positions(9, interval_mm=2.5, stored_interval_mm=2.0)
    slices = interpolate(read_slice, positions, first=18, last=22)
    expected = [18, 18, 18, 18.75, 20, 21.25, 22, 22, 22]
    for one, position in zip(slices, expected, strict=True):
        low, share = int(position), position % 1
        mixed = (1 - share) * STACK[low] + share * STACK[min(low + 1, 39)]
        np.testing.assert_allclose(one, mixed, atol=1e-6)
    assert sorted(read) == [18, 19, 20, 21, 22]


def test_stored_slices_are_not_mixed_for_rounding() -> None:
    positions = context_positions(9, interval_mm=2.5, stored_interval_mm=0.5)
    assert positions.tolist() == [-20, -15, -10, -5, 0, 5, 10, 15, 20]
    for stored in (0.1, 0.3, 1.0 / 3.0):
        exact = context_positions(27, interval_mm=stored * 3, stored_interval_mm=stored)
        np.testing.assert_array_equal(exact, np.arange(-39, 40, 3))


def test_without_an_interval_the_stored_slices_are_taken() -> None:
    positions = context_positions(4, interval_mm=None, stored_interval_mm=5.0)
    assert positions.tolist() == [-2, -1, 0, 1]


@pytest.mark.parametrize("num_slices", [1, 2, 28])
def test_refuses_other_numbers_of_slices(num_slices: int) -> None:
    with pytest.raises(ConfigError, match="from 3 to 27"):
        context_positions(num_slices, interval_mm=2.5, stored_interval_mm=1.0)


@pytest.mark.parametrize("interval", [0.0, -1.0, np.nan])
def test_refuses_distances_that_are_not_positive(interval: float) -> None:
    with pytest.raises(ConfigError, match="has to be positive"):
        context_positions(3, interval_mm=interval, stored_interval_mm=1.0)
    with pytest.raises(DataError, match="has to be positive"):
        context_positions(3, interval_mm=2.5, stored_interval_mm=interval)


def test_neighbours_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="different sizes"):
        interpolate(lambda n: np.zeros((n + 1, 2)), np.array([0.5]), first=0, last=3)


def test_runs_end_at_gaps() -> None:
    assert unbroken_run({1, 2, 3, 5, 6, 7, 9}, 6) == (5, 7)
    assert unbroken_run({4}, 4) == (4, 4)
