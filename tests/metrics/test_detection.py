import json
import logging
import math
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.metrics.average_precision import COCO_THRESHOLDS, average_precision
from voxlift.metrics.detection import DetectionMetrics, judge_detection
from voxlift.metrics.froc import froc
from voxlift.metrics.froc_bootstrap import bootstrap_froc
from voxlift.metrics.lesion_subsets import sensitivity_by_size, sensitivity_by_type


def _data() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    low = generator.random((30, 3, 2)) * 100
    truths = np.concatenate([low, low + 20], axis=2)
    shifted = truths + generator.normal(0, 3, truths.shape)
    false = np.concatenate([low[:, ::-1] + 40, low[:, ::-1] + 55], axis=2)
    boxes = np.concatenate([shifted, false], axis=1)
    scores = generator.random((30, 6, 1))
    return {
        "predictions": list(np.concatenate([boxes, scores], axis=2)),
        "truths": list(truths),
        "prediction_labels": list(generator.integers(0, 2, (30, 6))),
        "truth_labels": list(generator.integers(0, 2, (30, 3))),
        "truth_ignored": list(generator.random((30, 3)) < 0.1),
    }


def test_the_sensitivity_is_also_given_by_the_convention_of_published_numbers() -> None:
    # The lesion has a lower score than one false positive and a higher one than the other.
    boxes = [[50, 50, 60, 60, 0.9], [10, 10, 20, 20, 0.8], [70, 70, 80, 80, 0.7]]
    rates = (1.0, 1.5)
    judged = judge_detection(
        [boxes], [[[10, 10, 20, 20]]], false_positives_per_image=rates, num_samples=10
    )
    assert [each.value for each in judged.metrics.sensitivity] == [1, 1]
    assert judged.metrics.sensitivity_mp3d == (0, 1)


def test_everything_is_joined() -> None:
    data = _data()
    groups = np.arange(30) // 3
    sizes = list(np.random.default_rng(1).random((30, 3)) * 40)
    types = [["liver", None, "lung"]] * 30
    judged = judge_detection(
        **data,
        class_names=("benign", "malignant", "other"),
        groups=groups,
        sizes_mm=sizes,
        types=types,
        num_samples=50,
        seed=3,
    )
    metrics = judged.metrics
    drawing: dict[str, Any] = {"groups": groups, "num_samples": 50, "seed": 3}
    result = froc(**data)
    assert judged.froc.sensitivity.tolist() == result.sensitivity.tolist()
    curve = bootstrap_froc(result, **drawing)
    assert metrics.sensitivity == curve.sensitivity
    published = froc(**data, convention="mp3d")
    assert metrics.sensitivity_mp3d == tuple(published.sensitivity)
    assert judged.curve.low.tolist() == curve.low.tolist()
    assert metrics.thresholds == tuple(
        each if math.isfinite(each) else None for each in result.thresholds
    )
    precision = average_precision(**data, iou_thresholds=COCO_THRESHOLDS)
    assert metrics.average_precision == precision.value
    assert metrics.average_precision_50 == pytest.approx(average_precision(**data).value)
    assert metrics.by_size == sensitivity_by_size(result, sizes, **drawing)
    assert metrics.by_type == sensitivity_by_type(result, types, **drawing)
    assert (metrics.num_images, metrics.num_boxes, metrics.num_groups) == (30, 180, 10)
    assert metrics.num_lesions + metrics.num_ignored == 90
    benign, malignant, other = metrics.by_class
    assert benign.sensitivity == tuple(result.by_label[0].sensitivity)
    assert benign.num_lesions + malignant.num_lesions == metrics.num_lesions
    assert benign.average_precision == precision.by_label[0].mean()
    assert malignant.average_precision_50 == precision.by_label[1][0]
    assert other.num_lesions == 0
    assert math.isnan(other.sensitivity[0])
    assert math.isnan(other.average_precision)
    again = DetectionMetrics.model_validate_json(metrics.model_dump_json())
    assert again.model_dump_json() == metrics.model_dump_json()
    assert json.loads(metrics.model_dump_json())["by_class"][2]["average_precision"] is None


def test_one_class_needs_no_labels() -> None:
    data = _data()
    judged = judge_detection(
        data["predictions"], data["truths"], num_samples=5, iou_threshold=0.3, matching="iobb"
    )
    expected = froc(data["predictions"], data["truths"], iou_threshold=0.3, matching="iobb")
    assert judged.froc.sensitivity.tolist() == expected.sensitivity.tolist()
    assert judged.metrics.by_class == ()
    assert judged.metrics.by_size == ()


def test_what_is_not_defined_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = judge_detection([[], []], [[], []], groups=[1, 1], num_samples=5).metrics
    assert math.isnan(metrics.mean_sensitivity.value)
    assert math.isnan(metrics.average_precision)
    assert metrics.thresholds == (None,) * 4
    assert len(metrics.notes) == 3
    for part in ("2 images has a lesion", "0 false positives an image", "one patient"):
        assert part in caplog.text


def test_labels_have_to_be_classes() -> None:
    box = [[0, 0, 5, 5, 0.5]]
    with pytest.raises(DataError, match="2 classes, but no labels"):
        judge_detection([box], [[]], class_names=("a", "b"))
    for label in (-1, 2):
        with pytest.raises(DataError, match=f"labels from {label} .* 2 classes are numbered"):
            judge_detection(
                [box],
                [[]],
                class_names=("a", "b"),
                prediction_labels=[[label]],
                truth_labels=[[]],
            )
