from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.data.resample import resample, resample_like
from voxlift.data.volume import Volume
from voxlift.inference.slice_resampling import resample_slices

Array = npt.NDArray[np.float32]


def probabilities(*size: int) -> Array:
    return np.random.default_rng(0).random((2, *size)).astype(np.float32)


def scan(*size: int) -> Volume:
    """A slanted one, away from the origin."""
    turn = np.radians(20)
    direction = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    return Volume(
        np.zeros(size, np.float32),
        spacing_mm=(2.5, 0.8, 0.7),
        origin_mm=(-10.0, 4.0, 300.0),
        direction=direction,
    )


@pytest.mark.parametrize(
    "spacing_mm", [(1.0, 1.0, 1.0), (6.0, 0.5, 3.0), (2.5, 0.4, 2.0), (2.5, 0.8, 0.7), (40, 9, 9)]
)
def test_slices_come_back_as_the_whole_volume_would(spacing_mm: tuple[float, ...]) -> None:
    like = scan(9, 12, 10)
    grid = resample(like, (spacing_mm[0], spacing_mm[1], spacing_mm[2]))
    array = probabilities(*grid.size_voxels)
    expected = np.stack(
        [resample_like(replace(grid, array=part), like=like).array for part in array]
    )
    slices = (array[:, number] for number in range(array.shape[1]))
    found = np.stack(list(resample_slices(slices, grid=grid, like=like)), axis=1)
    assert found.shape == (2, 9, 12, 10)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_slices_on_the_grid_already_are_left_alone() -> None:
    like = scan(3, 4, 5)
    array = probabilities(3, 4, 5)
    found = list(resample_slices(iter(array.swapaxes(0, 1)), grid=like, like=like))
    np.testing.assert_array_equal(np.stack(found, axis=1), array)


def test_all_slices_are_asked_for_and_none_before_its_time() -> None:
    like = replace(scan(3, 4, 5), spacing_mm=(4.0, 1.0, 1.0))
    grid = resample(like, (1.0, 1.0, 1.0))
    array = probabilities(*grid.size_voxels)
    asked: list[int] = []

    def slices() -> Iterator[Array]:
        for number in range(len(array[0])):
            asked.append(number)
            yield array[:, number]

    found = resample_slices(slices(), grid=grid, like=like)
    next(found)
    assert len(asked) < len(array[0]) / 2
    assert len(list(found)) == 2
    assert len(asked) == grid.size_voxels[0]
