"""The report on a detector, held against counting by hand."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from voxlift.core.detection_settings import DetectionSettings
from voxlift.core.errors import ConfigError, DataError
from voxlift.data.detection_batches import detection_preprocessing
from voxlift.data.detection_cases import Boxes, DetectionCase, DetectionCases, Slices, Unit
from voxlift.inference.detection_report import DetectionReport, judge_detector
from voxlift.inference.froc_file import load_froc
from voxlift.inference.saved_model import SavedModel
from voxlift.metrics.froc import froc
from voxlift.nets.detection_head import Detection
from voxlift.nets.detector import Detector
from voxlift.weights.header import HeadDescription

SIZE = (40, 80)
Rows = Sequence[Sequence[float]]
# Of each image x1, y1, x2, y2 of the true boxes in pixels, their labels, and which are crowds.
TRUTHS: list[tuple[Rows, list[int], list[bool]]] = [
    ([[10, 10, 20, 20], [40, 10, 60, 30]], [0, 1], [False, False]),
    ([], [], []),
    ([[5, 5, 15, 25], [30, 0, 70, 40]], [0, 0], [False, True]),
    ([[50, 20, 58, 26]], [1], [False]),
]
# x1, y1, x2, y2, score and label.
FOUND: list[Rows] = [
    [
        [10, 10, 20, 19, 0.9, 0],
        [10, 11, 20, 20, 0.8, 0],
        [41, 10, 61, 30, 0.3, 1],
        [40, 10, 60, 30, 0.2, 0],
    ],
    [[0, 0, 9, 9, 0.6, 1], [20, 20, 30, 30, 0.004, 0]],
    [[5, 5, 15, 14, 0.7, 0], [35, 5, 45, 15, 0.5, 0]],
    [],
]


@dataclass(frozen=True)
class Grey:
    """An image of one value, its number, but for one bright pixel of CT."""

    number: int
    unit: Unit

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        return Slices(np.full((num_slices, *SIZE), self.number, np.float32), self.unit)


class Oracle(Detector):
    """Find in the image of number n what was told, though it is fed in another size."""

    def __init__(self, answers: Sequence[Rows], unit: Unit) -> None:
        nn.Module.__init__(self)
        self.answers = answers
        self.preprocessing = detection_preprocessing(unit)
        self.head = nn.Module()  # type: ignore[assignment]
        self.head.score_threshold = 0.5
        self.head.max_boxes = 100
        self.unused = nn.Parameter(torch.zeros(1))

    def detect(self, volumes: Sequence[Tensor] | Tensor) -> list[Detection]:
        return [self._answer(volume) for volume in volumes]

    def _answer(self, volume: Tensor) -> Detection:
        value = float(volume.mean()) * self.preprocessing.std + self.preprocessing.mean
        low, high = self.preprocessing.window or (0.0, 1.0)
        rows = torch.tensor(self.answers[round(low + value * (high - low))]).reshape(-1, 6)
        rows = rows[rows[:, 4] >= self.score_threshold]
        stride = volume.shape[-1] / SIZE[1]
        return {
            "boxes": rows[:, :4] * stride,
            "scores": rows[:, 4],
            "labels": rows[:, 5].long(),
        }


def make_cases(
    *, unit: Unit = "0-255", class_names: tuple[str, ...] = ("cat", "dog"), **facts: Any
) -> DetectionCases:
    cases = [
        DetectionCase(
            id=f"image-{number}",
            group=f"person-{number // 2}",
            split="test",
            size=SIZE,
            truth=Boxes.of(boxes, labels=labels, crowd=crowd),
            source=Grey(number, unit),
            facts={name: values[number] for name, values in facts.items()},
        )
        for number, (boxes, labels, crowd) in enumerate(TRUTHS)
    ]
    found = DetectionCases(tuple(cases), ("cat", "dog"), "the set")
    if len(class_names) == 1:
        one = tuple(replace(case, truth=case.truth.of_one_class()) for case in found.cases)
        found = replace(found, cases=one, class_names=class_names)
    return found


def make_model(
    answers: Sequence[Rows] = FOUND,
    *,
    unit: Unit = "0-255",
    class_names: tuple[str, ...] = ("cat", "dog"),
) -> SavedModel:
    settings = DetectionSettings(
        class_names=class_names,
        num_slices=3,
        slice_interval_mm=None if unit == "0-255" else 2.5,
        image_size=50,
        max_image_size=100,
    )
    head = HeadDescription(
        task="detect",
        num_classes=len(class_names),
        class_names=class_names,
        settings=settings.model_dump(mode="json"),
    )
    return SavedModel((Oracle(answers, unit),), head, detection_preprocessing(unit))


def judge(
    folder: Path,
    cases: DetectionCases | None = None,
    model: SavedModel | None = None,
    **options: Any,
) -> DetectionReport:
    return judge_detector(
        model or make_model(),
        cases or make_cases(),
        np.arange(4),
        folder,
        **{"split": "test", "batch_size": 3, **options},
    )


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the time of drawing."""
    for name in ("plot_froc", "plot_detections"):
        monkeypatch.setattr(f"voxlift.inference.detection_report.{name}", lambda *_, **__: None)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def area_of(box: Sequence[float]) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def common_area(a: Sequence[float], b: Sequence[float]) -> float:
    return area_of([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])


def counted(threshold: float) -> tuple[set[tuple[int, int]], int]:
    """Count the lesions found and the false positives from a score on, box by box."""
    found, num_false = set(), 0
    for number, ((boxes, labels, crowd), detected) in enumerate(zip(TRUTHS, FOUND, strict=True)):
        for *corners, score, label in detected:
            if score < threshold:
                continue
            good = False
            for row, (box, true_label, is_crowd) in enumerate(
                zip(boxes, labels, crowd, strict=True)
            ):
                common = common_area(corners, box)
                union = area_of(corners) + area_of(box) - common
                if true_label != label or common < 0.5 * (area_of(corners) if is_crowd else union):
                    continue
                good = True
                if not is_crowd:
                    found.add((number, row))
            num_false += not good
    return found, num_false


@pytest.mark.usefixtures("_undrawn")
def test_the_numbers_are_those_of_counting(tmp_path: Path) -> None:
    done: list[str] = []
    model = make_model()
    report = judge(tmp_path, model=model, on_case=done.append)
    assert done == [f"image-{number}" for number in range(4)]
    metrics = report.metrics
    assert (report.split, report.score_threshold, report.max_boxes) == ("test", 0.001, 100)
    assert model.networks[0].score_threshold == 0.5
    assert (metrics.num_images, metrics.num_lesions, metrics.num_ignored) == (4, 4, 1)
    assert (metrics.num_boxes, metrics.num_groups) == (8, 2)
    # One false positive an image is more than all of them.
    found, num_false = counted(0)
    assert num_false == 4
    assert metrics.sensitivity[1].value == pytest.approx(len(found) / 4)
    # Half a false positive an image: two of four images.
    found, num_false = counted(0.3)
    assert num_false == 2
    assert metrics.sensitivity[0].value == pytest.approx(len(found) / 4)
    assert metrics.thresholds[0] == pytest.approx(0.3)
    expected = froc(
        [np.array(rows).reshape(-1, 6)[:, :5] for rows in FOUND],
        [boxes for boxes, _, _ in TRUTHS],
        prediction_labels=[np.array(rows).reshape(-1, 6)[:, 5].astype(int) for rows in FOUND],
        truth_labels=[np.array(labels, int) for _, labels, _ in TRUTHS],
        truth_ignored=[crowd for _, _, crowd in TRUTHS],
    )
    assert metrics.mean_sensitivity.value == pytest.approx(expected.mean_sensitivity)
    for label, one in enumerate(metrics.by_class):
        assert one.sensitivity == pytest.approx(expected.by_label[label].sensitivity)
    written = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert DetectionReport.model_validate(written).model_dump_json() == report.model_dump_json()


@pytest.mark.usefixtures("_undrawn")
def test_the_main_numbers_have_names(tmp_path: Path) -> None:
    metrics = judge(tmp_path).metrics
    named = metrics.intervals()
    assert list(named) == [
        *(f"sensitivity_at_{rate}" for rate in ("0.5", "1", "2", "4")),
        "sensitivity",
        "ap50",
        "ap",
    ]
    assert named["sensitivity_at_2"] == metrics.sensitivity[2]
    assert named["sensitivity"] == metrics.mean_sensitivity
    assert named["ap50"].value == metrics.average_precision_50
    assert named["ap"].value == metrics.average_precision
    assert math.isnan(named["ap"].low)


@pytest.mark.usefixtures("_undrawn")
def test_every_box_is_listed(tmp_path: Path) -> None:
    judge(tmp_path)
    rows = rows_of(tmp_path / "predictions.csv")
    assert [(row["case"], row["class"], row["outcome"]) for row in rows] == [
        ("image-0", "cat", "hit"),
        ("image-0", "cat", "hit"),
        ("image-0", "dog", "hit"),
        ("image-0", "cat", "false"),
        ("image-1", "dog", "false"),
        ("image-1", "cat", "false"),
        ("image-2", "cat", "false"),
        ("image-2", "cat", "ignored"),
    ]
    flat = [row for rows_of_image in FOUND for row in rows_of_image]
    for row, expected in zip(rows, flat, strict=True):
        edges = [float(row[edge]) for edge in ("x1", "y1", "x2", "y2")]
        assert edges == pytest.approx(expected[:4], abs=0.005)
        assert float(row["score"]) == pytest.approx(expected[4], abs=1e-6)
    overlaps = [float(row["overlap"]) for row in rows]
    assert overlaps == pytest.approx([0.9, 0.9, 19 / 21, 0, 0, 0, 0.45, 0], abs=5e-4)

    lesions = rows_of(tmp_path / "lesions.csv")
    assert [(row["case"], row["class"], row["score"]) for row in lesions] == [
        ("image-0", "cat", "0.900000"),
        ("image-0", "dog", "0.300000"),
        ("image-2", "cat", ""),
        ("image-3", "dog", ""),
    ]
    assert [row["size_mm"] + row["type"] for row in lesions] == [""] * 4
    assert float(lesions[2]["y2"]) == 25


@pytest.mark.usefixtures("_undrawn")
def test_sizes_and_types_of_lesions(tmp_path: Path) -> None:
    cases = make_cases(
        unit="HU",
        class_names=("lesion",),
        spacing_mm=[0.5, 0.5, 2.0, None],
        lesion_type=[("lung", None), (), ("liver", None), (None,)],
        diameters_mm=[((9.0, 5.0), (30.0, 8.0)), (), ((40.0, 20.0), (9.0, 9.0)), ((5.0, 1.0),)],
    )
    answers = [[[*row[:5], 0.0] for row in rows] for rows in FOUND]
    model = make_model(answers, unit="HU", class_names=("lesion",))
    report = judge(tmp_path / "diameters", cases, model)
    assert report.size_measure == "long diameter"
    found = {one.name: (one.num_found, one.num_lesions) for one in report.metrics.by_size}
    assert found == {"below 10 mm": (1, 2), "10 to 30 mm": (0, 0), "30 mm and more": (1, 2)}
    types = {one.name: (one.num_found, one.num_lesions) for one in report.metrics.by_type}
    assert types == {"liver": (0, 1), "lung": (1, 1), "unknown type": (1, 2)}
    lesions = rows_of(tmp_path / "diameters" / "lesions.csv")
    assert [row["size_mm"] for row in lesions] == ["9.0", "30.0", "40.0", "5.0"]
    assert [row["type"] for row in lesions] == ["lung", "", "liver", ""]

    # Where one diameter is missing, all sizes are those of the boxes.
    first, *others = cases.cases
    lacking = replace(first, facts={**first.facts, "diameters_mm": ((9.0, 5.0), None)})
    report = judge(tmp_path / "boxes", replace(cases, cases=(lacking, *others)), model)
    assert report.size_measure == "longest edge of the box"
    lesions = rows_of(tmp_path / "boxes" / "lesions.csv")
    assert [row["size_mm"] for row in lesions] == ["5.0", "10.0", "40.0", ""]
    names = [one.name for one in report.metrics.by_size]
    assert names == ["below 10 mm", "10 to 30 mm", "30 mm and more", "unknown size"]


@pytest.mark.usefixtures("_undrawn")
def test_overlap_over_the_detected_box(tmp_path: Path) -> None:
    report = judge(tmp_path, matching="iobb")
    assert report.metrics.matching == "iobb"
    # The box in the upper half of a lesion is a hit now.
    assert [row["outcome"] for row in rows_of(tmp_path / "predictions.csv")][6] == "hit"
    assert rows_of(tmp_path / "lesions.csv")[2]["score"] == "0.700000"


def test_figures_are_drawn_and_nobody_is_named(tmp_path: Path) -> None:
    judge(tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert files == [
        "figures/detections.png",
        "figures/froc.png",
        "findings.npz",
        "froc.json",
        "lesions.csv",
        "metrics.json",
        "predictions.csv",
    ]
    for name in ("detections.png", "froc.png"):
        with Image.open(tmp_path / "figures" / name) as image:
            assert min(image.size) > 300
    for path in tmp_path.rglob("*.*"):
        assert b"person" not in path.read_bytes()
    with np.load(tmp_path / "findings.npz", allow_pickle=False) as file:
        for name in file.files:
            assert "person" not in str(file[name])


def test_of_many_classes_the_most_frequent_have_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    report = "voxlift.inference.detection_report"
    monkeypatch.setattr(f"{report}.plot_froc", lambda curves, _: drawn.update(curves))
    monkeypatch.setattr(f"{report}.plot_detections", lambda *_, **__: None)
    names = tuple("abcdefghij")
    # Of class 0 one box, of class 1 two, and so on; of the last none.
    labels = np.repeat(np.arange(9), np.arange(1, 10))
    truth = Boxes.of([[0, 0, 9, 9]] * len(labels), labels=labels)
    first, *others = make_cases().cases
    cases = DetectionCases((replace(first, truth=truth), *others), names, "the set")
    judge(tmp_path, cases, make_model(class_names=names))
    assert list(drawn) == ["all classes", *"defghi"]
    # Many bands over each other tell nothing, but are written.
    assert np.isfinite(drawn["all classes"].low).all()
    assert np.isnan(drawn["f"].low).all()
    written = load_froc(tmp_path)
    assert list(written.by_class) == list("defghi")
    assert np.isfinite(written.by_class["f"].low).all()


@pytest.mark.parametrize("class_names", [("lesion",), ("cat", "dog")])
def test_nothing_is_found(tmp_path: Path, class_names: tuple[str, ...]) -> None:
    model = make_model([[]] * 4, class_names=class_names)
    report = judge(tmp_path, make_cases(class_names=class_names), model)
    assert report.metrics.mean_sensitivity.value == 0
    assert report.metrics.num_boxes == 0
    assert rows_of(tmp_path / "predictions.csv") == []
    assert [row["score"] for row in rows_of(tmp_path / "lesions.csv")] == [""] * 4
    assert (tmp_path / "figures" / "detections.png").exists()


def test_there_is_nothing_to_find(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = judge_detector(
        make_model(), make_cases(), np.array([1]), tmp_path, split="test", batch_size=1
    )
    assert math.isnan(report.metrics.mean_sensitivity.value)
    assert len(rows_of(tmp_path / "predictions.csv")) == 2
    assert rows_of(tmp_path / "lesions.csv") == []
    assert (tmp_path / "figures" / "froc.png").exists()
    assert (tmp_path / "figures" / "detections.png").exists()
    json.loads((tmp_path / "froc.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)

    empty = tmp_path / "empty"
    judge_detector(
        make_model([[]] * 4), make_cases(), np.array([1]), empty, split="test", batch_size=1
    )
    assert "neither a lesion nor a detected box" in caplog.text
    assert not (empty / "figures" / "detections.png").exists()


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    other = replace(make_cases(), class_names=("cat", "cow"))
    with pytest.raises(DataError, match="the set has the classes cat, cow, but the model finds"):
        judge(tmp_path, other)
    with pytest.raises(ConfigError, match="values in HU"):
        judge(tmp_path, make_cases(unit="HU"))
    with pytest.raises(ConfigError, match="matching is 'dice'"):
        judge(tmp_path, matching="dice")
    assert list(tmp_path.iterdir()) == []
