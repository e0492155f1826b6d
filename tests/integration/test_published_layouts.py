"""Data sets in the form in which they were published, from files to figures, by commands."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from voxlift.data.volumes import Volume, read_volume, write_volume
from voxlift.training.run import Run

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]

SMALL = (
    "--weights scratch --backbone resnet10 --width 4 --stem 3 --geometry small --steps 2 "
    "--val-steps 2 --seed 0 --batch-size 2 --device cpu --precision fp32 "
)


@pytest.fixture
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_dice", "plot_worst_cases"):
        monkeypatch.setattr(f"voxlift.inference.segmentation_report.{name}", lambda *_, **__: None)
    monkeypatch.setattr("voxlift.experiment.draw_learning_curves", lambda *_, **__: None)


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return report


@pytest.mark.usefixtures("_no_figures")
def test_liver_and_tumour_are_one_structure(
    tmp_path: Path, command: Command, capsys: Captured
) -> None:
    generator = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((8, 12, 12), np.uint8)
        mask[2:6, 3:9, 3:9], mask[3:5, 5:7, 5:7] = 1, 2
        image = np.choose(mask, (-900, 100, 40)) + generator.normal(0, 10, mask.shape)
        for name, array in (("volume", image.astype(np.int16)), ("segmentation", mask)):
            write_volume(tmp_path / "lits" / f"{name}-{number}.nii", Volume(array))
    run, again = tmp_path / "run", tmp_path / "again"
    words = ["--recipe", "lits-liver", "--data", tmp_path / "lits", "--out", run]
    options = SMALL + "--patch-voxels 8 8 8 --val-cases *-1 --test-cases *-2"
    assert command("finetune", *words, *options.split()) == 0
    assert "dice/liver" in capsys.readouterr().out
    assert set(report_of(run)["metrics"]["structures"]) == {"liver"}
    assert command("evaluate", run, "--data", tmp_path / "lits", "--out", again) == 0
    assert report_of(again)["metrics"] == report_of(run)["metrics"]


@pytest.mark.usefixtures("_no_figures")
def test_an_evaluation_predicts_as_it_is_asked_to(
    segmented: Run, ball_folder: Path, tmp_path: Path, command: Command
) -> None:
    options = ("--mirror", "--largest-component")
    again, masks = tmp_path / "again", tmp_path / "masks"
    words = ("--data", ball_folder, "--out", again)
    assert command("evaluate", segmented.folder, *words, *options) == 0
    for folder, asked in ((again, True), (segmented.folder, False)):
        found = report_of(folder)["options"]
        assert (found["mirror"], found["largest_component"]) == (asked, asked)
    with (again / "cases.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    image = ball_folder / "imagesTr" / f"{row['case']}.nii.gz"
    assert command("predict", segmented.folder, image, "--out", masks, *options) == 0
    found = read_volume(masks / f"{row['case']}.seg.nii.gz").array == 1
    assert ndimage.label(found, structure=np.ones((3, 3, 3)))[1] == 1
    truth = read_volume(ball_folder / "labelsTr" / image.name).array == 1
    overlap = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert float(row["dice"]) == pytest.approx(overlap, abs=1e-5)


def test_mirroring_is_for_segmenters(
    finetuned: Run, nodule_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    words = ("--data", nodule_folder / "nodules.csv", "--out", tmp_path / "x")
    assert command("evaluate", finetuned.folder, *words, "--largest-component") == 1
    assert "--mirror and --largest-component are for segmenters" in capsys.readouterr().err


@pytest.fixture
def lidc_folder(tmp_path: Path) -> Path:
    """Sixteen nodules of eight patients; each patient has one in training and one in test."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "lidc"
    (folder / "nodule").mkdir(parents=True)
    rows, split = ["index,uid,malignancy_mode"], ["train,test"]
    for number in range(16):
        mask = np.zeros((12, 12, 12), np.uint8)
        mask[4:8, 4:8, 4:8] = 1
        voxel = (100 * mask + generator.integers(0, 99, mask.shape)).astype(np.uint8)
        np.savez(folder / "nodule" / f"n{number}.npz", voxel=voxel, answer1=mask)
        rows.append(f"n{number},P{number // 2},{(1, 5)[number // 2 % 2]}")
    split += [f"n{2 * patient}.npz,n{2 * patient + 1}.npz" for patient in range(8)]
    (folder / "nodules.csv").write_text("\n".join(rows))
    (folder / "train_test_split.csv").write_text("\n".join(split))
    return folder


@pytest.mark.usefixtures("_no_figures")
@pytest.mark.parametrize(
    ("task", "patch"),
    [("classify", "--size-voxels 8 8 8"), ("segment", "--patch-voxels 8 8 8")],
)
def test_the_published_split_of_lidc_is_kept_only_on_request(
    lidc_folder: Path, tmp_path: Path, command: Command, capsys: Captured, task: str, patch: str
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    words = ["--task", task, "--data", lidc_folder, "--out", run, *(SMALL + patch).split()]
    assert command("finetune", *words) == 1
    assert "8 of the 8 patients of 'test' are in 'train', too" in capsys.readouterr().err
    assert command("finetune", *words, "--published-split", "keep") == 0
    assert "8 of the 8 patients of 'test'" in (run / "log.txt").read_text()
    assert command("evaluate", run, "--data", lidc_folder, "--out", again) == 0
    assert report_of(again) == report_of(run)
    table = "predictions.csv" if task == "classify" else "cases.csv"
    with (again / table).open(newline="") as file:
        tested = {row["case"] for row in csv.DictReader(file)}
    assert tested == {f"n{number}" for number in range(1, 16, 2)}


def test_a_decision_on_a_published_split_is_refused_where_there_is_none(
    nodule_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    words = ["--data", nodule_folder / "nodules.csv", "--out", tmp_path / "run"]
    assert command("finetune", *words, "--published-split", "keep") == 1
    assert "not a folder in the LIDC layout" in capsys.readouterr().err
