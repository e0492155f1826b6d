import numpy as np
import pytest
import torch
from monai.transforms import KeepLargestConnectedComponent

from voxlift.inference.largest_component import outside_largest_component


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_the_largest_piece_is_that_of_monai(density: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random((14, 15, 16)) < density
    # One piece that is the largest without doubt.
    mask[4:8, 5:9, 6:10] = True
    outside = outside_largest_component(mask)
    assert outside is not None
    expected = (
        KeepLargestConnectedComponent()(torch.from_numpy(mask.copy())[None])[0].bool().numpy()
    )
    np.testing.assert_array_equal(mask & ~outside, expected)
    np.testing.assert_array_equal(outside & mask, outside)


def test_pieces_that_touch_by_a_corner_are_one() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert outside_largest_component(mask) is None
    mask[3, 3, 3] = True
    outside = outside_largest_component(mask)
    assert outside is not None
    assert np.argwhere(outside).tolist() == [[3, 3, 3]]


def test_of_equal_pieces_the_first_stays() -> None:
    mask = np.zeros((1, 1, 5), bool)
    mask[0, 0, [0, 4]] = True
    outside = outside_largest_component(mask)
    assert outside is not None
    assert np.argwhere(outside).tolist() == [[0, 0, 4]]


def test_nothing_is_outside_of_nothing() -> None:
    assert outside_largest_component(np.zeros((2, 3, 4), bool)) is None
