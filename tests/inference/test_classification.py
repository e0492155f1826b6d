import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.preprocess import preprocess
from voxlift.inference.classification import (
    call_class,
    predict_cases,
    predictions_csv,
    write_report,
)
from voxlift.inference.saved_model import SavedModel
from voxlift.metrics.classification import classification_metrics

NO_CASES = np.array([], np.int64)


def make_cases(
    num_classes: int = 2, *, count: int = 12, masks: bool = False
) -> ClassificationCases:
    generator = np.random.default_rng(3)
    volumes = generator.uniform(-1000, 500, (count, 9, 8, 7)).astype(np.float32)
    return ClassificationCases.from_arrays(
        volumes,
        np.arange(count) % num_classes,
        class_names=["none", "some", "much"][:num_classes],
        groups=[f"person-{number // 2}" for number in range(count)],
        masks=volumes > 0 if masks else None,
    )


def probabilities_of(count: int, num_classes: int = 2) -> npt.NDArray[np.float32]:
    raw = np.random.default_rng(4).uniform(0.1, 1, (count, num_classes))
    normalised: npt.NDArray[np.float32] = (raw / raw.sum(1, keepdims=True)).astype(np.float32)
    return normalised


def report(folder: Path, cases: ClassificationCases, **changes: Any) -> Any:
    indices = np.arange(len(cases))
    probabilities = probabilities_of(len(cases), len(cases.class_names))
    options: dict[str, Any] = {"split": "test", "threshold": None, "train_indices": NO_CASES}
    return write_report(folder, cases, indices, probabilities, **{**options, **changes})


def test_cases_are_predicted_in_the_order_asked_for(
    make_model: Callable[..., SavedModel],
) -> None:
    model, cases = make_model(), make_cases()
    indices = np.array([7, 2, 5, 0, 11])
    found = predict_cases(model, cases, indices, batch_size=2)
    assert found.dtype == np.float32
    for row, index in zip(found, indices, strict=True):
        volume = preprocess(cases.read_volume(int(index)), model.preprocessing)
        expected = model.probabilities(torch.from_numpy(volume)[None])[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("probabilities", "threshold", "called"),
    [
        ([0.6, 0.4], None, 0),
        ([0.6, 0.4], 0.3, 1),
        ([0.6, 0.4], 0.4, 1),
        ([0.2, 0.8], 0.9, 0),
        ([0.2, 0.5, 0.3], None, 1),
        ([0.2, 0.5, 0.3], 0.9, 1),
    ],
)
def test_threshold_decides_between_two_classes_only(
    probabilities: list[float], threshold: float | None, called: int
) -> None:
    assert call_class(np.array(probabilities, np.float32), threshold) == called


def test_predictions_as_csv() -> None:
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    text = predictions_csv(["a,b", "c"], probabilities, ["no", "yes"], threshold=0.6)
    assert (
        text == 'case,prediction,p_no,p_yes\n"a,b",yes,0.250000,0.750000\nc,no,0.500000,0.500000\n'
    )
    text = predictions_csv(
        ["a", "c"], probabilities, ["no", "yes"], threshold=None, labels=["no", "yes"]
    )
    assert text.splitlines()[1:] == ["a,no,yes,0.250000,0.750000", "c,yes,no,0.500000,0.500000"]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_report_holds_metrics_predictions_and_figures(tmp_path: Path, num_classes: int) -> None:
    cases = make_cases(num_classes)
    threshold = 0.4 if num_classes == 2 else None
    found = report(tmp_path, cases, threshold=threshold, seed=9)
    expected = classification_metrics(
        probabilities_of(len(cases), num_classes),
        cases.labels,
        class_names=cases.class_names,
        groups=list(cases.groups),
        threshold=threshold,
        seed=9,
    )
    assert found.metrics == expected
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["split"] == "test"
    assert written["metrics"]["auroc"]["value"] == expected.auroc.value
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == [case.id for case in cases.cases]
    assert [row["label"] for row in rows] == [cases.class_names[label] for label in cases.labels]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "roc.png",
        "confusion.png",
        "reliability.png",
    }


def test_report_names_no_patient(tmp_path: Path) -> None:
    report(tmp_path, make_cases(), train_indices=np.arange(4))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"person" not in path.read_bytes()


def test_baselines_need_training_cases(tmp_path: Path) -> None:
    cases = make_cases(masks=True)
    assert report(tmp_path / "without", cases).baselines == {}
    found = report(tmp_path / "with", cases, train_indices=np.arange(6)).baselines
    assert set(found) == {"mean_intensity", "mask_volume"}
    means = np.array([cases.read_volume(index).array.mean() for index in range(len(cases))])
    brighter = np.mean([a > b for a in means[cases.labels == 1] for b in means[cases.labels == 0]])
    if not found["mean_intensity"].rises_with_class[0]:
        brighter = 1 - brighter
    assert found["mean_intensity"].auroc.value == pytest.approx(brighter)
    assert set(
        report(tmp_path / "no-masks", make_cases(), train_indices=np.arange(6)).baselines
    ) == {"mean_intensity"}


def test_report_of_one_class_only_draws_no_roc(tmp_path: Path) -> None:
    cases = make_cases()
    ones = np.flatnonzero(cases.labels == 1)
    found = write_report(
        tmp_path,
        cases,
        ones,
        probabilities_of(len(ones)),
        split="all",
        threshold=0.5,
        train_indices=NO_CASES,
    )
    assert np.isnan(found.metrics.auroc.value)
    assert np.isfinite(found.metrics.accuracy.value)
    assert not (tmp_path / "figures" / "roc.png").exists()
    # Not-a-number is no JSON.
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
