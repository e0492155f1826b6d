"""Average precision against a computation of its own, and against numbers of pycocotools."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.average_precision import COCO_THRESHOLDS, average_precision

Images = list[dict[str, Any]]


def random_images(seed: int, *, num_images: int = 5, num_labels: int = 2) -> Images:
    """Draw true boxes, some of them crowds, and boxes that are shifted ones or mistakes."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(num_images):
        num_truths = int(generator.integers(0, 6))
        low = generator.integers(0, 60, (num_truths, 2))
        truths = np.concatenate([low, low + generator.integers(6, 40, (num_truths, 2))], axis=1)
        labels = generator.integers(0, num_labels, num_truths)
        copies = np.repeat(np.arange(num_truths), generator.integers(0, 4, num_truths))
        shifted = truths[copies] + generator.integers(-4, 5, (len(copies), 4))
        mistakes = generator.integers(0, 60, (4, 2))
        mistakes = np.concatenate([mistakes, mistakes + generator.integers(4, 40, (4, 2))], axis=1)
        boxes = np.concatenate([shifted, mistakes])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        images.append(
            {
                "boxes": np.column_stack(
                    [boxes, np.round(generator.random(len(boxes)) * 16) / 16]
                ).astype(float),
                "labels": np.concatenate([labels[copies], generator.integers(0, num_labels, 4)]),
                "truths": truths.astype(float),
                "truth_labels": labels,
                "crowd": generator.random(num_truths) < 0.2,
            }
        )
    return images


def _run(images: Images, **options: Any) -> Any:
    return average_precision(
        [image["boxes"] for image in images],
        [image["truths"] for image in images],
        prediction_labels=[image["labels"] for image in images],
        truth_labels=[image["truth_labels"] for image in images],
        truth_ignored=[image["crowd"] for image in images],
        **options,
    )


def _brute_overlap(box: np.ndarray, truth: np.ndarray, *, crowd: bool) -> float:
    width = max(0.0, min(box[2], truth[2]) - max(box[0], truth[0]))
    height = max(0.0, min(box[3], truth[3]) - max(box[1], truth[1]))
    area = (box[2] - box[0]) * (box[3] - box[1])
    other = (truth[2] - truth[0]) * (truth[3] - truth[1])
    return float(width * height / (area if crowd else area + other - width * height))


def _brute_precision(images: Images, label: int, threshold: float) -> float:
    """Go through all boxes of all images, best first, one at a time."""
    queue = sorted(
        (
            (-box[4], number, place)
            for number, image in enumerate(images)
            for place, box in enumerate(image["boxes"])
            if image["labels"][place] == label
        ),
    )
    taken: set[tuple[int, int]] = set()
    right: list[bool] = []
    for _, number, place in queue:
        image = images[number]
        box = image["boxes"][place]
        best, chosen, on_crowd = threshold, None, False
        for index, truth in enumerate(image["truths"]):
            if image["truth_labels"][index] != label:
                continue
            overlap = _brute_overlap(box, truth, crowd=image["crowd"][index])
            if image["crowd"][index]:
                on_crowd |= overlap >= threshold
            elif overlap >= best and (number, index) not in taken:
                best, chosen = overlap, index
        if chosen is not None:
            taken.add((number, chosen))
        if chosen is not None or not on_crowd:
            right.append(chosen is not None)
    total = sum(
        kind == label and not crowd
        for image in images
        for kind, crowd in zip(image["truth_labels"], image["crowd"], strict=True)
    )
    precisions = []
    for point in np.linspace(0, 1, 101):
        reached = [
            sum(right[: end + 1]) / (end + 1)
            for end in range(len(right))
            if sum(right[: end + 1]) / total >= point
        ]
        precisions.append(max(reached, default=0.0))
    return float(np.mean(precisions))


@settings(derandomize=True, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_area_is_what_counting_gives(seed: int) -> None:
    images = random_images(seed)
    found = _run(images, iou_thresholds=(0.5, 0.7))
    for label, areas in found.by_label.items():
        expected = [_brute_precision(images, label, threshold) for threshold in (0.5, 0.7)]
        assert areas == pytest.approx(expected)
    if found.by_label:
        table = np.array(list(found.by_label.values()))
        assert found.by_threshold == pytest.approx(table.mean(axis=0))
        assert found.value == pytest.approx(table.mean())


# Seed; AP, AP50 and AP75 of pycocotools 2.0.11 for 40 images of three classes.
COCO_NUMBERS = [
    (0, 0.09961603076656173, 0.25215979799828225, 0.05524289281989155),
    (1, 0.09965829751664687, 0.27253863334020434, 0.05836756159994367),
    (2, 0.09634313736546775, 0.24849043781871344, 0.05464127913547851),
]


@pytest.mark.parametrize(("seed", "whole", "at_50", "at_75"), COCO_NUMBERS)
def test_the_numbers_are_those_of_coco(seed: int, whole: float, at_50: float, at_75: float) -> None:
    found = _run(random_images(seed, num_images=40, num_labels=3), iou_thresholds=COCO_THRESHOLDS)
    assert found.value == pytest.approx(whole, abs=1e-12)
    assert found.by_threshold[0] == pytest.approx(at_50, abs=1e-12)
    assert found.by_threshold[5] == pytest.approx(at_75, abs=1e-12)


TRUTH = [0.0, 0, 10, 10]


def test_a_second_box_on_a_found_one_is_a_false_positive() -> None:
    boxes: Any = [[*TRUTH, 0.9], [*TRUTH, 0.8], [20, 20, 30, 30, 0.7]]
    truths: Any = [TRUTH, [20, 20, 30, 30]]
    found = average_precision([boxes], [truths])
    # Up to half the recall the precision is 1, then 2 of 3.
    assert found.value == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert found.by_threshold.tolist() == [found.value]


def test_only_the_best_boxes_count() -> None:
    boxes: Any = [[20, 20, 30, 30, 0.9], [*TRUTH, 0.8]]
    assert average_precision([boxes], [[TRUTH]]).value == pytest.approx(0.5)
    assert average_precision([boxes], [[TRUTH]], max_boxes=1).value == 0


def test_as_many_boxes_count_as_asked_for() -> None:
    boxes: Any = [[20, 20, 30, 30, 0.9]] * 150 + [[*TRUTH, 0.1]]
    assert average_precision([boxes], [[TRUTH]]).value == 0
    for most in (151, 10**12):
        found = average_precision([boxes], [[TRUTH]], max_boxes=most)
        assert found.value == pytest.approx(1 / 151)


def test_boxes_on_crowds_do_not_count() -> None:
    crowd = [0.0, 0, 100, 100]
    boxes: Any = [[50, 50, 60, 60, 0.9], [70, 50, 80, 60, 0.8], [*TRUTH, 0.7]]
    found = average_precision([boxes], [[crowd, TRUTH]], truth_ignored=[[True, False]])
    assert found.value == 1


def test_boxes_without_area_are_on_nothing() -> None:
    crowds: Any = [[0.0, 0, 100, 100], [50, 50, 50, 50]]
    boxes: Any = [[50, 50, 50, 50, 0.9], [5, 5, 5, 8, 0.8], [*TRUTH, 0.7]]
    found = average_precision([boxes], [[*crowds, TRUTH]], truth_ignored=[[True, True, False]])
    assert found.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("labels", [([-3], [2**40]), ([0], [7])])
def test_any_class_number_will_do(labels: Any) -> None:
    first, second = labels
    boxes, truths = [[[*TRUTH, 0.9]]] * 3, [np.array([TRUTH]), np.array([TRUTH]), np.zeros((0, 4))]
    found = average_precision(
        boxes,
        truths,
        prediction_labels=[first, first, [5]],
        truth_labels=[first, second, np.zeros(0, dtype=int)],
    )
    assert {label: areas.tolist() for label, areas in found.by_label.items()} == {
        first[0]: [1.0],
        second[0]: [0.0],
    }


def test_nothing_is_printed_logged_or_written(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        _run(random_images(0))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not list(tmp_path.iterdir())


def test_nothing_detected_and_nothing_to_detect() -> None:
    assert average_precision([[]], [[TRUTH]]).value == 0
    nothing = average_precision([[[*TRUTH, 0.9]]], [[]], iou_thresholds=(0.5, 0.75))
    assert math.isnan(nothing.value)
    assert np.isnan(nothing.by_threshold).all()
    assert nothing.by_label == {}


def test_a_whole_overlap_reaches_one() -> None:
    box = [0.1, 0.2, 0.7, 0.9]
    assert average_precision([[[*box, 0.9]]], [[box]], iou_thresholds=(1.0,)).value == 1


def test_the_thresholds_of_coco() -> None:
    assert len(COCO_THRESHOLDS) == 10
    assert np.diff(COCO_THRESHOLDS) == pytest.approx(np.full(9, 0.05))
    assert (COCO_THRESHOLDS[0], COCO_THRESHOLDS[5]) == (0.5, 0.75)


@pytest.mark.parametrize("options", [{"iou_thresholds": ()}, {"max_boxes": 0}])
def test_impossible_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="at least one of each"):
        average_precision([[]], [[]], **options)
    with pytest.raises(ConfigError, match="at most 1"):
        average_precision([[]], [[]], iou_thresholds=(2,))


def test_what_is_no_box_is_refused() -> None:
    with pytest.raises(DataError, match="5 columns"):
        average_precision([[TRUTH]], [[TRUTH]])
