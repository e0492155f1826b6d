"""Choose what is worth looking at of a detector's answers, and read those images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.core.preprocessing import Preprocessing
from voxlift.data.detection_cases import DetectionCase
from voxlift.figures.detections import DetectionPicture
from voxlift.inference.judged_case import JudgedCase
from voxlift.metrics.box_outcomes import NO_BOX

NUM_A_ROW = 4

Picture = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """A box worth looking at.

    Attributes:
        number: Of its image.
        true_row: Its place among the true boxes; None for one that is not true.
        found_row: Its place among the detected boxes; None for one that was not detected.
        rank: The examples of the lowest come first.
    """

    number: int
    true_row: int | None
    found_row: int | None
    rank: float


def choose_examples(
    judged: Sequence[JudgedCase], *, threshold: float, count: int = NUM_A_ROW
) -> dict[str, list[Example]]:
    """Choose the surest hits, the largest missed lesions and the surest false positives.

    Of each kind an image gives one at most.

    Args:
        judged: All images.
        threshold: Lesions that are hit with a lower score count as missed.
        count: Most examples of a kind.
    """
    hits, missed, false = [], [], []
    for number, each in enumerate(judged):
        outcomes, truth = each.outcomes, each.case.truth
        for row in np.flatnonzero(~truth.crowd).tolist():
            box = int(outcomes.best_box[row])
            score = float(outcomes.best_score[row])
            if score >= threshold:
                hits.append(Example(number, row, box, -score))
            else:
                area = float(truth.edges[row].prod())
                missed.append(Example(number, row, None if box == NO_BOX else box, -area))
        for row in np.flatnonzero(outcomes.false).tolist():
            false.append(Example(number, None, row, -float(each.found.boxes[row, 4])))
    return {
        "surest hits": _first(hits, count),
        "largest missed": _first(missed, count),
        "surest false positives": _first(false, count),
    }


def picture_of(
    example: Example,
    judged: JudgedCase,
    *,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    threshold: float,
) -> DetectionPicture:
    """Read the image of an example, and say what is to be seen in it.

    Args:
        example: The box that it is shown for.
        judged: The image.
        preprocessing: Of the model, whose window CT is shown in.
        class_names: What the labels stand for.
        threshold: Detected boxes with a lower score are not shown, but for that of the example.

    Raises:
        DataError: If it cannot be read.
    """
    case, found = judged.case, judged.found
    truth = case.truth
    shown = np.flatnonzero(found.boxes[:, 4] >= threshold)
    if example.found_row is not None:
        shown = np.concatenate([[example.found_row], shown[shown != example.found_row]])
    named = len(class_names) > 1
    if example.true_row is not None:
        focus, label = truth.boxes[example.true_row], truth.labels[example.true_row]
    else:
        assert example.found_row is not None
        focus, label = found.boxes[example.found_row, :4], found.labels[example.found_row]
    remarks = [class_names[label]] if named else []
    if example.true_row is not None and not np.isnan(judged.sizes_mm[example.true_row]):
        remarks.append(f"{judged.sizes_mm[example.true_row]:.0f} mm")
    if example.found_row is None:
        remarks.append("not found")
    else:
        remarks.append(f"score {found.boxes[example.found_row, 4]:.2f}")
    return DetectionPicture(
        name=case.id,
        remark=", ".join(remarks),
        image=read_displayed(case, preprocessing),
        focus=focus,
        truths=truth.boxes[~truth.crowd],
        ignored=truth.boxes[truth.crowd],
        found=found.boxes[shown, :4],
        texts=tuple(
            f"{class_names[label]} {score:.2f}" if named else f"{score:.2f}"
            for label, score in zip(found.labels[shown], found.boxes[shown, 4], strict=True)
        ),
    )


def read_displayed(case: DetectionCase, preprocessing: Preprocessing) -> Picture:
    """Read a photograph in colour, or a key slice of CT in the window of a model, from 0 to 1.

    Raises:
        DataError: If it cannot be read.
    """
    slices = case.source.read(num_slices=3, interval_mm=None)
    if slices.unit == "0-255":
        return (np.moveaxis(slices.array, 0, -1) / 255).astype(np.float32)
    key = slices.array[1]
    low, high = preprocessing.window or (float(key.min()), float(key.max()) + 1)
    brightness: Picture = ((key - low) / (high - low)).clip(0, 1).astype(np.float32)
    return brightness


def _first(examples: Iterable[Example], count: int) -> list[Example]:
    """Take those of the lowest rank, one an image."""
    of_image: dict[int, Example] = {}
    for example in sorted(examples, key=lambda each: each.rank):
        of_image.setdefault(example.number, example)
    return list(of_image.values())[:count]
