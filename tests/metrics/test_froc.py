"""FROC against a computation of its own: every threshold in turn, every box by itself."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voxlift.metrics
from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.froc import FrocResult, froc

Box = tuple[float, ...]
NO_BOXES = np.zeros((0, 5))
NO_TRUTHS = np.zeros((0, 4))


def _overlap(box: Box, truth: Box, *, over_box: bool) -> float:
    width = min(box[2], truth[2]) - max(box[0], truth[0])
    height = min(box[3], truth[3]) - max(box[1], truth[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (box[2] - box[0]) * (box[3] - box[1])
    union = area + (truth[2] - truth[0]) * (truth[3] - truth[1]) - width * height
    return width * height / (area if over_box else union)


def _brute_points(
    images: list[dict[str, Any]], *, matching: str, threshold: float
) -> list[tuple[float, float]]:
    """Count found lesions and false positives at every threshold, from nothing called on."""
    scores = sorted({box[4] for image in images for box in image["boxes"]}, reverse=True)
    points = []
    for level in [math.inf, *scores]:
        found, false = 0, 0
        for image in images:
            called = [
                (box, label)
                for box, label in zip(image["boxes"], image["labels"], strict=True)
                if box[4] >= level
            ]
            truths = list(
                zip(image["truths"], image["truth_labels"], image["ignored"], strict=True)
            )
            for truth, truth_label, ignored in truths:
                hits = [
                    _overlap(box, truth, over_box=matching == "iobb") >= threshold
                    for box, label in called
                    if label == truth_label
                ]
                found += any(hits) and not ignored
            for box, label in called:
                on_something = any(
                    _overlap(box, truth, over_box=matching == "iobb" or ignored) >= threshold
                    for truth, truth_label, ignored in truths
                    if label == truth_label
                )
                false += not on_something
        points.append((float(false), float(found)))
    return points


def _brute_read(points: list[tuple[float, float]], count: float) -> float:
    """Read the curve at a number of false positives."""
    here = [found for false, found in points if false == count]
    if here:
        return max(here)
    left = max((false, found) for false, found in points if false < count)
    after = [point for point in points if point[0] > count]
    if not after:
        return left[1]
    right = min(after)
    share = (count - left[0]) / (right[0] - left[0])
    return left[1] + share * (right[1] - left[1])


def _random_images(seed: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)

    def boxes(most: int) -> list[Box]:
        # Few places, few sizes: overlaps just at the threshold are common.
        count = int(generator.integers(most))
        low = generator.integers(0, 5, (count, 2))
        return [(*row, *(row + generator.integers(1, 5, 2))) for row in low]

    images = []
    for _ in range(generator.integers(1, 6)):
        found, there = boxes(9), boxes(4)
        images.append(
            {
                "boxes": [(*box, generator.integers(0, 6) / 5) for box in found],
                "labels": generator.integers(0, 2, len(found)).tolist(),
                "truths": there,
                "truth_labels": generator.integers(0, 2, len(there)).tolist(),
                "ignored": (generator.random(len(there)) < 0.3).tolist(),
            }
        )
    return images


def _run(images: list[dict[str, Any]], **options: Any) -> FrocResult:
    return froc(
        [image["boxes"] for image in images],
        [image["truths"] for image in images],
        prediction_labels=[image["labels"] for image in images],
        truth_labels=[image["truth_labels"] for image in images],
        truth_ignored=[image["ignored"] for image in images],
        **options,
    )


@settings(derandomize=True, max_examples=100)
@given(
    seed=st.integers(0, 10_000),
    matching=st.sampled_from(["iou", "iobb"]),
    threshold=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_the_curve_is_what_counting_gives(seed: int, matching: str, threshold: float) -> None:
    images = _random_images(seed)
    rates = (0.0, 0.3, 0.5, 1.0, 1.7, 4.0)
    result = _run(
        images, iou_threshold=threshold, matching=matching, false_positives_per_image=rates
    )
    points = _brute_points(images, matching=matching, threshold=threshold)
    lesions = sum(not ignored for image in images for ignored in image["ignored"])
    assert (result.num_images, result.num_lesions) == (len(images), lesions)
    if not lesions:
        assert np.isnan(result.sensitivity).all()
        return
    expected = [_brute_read(points, rate * len(images)) / lesions for rate in rates]
    assert result.sensitivity == pytest.approx(expected)
    curve = {
        (round(false * len(images)), round(found * lesions))
        for false, found in zip(
            result.curve_false_positives_per_image, result.curve_sensitivity, strict=True
        )
    }
    assert curve == set(points)


@settings(derandomize=True, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_each_class_is_judged_as_if_alone(seed: int) -> None:
    images = _random_images(seed)
    result = _run(images)
    for label, alone in result.by_label.items():
        parts = [
            {
                "boxes": [b for b, k in zip(i["boxes"], i["labels"], strict=True) if k == label],
                "truths": [
                    b for b, k in zip(i["truths"], i["truth_labels"], strict=True) if k == label
                ],
                "ignored": [
                    b for b, k in zip(i["ignored"], i["truth_labels"], strict=True) if k == label
                ],
            }
            for i in images
        ]
        expected = froc(
            [part["boxes"] for part in parts],
            [part["truths"] for part in parts],
            truth_ignored=[part["ignored"] for part in parts],
        )
        assert alone.sensitivity == pytest.approx(expected.sensitivity, nan_ok=True)
        assert alone.curve_thresholds == pytest.approx(expected.curve_thresholds)
    assert sum(alone.num_lesions for alone in result.by_label.values()) == result.num_lesions


@settings(derandomize=True, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_boxes_and_images_does_not_matter(seed: int) -> None:
    images = _random_images(seed)
    before = _run(images)
    generator = np.random.default_rng(seed)
    for image in images:
        order = generator.permutation(len(image["boxes"]))
        image["boxes"] = [image["boxes"][place] for place in order]
        image["labels"] = [image["labels"][place] for place in order]
    after = _run([images[place] for place in generator.permutation(len(images))])
    assert after.sensitivity == pytest.approx(before.sensitivity, nan_ok=True)
    assert after.thresholds == pytest.approx(before.thresholds)


LESION = [10, 10, 20, 20]
ELSEWHERE = [50, 50, 60, 60]


def test_a_lesion_counts_once_and_further_hits_are_nothing() -> None:
    boxes = [[*LESION, 0.9], [*LESION, 0.8], [11, 10, 21, 20, 0.7], [*ELSEWHERE, 0.6]]
    result = froc([boxes], [[LESION, [30, 30, 40, 40]]], false_positives_per_image=(0, 1))
    assert result.sensitivity.tolist() == [0.5, 0.5]
    assert result.curve_false_positives_per_image.tolist() == [0, 0, 1]
    assert result.thresholds.tolist() == [0.9, 0.6]


def test_a_box_that_hits_two_lesions_finds_both() -> None:
    result = froc(
        [[[0, 0, 10, 10, 0.5]]], [[[0, 0, 10, 9], [0, 1, 10, 10]]], false_positives_per_image=(0,)
    )
    assert result.sensitivity.tolist() == [1]


def test_between_points_the_curve_is_a_straight_line() -> None:
    # One lesion is surer than every false positive; two come with the second of them.
    boxes = [
        [*LESION, 0.9],
        [*ELSEWHERE, 0.8],
        [*ELSEWHERE, 0.5],
        [*ELSEWHERE, 0.5],
        [30, 30, 40, 40, 0.5],
        [70, 70, 80, 80, 0.5],
    ]
    truths = [LESION, [30, 30, 40, 40], [70, 70, 80, 80], [90, 90, 99, 99]]
    result = froc([boxes], [truths], false_positives_per_image=(0, 0.5, 1, 1.5, 2, 3, 8))
    # Points (0, 0), (0, 1/4), (1, 1/4) and, all at once, (3, 3/4).
    assert result.sensitivity.tolist() == [0.25, 0.25, 0.25, 0.375, 0.5, 0.75, 0.75]
    assert result.thresholds.tolist() == [0.9, 0.9, 0.8, 0.8, 0.8, 0.5, 0.5]
    assert result.mean_sensitivity == pytest.approx(np.mean([0.25] * 3 + [0.375, 0.5, 0.75, 0.75]))
    assert result.sensitivity_at([2.5]).tolist() == [0.625]
    assert result.threshold_at(2.5) == 0.8


def test_the_curve_starts_at_nothing_called() -> None:
    # The surest boxes are wrong: below one false positive the line comes from the origin.
    boxes = [[*ELSEWHERE, 0.9], [*LESION, 0.9]]
    result = froc([boxes], [[LESION]], false_positives_per_image=(0, 0.25, 1))
    assert result.sensitivity.tolist() == [0, 0.25, 1]
    assert result.thresholds.tolist() == [math.inf, math.inf, 0.9]


def test_a_rate_that_is_a_whole_count_but_for_rounding_is_met() -> None:
    # 0.29 of 100 images is 28.999999999999996.
    false = [[*ELSEWHERE, 0.9]]
    images = [false] * 29 + [[[*LESION, 0.8]]] + [NO_BOXES] * 70
    truths = [NO_TRUTHS] * 29 + [[LESION]] + [NO_TRUTHS] * 70
    result = froc(images, truths, false_positives_per_image=(0.29,))
    assert result.sensitivity.tolist() == [1]
    assert result.thresholds.tolist() == [0.8]


def test_images_without_lesions_count() -> None:
    boxes: list[Any] = [[[*ELSEWHERE, 0.9], [*LESION, 0.8]], NO_BOXES]
    truths: list[Any] = [[LESION], []]
    result = froc(boxes, truths, false_positives_per_image=(0.5,))
    assert result.sensitivity.tolist() == [1]
    # Without the second image the same false positive is one an image.
    alone = froc(boxes[:1], truths[:1], false_positives_per_image=(0.5, 1))
    assert alone.sensitivity.tolist() == [0, 1]


def test_only_the_same_class_is_a_hit() -> None:
    boxes = [[*LESION, 0.9], [*LESION, 0.8]]
    options: dict[str, Any] = {"false_positives_per_image": (0, 1)}
    result = froc([boxes], [[LESION]], prediction_labels=[[1, 0]], truth_labels=[[0]], **options)
    assert result.sensitivity.tolist() == [0, 1]
    assert result.by_label[0].sensitivity.tolist() == [1, 1]
    assert np.isnan(result.by_label[1].sensitivity).all()
    assert froc([boxes], [[LESION]], **options).by_label == {}


def test_ignored_truths_are_neither_found_nor_false() -> None:
    crowd = [40, 40, 80, 80]
    boxes = [[*ELSEWHERE, 0.9], [*LESION, 0.8], [78, 78, 90, 90, 0.7]]
    result = froc(
        [boxes], [[crowd, LESION]], truth_ignored=[[1, 0]], false_positives_per_image=(0, 1)
    )
    assert result.num_lesions == 1
    assert result.sensitivity.tolist() == [1, 1]
    # Of the last box only 4 of 144 pixels lie in the crowd.
    assert result.curve_false_positives_per_image.tolist() == [0, 0, 1]
    # A hit on a lesion counts, though the box lies on a crowd too.
    overlapping = froc([[[*ELSEWHERE, 0.9]]], [[crowd, ELSEWHERE]], truth_ignored=[[True, False]])
    assert overlapping.sensitivity.tolist() == [1] * 4


def test_small_boxes_in_large_lesions_hit_by_their_own_area() -> None:
    boxes = [[10, 10, 20, 20, 0.9]]
    truths = [[0, 0, 100, 100]]
    assert froc([boxes], [truths], false_positives_per_image=(0,)).sensitivity == [0]
    result = froc([boxes], [truths], matching="iobb", false_positives_per_image=(0,))
    assert result.sensitivity == [1]


def test_nothing_detected_finds_nothing() -> None:
    result = froc([[], NO_BOXES], [[LESION], NO_TRUTHS])
    assert result.sensitivity.tolist() == [0] * 4
    assert result.thresholds.tolist() == [math.inf] * 4
    assert (result.num_images, result.num_lesions) == (2, 1)


def test_without_lesions_there_is_no_sensitivity() -> None:
    result = froc([[[*LESION, 0.9]]], [[]])
    assert np.isnan(result.sensitivity).all()
    assert result.thresholds.tolist() == [math.inf, 0.9, 0.9, 0.9]


def test_a_box_without_area_is_a_false_positive() -> None:
    result = froc([[[10, 10, 10, 20, 0.9]]], [[LESION]], matching="iobb")
    assert result.curve_false_positives_per_image.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("predictions", "truths", "options", "message"),
    [
        ([], [], {}, "hold no image"),
        ([[]], [[], []], {}, "truths have 2 entries, but there are 1 images"),
        ([[[0, 0, 1, 1]]], [[]], {}, r"predictions of image 0 have the shape \(1, 4\).* 5 columns"),
        ([[]], [[[0, 0, 1]]], {}, r"truths of image 0 have the shape \(1, 3\)"),
        ([[0, 0, 1, 1, 0.5]], [[]], {}, r"shape \(5,\)"),
        ([[], [[0, 0, 1, 1, math.nan]]], [[], []], {}, "Row 0 of the predictions of image 1"),
        ([[[0, 0, math.inf, 1, 0.5]]], [[]], {}, "finite"),
        ([[]], [[[0, 0, 1, math.nan]]], {}, "truths of image 0.* finite"),
        ([[[5, 0, 1, 1, 0.5]]], [[]], {}, r"box \[5.0, 0.0, 1.0, 1.0\].* x2"),
        ([[]], [[[0, 0, 0, 4]]], {}, "without area"),
        ([[]], [[[0, 5, 4, 4]]], {"truth_ignored": [[True]]}, "y2 above y1"),
        ([[]], [[]], {"truth_labels": [[]]}, "Only truth_labels"),
        ([[]], [[]], {"prediction_labels": [[]]}, "Only prediction_labels"),
        (
            [[[0, 0, 1, 1, 0.5]]],
            [[]],
            {"prediction_labels": [[]], "truth_labels": [[]]},
            "prediction_labels of image 0",
        ),
        (
            [[]],
            [[[0, 0, 1, 1]]],
            {"prediction_labels": [[]], "truth_labels": [[0.5]]},
            "float64, but class numbers",
        ),
        ([[]], [[[0, 0, 1, 1]]], {"truth_ignored": [[0, 1]]}, "truth_ignored of image 0"),
        ([[]], [[]], {"truth_ignored": []}, "hold no image"),
    ],
)
def test_what_is_no_box_is_refused(
    predictions: Any, truths: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        froc(predictions, truths, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou_threshold": 0}, "above 0 and at most 1"),
        ({"iou_threshold": 1.5}, "above 0 and at most 1"),
        ({"iou_threshold": math.nan}, "above 0 and at most 1"),
        ({"matching": "giou"}, "'iou' or 'iobb'"),
        ({"convention": "coco"}, "'voxlift' or 'mp3d'"),
        ({"false_positives_per_image": ()}, "rising"),
        ({"false_positives_per_image": (1, 1)}, "rising"),
        ({"false_positives_per_image": (-1, 1)}, "rising"),
        ({"false_positives_per_image": (1, math.inf)}, "rising"),
        ({"false_positives_per_image": 4.0}, "rising"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        froc([[]], [[]], **options)


def test_an_ignored_truth_may_have_no_area() -> None:
    result = froc([[]], [[[0, 0, 0, 4]]], truth_ignored=[[True]])
    assert result.num_lesions == 0


def test_the_public_name() -> None:
    assert voxlift.metrics.froc is froc
