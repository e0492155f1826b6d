"""Curves that were written are read as they were, and those of several runs compared."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.detection_cases import Boxes, DetectionCase, Slices, Unit
from voxlift.inference.froc_comparison import RunComparison, compare_runs
from voxlift.inference.froc_file import (
    FINDINGS_FILE,
    FROC_FILE,
    digest_cases,
    load_findings,
    load_froc,
    load_froc_curve,
    write_froc,
)
from voxlift.metrics.detection import DetectionJudgement, judge_detection
from voxlift.metrics.froc_bootstrap import bootstrap_froc, froc_difference

NUM_IMAGES = 12


class Nowhere:
    """Pixels that are not asked for."""

    @property
    def unit(self) -> Unit:
        return "HU"

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        raise NotImplementedError


def make_cases() -> list[DetectionCase]:
    generator = np.random.default_rng(0)
    cases = []
    for number in range(NUM_IMAGES):
        low = generator.integers(0, 80, (2, 2))
        boxes = np.concatenate([low, low + 20], axis=1)
        cases.append(
            DetectionCase(
                id=f"image-{number}",
                group=f"person-{(7 * number) % 5}",
                split="test",
                size=(100, 100),
                truth=Boxes.of(boxes, labels=[0, 1], crowd=[False, number == 3]),
                source=Nowhere(),
            )
        )
    return cases


def judge(cases: list[DetectionCase], *, seed: int, **options: Any) -> DetectionJudgement:
    generator = np.random.default_rng(seed)
    predictions, labels = [], []
    for case in cases:
        hits = case.truth.boxes + generator.normal(0, 3, (2, 4))
        low = generator.random((4, 2)) * 80
        false = np.concatenate([low, low + 15], axis=1)
        boxes = np.concatenate([hits, false])
        predictions.append(np.column_stack([boxes, generator.random(6)]))
        labels.append(np.concatenate([case.truth.labels, generator.integers(0, 2, 4)]))
    return judge_detection(
        predictions,
        [case.truth.boxes for case in cases],
        class_names=("cat", "dog"),
        prediction_labels=labels,
        truth_labels=[case.truth.labels for case in cases],
        truth_ignored=[case.truth.crowd for case in cases],
        groups=[case.group for case in cases],
        num_samples=50,
        **options,
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Judge by chance and write the curve."""

    def make(
        name: str, *, seed: int = 0, cases: list[DetectionCase] | None = None, **options: Any
    ) -> Path:
        cases = cases or make_cases()
        judged = judge(cases, seed=seed, **options)
        cat = bootstrap_froc(judged.froc.by_label[0], num_samples=10)
        (tmp_path / name).mkdir(parents=True)
        write_froc(tmp_path / name, judged, cases, by_class={"cat": cat})
        return tmp_path / name

    return make


def test_reads_what_was_written(write: Callable[..., Path]) -> None:
    folder = write("run")
    cases = make_cases()
    judged = judge(cases, seed=0)
    record = load_froc(folder)
    assert (record.num_images, record.num_lesions) == (NUM_IMAGES, 2 * NUM_IMAGES - 1)
    assert (record.iou_threshold, record.matching) == (0.5, "iou")
    assert record.cases_sha256 == digest_cases(cases)
    assert list(record.by_class) == ["cat"]
    curve = load_froc_curve(folder)
    for field in fields(curve):
        read, written = getattr(curve, field.name), getattr(judged.curve, field.name)
        np.testing.assert_array_equal(read, written)
    found = load_findings(folder)
    for field in fields(found.findings):
        read = getattr(found.findings, field.name)
        np.testing.assert_array_equal(read, getattr(judged.froc.findings, field.name))
        assert read.dtype == getattr(judged.froc.findings, field.name).dtype
    # By their first image, not by their names.
    assert found.groups.tolist() == [0, 1, 2, 3, 4] * 2 + [0, 1]


def test_curves_without_numbers(tmp_path: Path) -> None:
    cases = [replace(case, truth=Boxes.of([])) for case in make_cases()]
    judged = judge_detection([[]] * NUM_IMAGES, [[]] * NUM_IMAGES, num_samples=3)
    write_froc(tmp_path, judged, cases, by_class={})
    assert np.isnan(load_froc_curve(tmp_path).grid_sensitivity).all()
    json.loads((tmp_path / FROC_FILE).read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_the_digest_is_of_ids_and_true_boxes() -> None:
    cases = make_cases()
    first, *others = cases
    digests = {
        digest_cases(changed)
        for changed in (
            cases,
            others,
            [*others, first],
            [replace(first, id="another"), *others],
            [replace(first, truth=first.truth.of_one_class()), *others],
            [replace(first, truth=replace(first.truth, crowd=~first.truth.crowd)), *others],
            [replace(first, truth=first.truth.chosen(np.array([0]))), *others],
            [replace(first, truth=replace(first.truth, boxes=first.truth.boxes + 1)), *others],
        )
    }
    assert len(digests) == 8
    assert digest_cases([replace(first, group="x", split="val"), *others]) in digests


def test_damaged_files_are_named(write: Callable[..., Path], tmp_path: Path) -> None:
    for load, name in ((load_froc, FROC_FILE), (load_findings, FINDINGS_FILE)):
        with pytest.raises(DataError, match=f"holds no {name}"):
            load(tmp_path)
        folder = write(name)
        content = (folder / name).read_bytes()
        for broken in (content[:100], b"", b'{"num_images": 3}'):
            (folder / name).write_bytes(broken)
            with pytest.raises(DataError, match=f"{name} is damaged .* Evaluate again"):
                load(folder)
    np.savez(write("less") / FINDINGS_FILE, cases_sha256="0")
    with pytest.raises(DataError, match="damaged"):
        load_findings(tmp_path / "less")


def test_runs_are_compared_with_the_first(write: Callable[..., Path], tmp_path: Path) -> None:
    folders = [write(f"run-{seed}", seed=seed) for seed in (1, 2, 3)]
    comparison = compare_runs(folders, tmp_path / "out", seed=4)
    cases = make_cases()
    first, second, third = (judge(cases, seed=seed) for seed in (1, 2, 3))
    assert comparison.reference == "run-1"
    assert list(comparison.mean_sensitivity) == ["run-1", "run-2", "run-3"]
    assert comparison.mean_sensitivity["run-2"] == second.metrics.mean_sensitivity
    groups = [number % 5 for number in range(NUM_IMAGES)]
    expected = froc_difference(third.froc, first.froc, groups=groups, seed=4)
    found = comparison.differences[1]
    assert found.name == "run-3"
    assert found.mean_sensitivity == expected.mean_sensitivity
    assert found.sensitivity == expected.sensitivity
    gain = third.froc.mean_sensitivity - first.froc.mean_sensitivity
    assert found.mean_sensitivity.value == pytest.approx(gain)
    named = comparison.intervals()
    assert list(named)[2:4] == ["sensitivity/run-3", "run-2 - run-1"]
    text = (tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")
    assert RunComparison.model_validate_json(text) == comparison
    assert "person" not in text
    with Image.open(tmp_path / "out" / "froc-comparison.png") as image:
        assert min(image.size) > 300
    with pytest.raises(ConfigError, match="holds a comparison already"):
        compare_runs(folders, tmp_path / "out")


def test_runs_of_one_name_are_told_apart(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxlift.inference.froc_comparison.plot_froc", lambda *_, **__: None)
    folders = [write("a/test", seed=1), write("b/test", seed=1), write("c", seed=1)]
    comparison = compare_runs(folders, tmp_path / "out")
    assert list(comparison.mean_sensitivity) == [str(folders[0]), str(folders[1]), "c"]
    for difference in comparison.differences:
        values = difference.mean_sensitivity
        assert (values.value, values.low, values.high) == (0, 0, 0)


def test_what_cannot_be_compared(write: Callable[..., Path], tmp_path: Path) -> None:
    first = write("first")
    with pytest.raises(ConfigError, match="1 report is given"):
        compare_runs([first], tmp_path / "out")
    with pytest.raises(ConfigError, match="given twice"):
        compare_runs([first, tmp_path / "first"], tmp_path / "out")
    fewer = write("fewer", cases=make_cases()[1:])
    with pytest.raises(DataError, match=r"fewer was measured on 11 images .* same data and split"):
        compare_runs([first, fewer], tmp_path / "out")
    for name, options, message in (
        ("looser", {"iou_threshold": 0.3}, "the overlap that makes a hit is 0.3 instead of 0.5"),
        ("other", {"matching": "iobb"}, "measure of this overlap is iobb instead of iou"),
        ("rates", {"false_positives_per_image": (1, 2)}, r"false positives an image is \(1.0, 2.0"),
    ):
        with pytest.raises(DataError, match=message):
            compare_runs([first, write(name, **options)], tmp_path / "out")
    mixed = write("mixed")
    (mixed / FINDINGS_FILE).write_bytes((fewer / FINDINGS_FILE).read_bytes())
    with pytest.raises(DataError, match="of other images than the curve beside it"):
        compare_runs([first, mixed], tmp_path / "out")
    assert not (tmp_path / "out").exists()
