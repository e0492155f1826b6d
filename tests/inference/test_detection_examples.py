"""Which boxes are worth looking at, and how their images are shown."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.detection_batches import detection_preprocessing
from voxlift.data.detection_cases import Boxes, DetectionCase, Slices, Unit
from voxlift.inference.detection import CaseBoxes
from voxlift.inference.detection_examples import (
    Example,
    choose_examples,
    picture_of,
    read_displayed,
)
from voxlift.inference.judged_case import JudgedCase, judge_cases

SIZE = (30, 40)


@dataclass(frozen=True)
class Steps:
    """Slices of -1000, 0 and 1000 HU, or channels of 0, 51 and 255."""

    unit: Unit = "HU"

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        assert num_slices == 3
        values = (-1000, 0, 1000) if self.unit == "HU" else (0, 51, 255)
        array = np.stack([np.full(SIZE, value, np.float32) for value in values])
        array[1, 0, 0] = 500
        return Slices(array, self.unit)


def make_case(number: int, boxes: Any, **more: Any) -> DetectionCase:
    return DetectionCase(
        id=f"image-{number}",
        group="person",
        split="test",
        size=SIZE,
        truth=Boxes.of(boxes, **more),
        source=Steps(),
    )


def boxes(*rows: list[float]) -> CaseBoxes:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return CaseBoxes(table, np.zeros(len(table), np.int64))


@pytest.fixture
def judged() -> list[JudgedCase]:
    cases = [
        make_case(0, [[0, 0, 10, 10], [20, 20, 30, 30]]),
        make_case(1, [[5, 5, 15, 15]]),
        make_case(2, [[0, 0, 20, 20], [10, 10, 14, 14]], crowd=[False, True]),
        make_case(3, []),
    ]
    found = [
        boxes([20, 20, 30, 30, 0.9], [0, 0, 10, 10, 0.8], [30, 0, 40, 9, 0.3]),
        boxes([5, 5, 15, 15, 0.95], [30, 0, 40, 9, 0.4], [31, 0, 40, 9, 0.2]),
        boxes([10, 10, 14, 14, 0.99], [0, 0, 20, 20, 0.1]),
        boxes([1, 1, 5, 5, 0.7]),
    ]
    sizes_mm = [np.array([3.0, 4.0]), np.array([5.4]), np.array([9.0, 1.0]), np.zeros(0)]
    return judge_cases(found, cases, sizes_mm=sizes_mm)


def test_the_surest_and_the_largest_are_chosen(judged: list[JudgedCase]) -> None:
    chosen = choose_examples(judged, threshold=0.5)
    hits, missed, false = chosen.values()
    # One of an image.
    assert [(one.number, one.true_row, one.found_row) for one in hits] == [(1, 0, 0), (0, 1, 0)]
    assert [(one.number, one.true_row, one.found_row) for one in missed] == [(2, 0, 1)]
    assert [(one.number, one.true_row, one.found_row) for one in false] == [
        (3, None, 0),
        (1, None, 1),
        (0, None, 2),
    ]
    # Without any threshold to reach, nothing is found.
    hits, missed, _ = choose_examples(judged, threshold=float("inf"), count=2).values()
    assert hits == []
    assert [(one.number, one.true_row) for one in missed] == [(2, 0), (0, 0)]


def test_what_is_seen_in_a_picture(judged: list[JudgedCase]) -> None:
    preprocessing = detection_preprocessing("HU")
    options: dict[str, Any] = {"preprocessing": preprocessing, "threshold": 0.5}
    picture = picture_of(Example(0, 0, 1, 0), judged[0], class_names=("lesion",), **options)
    assert (picture.name, picture.remark) == ("image-0", "3 mm, score 0.80")
    assert picture.texts == ("0.80", "0.90")
    assert picture.focus.tolist() == [0, 0, 10, 10]
    assert picture.found.tolist() == [[0, 0, 10, 10], [20, 20, 30, 30]]
    # Its own box though it is below the threshold; a crowd is no true box.
    picture = picture_of(Example(2, 0, 1, 0), judged[2], class_names=("cat", "dog"), **options)
    assert picture.remark == "cat, 9 mm, score 0.10"
    assert picture.texts == ("cat 0.10", "cat 0.99")
    assert picture.truths.tolist() == [[0, 0, 20, 20]]
    assert picture.ignored.tolist() == [[10, 10, 14, 14]]
    picture = picture_of(Example(1, None, 1, 0), judged[1], class_names=("lesion",), **options)
    assert picture.remark == "score 0.40"
    assert picture.focus.tolist() == [30, 0, 40, 9]
    picture = picture_of(Example(1, 0, None, 0), judged[1], class_names=("lesion",), **options)
    assert picture.remark == "5 mm, not found"
    assert picture.texts == ("0.95",)


def test_images_are_shown_as_people_see_them() -> None:
    case = make_case(0, [])
    shown = read_displayed(case, detection_preprocessing("HU", window=(-250, 250)))
    assert shown.shape == SIZE
    assert (shown[0, 0], shown[1, 1]) == (1, 0.5)
    unwindowed = read_displayed(case, Preprocessing(unit="HU"))
    assert unwindowed[1, 1] == 0
    assert unwindowed[0, 0] == pytest.approx(1, abs=0.01)
    colours = DetectionCase("x", "y", "", SIZE, Boxes.of([]), Steps("0-255"))
    shown = read_displayed(colours, detection_preprocessing("0-255"))
    assert shown.shape == (*SIZE, 3)
    assert shown[1, 1].tolist() == pytest.approx([0, 0.2, 1])


def test_what_does_not_belong_together_is_refused(judged: list[JudgedCase]) -> None:
    first, second = judged[:2]
    with pytest.raises(DataError, match="image-0 has 2 true and 3 detected boxes, but sizes"):
        JudgedCase(first.case, first.found, second.outcomes, first.sizes_mm, first.types)
