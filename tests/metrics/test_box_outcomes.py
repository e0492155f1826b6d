import numpy as np
import pytest

from voxlift.core.detection_settings import Matching
from voxlift.metrics.box_matching import find_lesions
from voxlift.metrics.box_outcomes import NO_BOX, box_outcomes
from voxlift.metrics.findings import NOT_FOUND
from voxlift.metrics.image_boxes import ImageBoxes


def make_image(seed: int, *, num_boxes: int = 20, num_truths: int = 8) -> ImageBoxes:
    generator = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        low = generator.integers(0, 20, (count, 2)).astype(float)
        return np.concatenate([low, low + generator.integers(5, 25, (count, 2))], axis=1)

    return ImageBoxes(
        boxes=boxes(num_boxes),
        scores=generator.random(num_boxes),
        labels=generator.integers(0, 2, num_boxes),
        truths=boxes(num_truths),
        truth_labels=generator.integers(0, 2, num_truths),
        ignored=generator.random(num_truths) < 0.3,
    )


@pytest.mark.parametrize("matching", ["iou", "iobb"])
def test_outcomes_are_what_the_curve_counts(matching: Matching) -> None:
    images = [make_image(seed) for seed in range(10)]
    findings = find_lesions(images, iou_threshold=0.4, matching=matching)
    outcomes = [box_outcomes(image, iou_threshold=0.4, matching=matching) for image in images]
    best = np.concatenate([each.best_score for each in outcomes])
    assert best[findings.lesion_rows].tolist() == findings.lesion_scores.tolist()
    false = [image.scores[each.false] for image, each in zip(images, outcomes, strict=True)]
    assert np.concatenate(false).tolist() == findings.false_scores.tolist()
    assert sum(each.hit.sum() for each in outcomes) > 10
    for image, each in zip(images, outcomes, strict=True):
        assert not (each.hit & each.false).any()
        assert each.hit.tolist() == (each.overlap >= 0.4).tolist()
        for row, (box, score) in enumerate(zip(each.best_box, each.best_score, strict=True)):
            if box == NO_BOX:
                assert score == NOT_FOUND
            else:
                assert image.scores[box] == score
                assert image.labels[box] == image.truth_labels[row]


def test_overlaps_are_with_lesions_of_the_class() -> None:
    image = ImageBoxes(
        boxes=np.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]]),
        scores=np.array([0.9, 0.8, 0.7]),
        labels=np.array([0, 0, 1]),
        truths=np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [20, 20, 30, 30]]),
        truth_labels=np.array([0, 0, 1]),
        ignored=np.array([False, False, True]),
    )
    outcomes = box_outcomes(image)
    assert outcomes.overlap.tolist() == [1.0, 0.5, 0.0]
    assert outcomes.hit.tolist() == [True, True, False]
    assert outcomes.false.tolist() == [False, False, False]
    assert outcomes.best_box.tolist() == [0, NO_BOX, 2]


def test_nothing_at_all() -> None:
    for num_boxes, num_truths in ((0, 3), (3, 0), (0, 0)):
        image = make_image(0, num_boxes=num_boxes, num_truths=num_truths)
        outcomes = box_outcomes(image)
        assert outcomes.false.tolist() == [True] * num_boxes
        assert outcomes.overlap.tolist() == [0.0] * num_boxes
        assert outcomes.best_box.tolist() == [NO_BOX] * num_truths
