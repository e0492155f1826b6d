"""The canonical order of axes, for every order that a file can have."""

from itertools import permutations, product

import numpy as np
import pytest

from voxlift.data.orientation import AxisOrder, canonical_order, from_canonical, to_canonical
from voxlift.data.volume import Volume

# All ways in which the axes of an array can run along those of the patient.
ORDERS = [
    np.eye(3)[:, order] * signs
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def tilt(degrees: float) -> np.ndarray:
    """Turn about x, then as much about z."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x)


def scan(direction: np.ndarray) -> Volume:
    array = np.random.default_rng(0).integers(0, 9999, (2, 3, 4)).astype(np.int16)
    return Volume(array, (2.5, 0.75, 0.5), (-7.0, 8.0, 9.5), direction)


def places(volume: Volume) -> dict[tuple[float, ...], int]:
    """The value at each place in the patient."""
    return {
        tuple((volume.affine @ [*index, 1]).round(6)[:3] + 0.0): int(value)
        for index, value in np.ndenumerate(volume.array)
    }


def test_there_are_48_orders() -> None:
    assert len(ORDERS) == 48


@pytest.mark.parametrize("degrees", [0, 20, -30])
@pytest.mark.parametrize("order", range(48))
def test_voxels_keep_their_place_and_the_way_back_is_exact(order: int, degrees: float) -> None:
    volume = scan(tilt(degrees) @ ORDERS[order])
    canonical = to_canonical(volume)
    assert places(canonical) == places(volume)
    # Width to the left, height to the back, depth to the head, slant apart.
    np.testing.assert_allclose(canonical.direction, tilt(degrees), atol=1e-12)

    back = from_canonical(canonical, like=volume)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.spacing_mm == volume.spacing_mm
    np.testing.assert_allclose(back.origin_mm, volume.origin_mm, atol=1e-9)
    np.testing.assert_array_equal(back.direction, volume.direction)


def test_canonical_scan_is_left_alone() -> None:
    volume = scan(np.eye(3))
    canonical = to_canonical(volume)
    assert np.shares_memory(canonical.array, volume.array)
    np.testing.assert_array_equal(canonical.array, volume.array)
    assert canonical.origin_mm == volume.origin_mm


def test_sagittal_scan() -> None:
    # Slices from left to right, rows from head to foot, columns from front to back.
    direction = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])
    volume = scan(direction)
    canonical = to_canonical(volume)
    assert canonical_order(direction) == AxisOrder(axes=(1, 2, 0), turned=(True, False, True))
    assert canonical.size_voxels == (3, 4, 2)
    assert canonical.spacing_mm == (0.75, 0.5, 2.5)
    assert canonical.array[0, 0, 0] == volume.array[-1, -1, 0]


def test_mask_made_in_canonical_order_lands_on_the_scan() -> None:
    volume = scan(tilt(10) @ ORDERS[29])
    canonical = to_canonical(volume)
    mask = Volume(
        (canonical.array > 5000).astype(np.uint8),
        canonical.spacing_mm,
        canonical.origin_mm,
        canonical.direction,
    )
    np.testing.assert_array_equal(from_canonical(mask, like=volume).array, volume.array > 5000)


def test_two_axes_never_claim_one_place() -> None:
    # At 45 degrees about z both in-plane axes are as near to x as to y.
    order = canonical_order(tilt(45))
    assert sorted(order.axes) == [0, 1, 2]
    assert canonical_order(tilt(45) + 1e-12) == order
