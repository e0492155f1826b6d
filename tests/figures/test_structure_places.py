import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.figures.structure_places import count_voxels, locate_structure, values_mask


def test_values_are_counted_slice_by_slice() -> None:
    mask = np.random.default_rng(0).choice([0, 3, 700], size=(5, 6, 7), p=[0.9, 0.05, 0.05])
    totals, slices = count_voxels(mask.astype(np.uint16))
    assert totals == {value: int((mask == value).sum()) for value in (0, 3, 700)}
    for value in (0, 3, 700):
        assert slices[value] == [d for d in range(5) if value in mask[d]]


@pytest.mark.parametrize("seed", range(5))
def test_the_point_is_the_voxel_nearest_to_the_centroid(seed: int) -> None:
    spacing_mm = (4.0, 1.0, 0.7)
    mask = (np.random.default_rng(seed).random((9, 11, 13)) < 0.02).astype(np.uint8) * 2
    depths = count_voxels(mask)[1][2]
    place = locate_structure(mask, [2, 5], depths=depths, spacing_mm=spacing_mm)
    voxels = np.argwhere(mask == 2)
    away = np.linalg.norm((voxels - voxels.mean(axis=0)) * spacing_mm, axis=1)
    assert mask[place.point] == 2
    assert away[(voxels == place.point).all(axis=1)][0] == pytest.approx(away.min())
    assert place.first == tuple(voxels.min(axis=0))
    assert place.last == tuple(voxels.max(axis=0))
    assert place.num_voxels == len(voxels)


def test_the_point_of_a_ring_lies_on_it() -> None:
    rows, columns = np.ogrid[:41, :41]
    radius = np.hypot(rows - 20, columns - 20)
    mask = np.zeros((3, 41, 41), dtype=np.uint8)
    mask[1] = (radius > 14) & (radius < 18)
    place = locate_structure(mask, [1], depths=[1], spacing_mm=(1, 1, 1))
    assert mask[place.point] == 1
    assert np.hypot(place.point[1] - 20, place.point[2] - 20) < 15


def test_several_values_are_one_structure() -> None:
    mask = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    assert values_mask(mask, [1, 3]).tolist() == [[[False, True], [False, True]]]


def test_masks_of_other_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="float64"):
        count_voxels(np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="holds -1"):
        count_voxels(np.full((2, 2, 2), -1, dtype=np.int16))
