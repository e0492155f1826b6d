import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlift.metrics.box_matching import find_lesions, overlaps
from voxlift.metrics.findings import NOT_FOUND
from voxlift.metrics.image_boxes import check_image_boxes

WHOLE = st.integers(0, 9)


@settings(derandomize=True)
@given(st.tuples(WHOLE, WHOLE, WHOLE, WHOLE), st.tuples(WHOLE, WHOLE, WHOLE, WHOLE))
def test_overlaps_are_shares_of_painted_pixels(
    first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    painted, boxes = [], []
    for x, y, width, height in (first, second):
        pixels = np.zeros((20, 20), dtype=bool)
        pixels[y : y + height, x : x + width] = True
        painted.append(pixels)
        boxes.append(np.array([[x, y, x + width, y + height]], dtype=float))
    common, union = (painted[0] & painted[1]).sum(), (painted[0] | painted[1]).sum()
    over_union, over_box = overlaps(*boxes)
    assert over_union == pytest.approx(common / union if union else 0)
    assert over_box == pytest.approx(common / painted[0].sum() if common else 0)


def test_findings_keep_the_place_of_each_lesion() -> None:
    squares = np.array([[x, 0, x + 8, 8] for x in (0.0, 10, 20, 30)])
    images = check_image_boxes(
        [
            [[*squares[2], 0.3], [*squares[2], 0.6]],
            [],
            [[*squares[0], 0.9], [*squares[3], 0.8], [*squares[1], 0.7]],
        ],
        [squares[:3], [], squares[:2]],
        prediction_labels=[[1, 1], [], [0, 1, 1]],
        truth_labels=[[0, 0, 1], [], [0, 0]],
        truth_ignored=[[False, True, False], [], [False, False]],
    )
    findings = find_lesions(images)
    assert findings.num_truths.tolist() == [3, 0, 2]
    assert (findings.num_images, findings.num_lesions) == (3, 4)
    assert findings.lesion_images.tolist() == [0, 0, 2, 2]
    assert findings.lesion_rows.tolist() == [0, 2, 3, 4]
    assert findings.lesion_labels.tolist() == [0, 1, 0, 0]
    assert findings.lesion_scores.tolist() == [NOT_FOUND, 0.6, 0.9, NOT_FOUND]
    assert findings.false_images.tolist() == [2, 2]
    assert findings.false_scores.tolist() == [0.8, 0.7]
    assert findings.labels == [0, 1]
    second = findings.of_label(1)
    assert second.num_images == 3
    assert second.lesion_rows.tolist() == [2]
    assert second.false_labels.tolist() == [1, 1]
