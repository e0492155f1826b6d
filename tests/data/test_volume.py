"""The Volume: its axes, and what it refuses."""

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.volume import Volume

# A turn by 90 degrees about z: width grows to y, height to -x, depth to z.
TURNED = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def test_defaults_are_a_unit_grid() -> None:
    volume = Volume(np.zeros((2, 3, 4), np.int16))
    assert volume.size_voxels == (2, 3, 4)
    assert volume.spacing_mm == (1.0, 1.0, 1.0)
    assert volume.origin_mm == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(volume.direction, np.eye(3))


def test_affine_takes_depth_height_width_to_patient_space() -> None:
    volume = Volume(np.zeros((2, 3, 4)), (5.0, 0.5, 0.25), (10.0, 20.0, 30.0), TURNED)
    assert (volume.affine @ [0, 0, 0, 1]).tolist() == [10, 20, 30, 1]
    assert (volume.affine @ [1, 0, 0, 1]).tolist() == [10, 20, 35, 1]
    assert (volume.affine @ [0, 1, 0, 1]).tolist() == [9.5, 20, 30, 1]
    assert (volume.affine @ [0, 0, 1, 1]).tolist() == [10, 20.25, 30, 1]


def test_geometry_cannot_be_changed_from_outside() -> None:
    direction = np.eye(3)
    volume = Volume(np.zeros((1, 1, 1)), direction=direction)
    direction[0, 0] = -1
    assert volume.direction[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        volume.direction[0, 0] = -1


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5), (1, 2, 3, 4, 5), (7,)])
def test_other_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"three dimensions .*this one has \d, of size"):
        Volume(np.zeros(shape))


@pytest.mark.parametrize(
    "array", [np.zeros((1, 1, 1), complex), np.full((1, 1, 1), "a"), np.full((1, 1, 1), None)]
)
def test_what_is_no_number_is_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="real numbers"):
        Volume(array)


def test_lists_are_refused() -> None:
    with pytest.raises(DataError, match="this one is list"):
        Volume([[[1.0]]])  # type: ignore[arg-type]


def test_empty_volume_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        Volume(np.zeros((3, 0, 4)))


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, np.nan), (1, 1), (np.inf, 1, 1)])
def test_impossible_spacing_is_refused(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match=r"spacing_mm is .*positive"):
        Volume(np.zeros((1, 1, 1)), spacing_mm=spacing)


def test_impossible_origin_is_refused() -> None:
    with pytest.raises(DataError, match="origin_mm"):
        Volume(np.zeros((1, 1, 1)), origin_mm=(0, np.nan, 0))


@pytest.mark.parametrize(
    "direction",
    [np.eye(2), np.zeros((3, 3)), np.full((3, 3), np.nan), np.eye(3) + 0.1 * np.eye(3, k=1)],
)
def test_sheared_or_impossible_direction_is_refused(direction: np.ndarray) -> None:
    with pytest.raises(DataError, match="right angles"):
        Volume(np.zeros((1, 1, 1)), direction=direction)


def test_nan_and_infinity_are_counted_and_placed() -> None:
    array = np.zeros((2, 3, 4), np.float32)
    Volume(array).check_finite()
    array[1, 2, 0] = np.nan
    array[1, 2, 3] = np.inf
    with pytest.raises(DataError, match=r"2 of 24 voxels .* first at \(1, 2, 0\)"):
        Volume(array).check_finite()


def test_whole_numbers_need_no_such_check() -> None:
    Volume(np.zeros((1, 1, 1), np.int16)).check_finite()
