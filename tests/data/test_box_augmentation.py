"""Images and their boxes are changed alike."""

import numpy as np
import pytest
from pydantic import ValidationError

from voxlift.data.box_augmentation import (
    NUM_DRAWS,
    BoxAugmentation,
    BoxChange,
    change_boxes,
    change_slices,
    draw_box_change,
    resized,
)

SIZE = (40, 60)
BOX = np.array([[10, 4, 30, 20]], dtype=np.float32)


def marked() -> np.ndarray:
    """Three slices with a rectangle where the box is, brighter from slice to slice."""
    slices = np.zeros((3, *SIZE), dtype=np.float32)
    x1, y1, x2, y2 = BOX[0].astype(int)
    slices[:, y1:y2, x1:x2] = np.array([1, 2, 3], dtype=np.float32)[:, None, None]
    return slices


@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("flip_y", [False, True])
@pytest.mark.parametrize("size", [SIZE, (80, 120), (20, 30), (80, 60)])
def test_boxes_stay_on_what_they_mark(flip_x: bool, flip_y: bool, size: tuple[int, int]) -> None:
    change = BoxChange(size=size, flip_x=flip_x, flip_y=flip_y)
    image = change_slices(marked(), change).numpy()
    assert image.shape == (3, *size)
    x1, y1, x2, y2 = change_boxes(BOX, change, size=SIZE)[0]
    rows, columns = np.nonzero(image[0] > 0.5)
    assert (columns.min(), columns.max() + 1) == (x1, x2)
    assert (rows.min(), rows.max() + 1) == (y1, y2)


def test_slices_are_reversed_or_put_in_order() -> None:
    middle = np.s_[:, 10, 20]
    reversed_ = change_slices(marked(), BoxChange(size=SIZE, flip_slices=True))
    assert reversed_[middle].tolist() == [3, 2, 1]
    ordered = change_slices(marked(), BoxChange(size=SIZE, order=(1, 2, 0)))
    assert ordered[middle].tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((40, 60), (20, 30)), ((60, 40), (30, 20)), ((20, 200), (5, 50)), ((1, 500), (1, 50))],
)
def test_shorter_and_longer_edges(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized(size, image_size=20, max_image_size=50) == expected


def test_draws_follow_the_chances() -> None:
    augmentation = BoxAugmentation(
        image_sizes=(20, 40, 80), flip_x=0.5, flip_y=0.25, flip_slices=1.0, shuffle_slices=True
    )
    draws = np.random.default_rng(0).random((4000, NUM_DRAWS))
    changes = [
        draw_box_change(
            augmentation, one, size=SIZE, num_slices=3, image_size=512, max_image_size=60
        )
        for one in draws
    ]
    assert np.mean([change.flip_x for change in changes]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([change.flip_y for change in changes]) == pytest.approx(0.25, abs=0.03)
    assert all(change.flip_slices for change in changes)
    sizes = {change.size for change in changes}
    assert sizes == {(20, 30), (40, 60), (53, 80)}
    orders = [change.order for change in changes]
    assert len(set(orders)) == 6
    assert all(abs(orders.count(order) / 4000 - 1 / 6) < 0.03 for order in set(orders))


def test_by_default_nothing_is_changed() -> None:
    change = draw_box_change(
        BoxAugmentation(),
        np.zeros(NUM_DRAWS),
        size=SIZE,
        num_slices=3,
        image_size=40,
        max_image_size=60,
    )
    assert change == BoxChange(size=SIZE)
    np.testing.assert_array_equal(change_slices(marked(), change).numpy(), marked())


def test_chances_are_checked() -> None:
    with pytest.raises(ValidationError):
        BoxAugmentation(flip_x=1.5)
    with pytest.raises(ValidationError):
        BoxAugmentation(image_sizes=(0,))
