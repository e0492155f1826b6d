"""Boxes clipped to their image."""

import numpy as np

from voxlift.data.box_clipping import clip_boxes


def test_clips_drops_and_counts() -> None:
    corners = np.array(
        [
            [1, 1, 3, 4],
            [-2, 1, 3, 4],
            [5, 5, 12, 30],
            [3, 3, 3, 5],
            [4, 4, 2, 5],
            [10, 0, 14, 2],
            [0, 0, 10.004, 20],
        ]
    )
    clipped = clip_boxes(corners, size=(20, 10))
    assert clipped.kept.tolist() == [True, True, True, False, False, False, True]
    np.testing.assert_array_equal(
        clipped.boxes, [[1, 1, 3, 4], [0, 1, 3, 4], [5, 5, 10, 20], [0, 0, 10, 20]]
    )
    assert clipped.counts == {
        "boxes clipped to their image": 2,
        "boxes dropped for having no area": 2,
        "boxes dropped for lying outside their image": 1,
    }


def test_without_a_size_only_empty_boxes_go() -> None:
    clipped = clip_boxes(np.array([[-5.0, 0, 3, 3], [1, 1, 1, 1]]), size=None)
    np.testing.assert_array_equal(clipped.boxes, [[-5, 0, 3, 3]])
    assert clipped.num_clipped == 0


def test_no_boxes() -> None:
    clipped = clip_boxes(np.zeros((0, 4)), size=(2, 2))
    assert clipped.boxes.shape == (0, 4)
    assert not any(clipped.counts.values())


def test_an_area_lost_to_rounding_is_none() -> None:
    edge = 512.0
    clipped = clip_boxes(np.array([[edge, 0, edge + 1e-9, 1]]), size=None)
    assert clipped.num_empty == 1
