import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.data.volume import Volume
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation import SegmentOptions
from voxlift.inference.segmentation_report import cases_csv, check_labels, judge_segmenter
from voxlift.metrics.structures import StructureMetrics

MakeSegmenter = Callable[..., SavedModel]
LABELS = LabelScheme(names=("background", "liver", "tumour"), values=(0, 5, 9), ignore_value=99)
SIZE = (6, 7, 8)
# Sagittal.
DIRECTION = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def make_cases(labels: LabelScheme = LABELS) -> SegmentationCases:
    """Three cases whose intensities are class numbers, but for one voxel of each; one is turned."""
    generator = np.random.default_rng(0)
    cases = []
    for number in range(3):
        classes = np.zeros(SIZE, np.uint8)
        classes[1:5, 1:5, 1:4], classes[2:4, 2:5, 4:7] = 1, 2
        image = classes.astype(np.float32) + generator.uniform(-0.2, 0.2, SIZE).astype(np.float32)
        image[1, 1, 1] = 0
        mask = np.array(labels.values)[classes].astype(np.uint8)
        volume = Volume(image, (2.0, 1.0, 0.5), direction=DIRECTION if number else np.eye(3))
        cases.append(
            SegmentationCase(
                f"case-{number}", (volume,), replace(volume, array=mask), f"person-{number}"
            )
        )
    return SegmentationCases(tuple(cases), labels, ("CT",), origin="the set")


def with_mask(cases: SegmentationCases, number: int, mask: npt.NDArray[Any]) -> SegmentationCases:
    changed = list(cases.cases)
    label = cases.cases[number].label
    assert isinstance(label, Volume)
    changed[number] = replace(changed[number], label=replace(label, array=mask))
    return replace(cases, cases=tuple(changed))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_whole_report_is_written(make_segmenter: MakeSegmenter, tmp_path: Path) -> None:
    cases = make_cases()
    done: list[str] = []
    report = judge_segmenter(
        make_segmenter(LABELS),
        cases,
        np.array([2, 0]),
        tmp_path,
        split="test",
        on_case=done.append,
    )
    assert done == ["case-2", "case-0"]
    assert report.split == "test"
    # One of 48 voxels of the liver is missed, and none of the tumour.
    liver = 2 * 47 / (47 + 48)
    assert report.metrics.structures["liver"].metrics["dice"].value == pytest.approx(liver)
    assert report.metrics.mean_dice.value == pytest.approx((liver + 1) / 2)
    rows = rows_of(tmp_path)
    assert [(row["case"], row["structure"]) for row in rows] == [
        (case, name) for case in ("case-2", "case-0") for name in ("liver", "tumour")
    ]
    assert float(rows[0]["volume_truth_ml"]) == pytest.approx(48 * 1e-3)
    assert float(rows[0]["volume_prediction_ml"]) == pytest.approx(47 * 1e-3)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["split"] == "test"
    assert written["metrics"]["means"]["dice"]["value"] == report.metrics.mean_dice.value
    for name in ("dice.png", "worst_cases.png"):
        with Image.open(tmp_path / "figures" / name) as image:
            assert min(image.size) > 100
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"person" not in path.read_bytes()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been drawn of the worst cases."""
    seen: list[Any] = []

    def note(cases: Any, *_: object, **__: object) -> None:
        seen.extend(cases)

    monkeypatch.setattr("voxlift.inference.segmentation_report.plot_worst_cases", note)
    monkeypatch.setattr("voxlift.inference.segmentation_report.plot_dice", lambda *_, **__: None)
    return seen


def test_the_worst_cases_are_drawn_as_a_radiologist_sees_them(
    make_segmenter: MakeSegmenter, tmp_path: Path, drawn: list[Any]
) -> None:
    cases = make_cases()
    label = cases.cases[1].label
    assert isinstance(label, Volume)
    mask = label.array.copy()
    mask[0] = 5
    judge_segmenter(
        make_segmenter(LABELS), with_mask(cases, 1, mask), np.arange(3), tmp_path, split="val"
    )
    assert drawn[0].id == "case-1"
    assert len(drawn) == 3
    worst = drawn[0]
    # Turned to the canonical order: depth, height and width were height, width and depth.
    assert worst.spacing_mm == (1.0, 0.5, 2.0)
    assert worst.truth.shape == worst.prediction.shape == worst.image.shape == (7, 8, 6)
    assert set(np.unique(worst.truth)) == {0, 5, 9}
    assert (worst.truth == 5).sum() == (mask == 5).sum()


def test_ignored_voxels_are_not_judged(
    make_segmenter: MakeSegmenter, tmp_path: Path, drawn: list[Any]
) -> None:
    cases = make_cases()
    label = cases.cases[0].label
    assert isinstance(label, Volume)
    mask = label.array.copy()
    mask[1, 1, 1] = 99
    report = judge_segmenter(
        make_segmenter(LABELS), with_mask(cases, 0, mask), np.array([0]), tmp_path, split="val"
    )
    assert report.metrics.mean_dice.value == 1
    assert len(drawn) == 1


@pytest.mark.usefixtures("drawn")
def test_regions_are_judged_in_full_though_painted_over(
    make_segmenter: MakeSegmenter, tmp_path: Path
) -> None:
    labels = LABELS.with_regions({"whole": (5, 9), "core": (9,)})
    report = judge_segmenter(
        make_segmenter(labels), make_cases(labels), np.arange(3), tmp_path, split="val"
    )
    whole = 48 + 18
    expected = 2 * (whole - 1) / (2 * whole - 1)
    assert report.metrics.structures["whole"].metrics["dice"].value == pytest.approx(expected)
    assert report.metrics.structures["core"].metrics["dice"].value == 1


@pytest.mark.usefixtures("drawn")
def test_options_reach_the_segmenter(make_segmenter: MakeSegmenter, tmp_path: Path) -> None:
    cases = make_cases()
    image = cases.cases[0].images[0]
    assert isinstance(image, Volume)
    image.array[5, 6, 7] = 1
    model = make_segmenter(LABELS)
    found = [
        judge_segmenter(
            model,
            cases,
            np.array([0]),
            tmp_path / str(largest),
            split="val",
            options=SegmentOptions(largest_component=largest),
        )
        .metrics.structures["liver"]
        .metrics["volume_error_ml"]
        .value
        for largest in (False, True)
    ]
    assert found == pytest.approx([0, -1e-3], abs=1e-9)


@pytest.mark.usefixtures("drawn")
def test_the_grid_is_that_of_the_file(make_segmenter: MakeSegmenter, tmp_path: Path) -> None:
    """However the network sees it."""
    model = make_segmenter(LABELS, preprocessing=Preprocessing(spacing_mm=(0.5, 0.5, 0.5)))
    report = judge_segmenter(model, make_cases(), np.arange(3), tmp_path, split="val")
    rows = rows_of(tmp_path)
    assert {float(row["volume_truth_ml"]) for row in rows} == {0.048, 0.018}
    assert report.metrics.mean_dice.value > 0.8


def test_other_classes_are_refused(make_segmenter: MakeSegmenter, tmp_path: Path) -> None:
    model = make_segmenter(LABELS)
    other = LabelScheme(names=("background", "liver", "cyst", "more"), values=(0, 5, 9, 10))
    with pytest.raises(DataError, match=r"the set has the classes.*more \(10\).*tells apart"):
        judge_segmenter(
            model, replace(make_cases(), labels=other), np.arange(3), tmp_path, split="x"
        )
    assert list(tmp_path.iterdir()) == []
    # The same numbers by other names, or other ignored ones, are the same.
    renamed = LabelScheme(names=("background", "a", "b"), values=(0, 5, 9))
    check_labels(LABELS, replace(make_cases(), labels=renamed))
    regions = LABELS.with_regions({"whole": (5, 9)})
    with pytest.raises(DataError, match="regions"):
        check_labels(LABELS, replace(make_cases(), labels=regions))


def test_what_is_undefined_is_empty_in_the_table() -> None:
    metrics = StructureMetrics(dice=math.nan, volume_truth_ml=0.0, volume_prediction_ml=0.0)
    (row,) = csv.DictReader(cases_csv(["one, two"], [{"liver": metrics}]).splitlines())
    assert row["case"] == "one, two"
    assert row["dice"] == row["hd95_mm"] == ""
    assert float(row["volume_truth_ml"]) == 0
