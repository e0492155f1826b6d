"""Options and starts of detectors that do not go together, and those of other tasks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from voxlift.data.volumes import Volume, write_volume
from voxlift.training.run import Run

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]

QUICK = "--steps 1 --val-steps 1"
OWN = "--backbone None --width None --stem None --device cpu --precision fp32"


def say_nothing(*_: object, **__: object) -> None:
    """Stand in for a figure."""


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_froc", "plot_detections"):
        monkeypatch.setattr(f"voxlift.inference.detection_report.{name}", say_nothing)
    monkeypatch.setattr("voxlift.experiment.draw_learning_curves", say_nothing)


def assert_one_clear_error(capsys: Captured, *words: str) -> None:
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.count("error: ") == 1
    message = " ".join(printed.err.partition("error: ")[2].split())
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("--num-slices 2", 2, "greater than or equal to 3"),
        ("--num-slices 28", 2, "less than or equal to 27"),
        ("--window heart", 1, "no window 'heart'; known are lesions"),
        ("--window 50 50", 1, "50"),
        ("--noisy maybe", 2, "maybe"),
        ("--head yolo", 2, "yolo"),
        ("--weights nosuch.pth", 1, "nosuch.pth"),
        ("--fractions 0.5 0.5 0.5", 1, "fractions"),
        ("--shuffle-slices", 1, "Slices of CT have an order"),
    ],
)
def test_bad_options_are_one_clear_error(
    words: str,
    code: int,
    message: str,
    lesion_folder: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    out = tmp_path / "new"
    options = ("finetune", "--task", "detect", "--data", lesion_folder, "--out", out)
    assert command(*options, *words.split()) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert message in " ".join((printed.err + printed.out).split())
    assert not out.exists()


def test_starts_of_other_tasks(
    detected: Run,
    finetuned: Run,
    lesion_folder: Path,
    tmp_path: Path,
    command: Command,
) -> None:
    """The backbone is taken, and the log tells what was left."""
    out = tmp_path / "out"
    options = ("--config", detected.folder / "config.yaml", "--data", lesion_folder, "--out", out)
    words = (*OWN.split(), "--weights", finetuned.folder / "model.safetensors")
    assert command("finetune", *options, *words, *QUICK.split()) == 0
    log = (out / "log.txt").read_text(encoding="utf-8")
    for said in (
        "100.0% of the backbone",
        "no group transform in the file; made for 5 slices to take the middle slice",
        "head left as it is: the file has none such",
        "the file's head was trained to classify",
    ):
        assert said in log


def test_foreign_files_of_another_network_are_refused(
    detected: Run, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    path, out = tmp_path / "other.pth", tmp_path / "out"
    torch.save({"encoder.kernel": torch.zeros(3, 3), "encoder.shift": torch.zeros(3)}, path)
    words = ("--config", detected.folder / "config.yaml", "--weights", path, "--out", out)
    assert command("finetune", *words) == 1
    assert_one_clear_error(capsys, "other.pth")
    assert not out.exists()


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_a_detector_starts_other_tasks(
    task: str,
    detected: Run,
    finetuned: Run,
    segmented: Run,
    nodule_folder: Path,
    ball_folder: Path,
    tmp_path: Path,
    command: Command,
) -> None:
    """The backbone is taken, and the log tells that the group transforms were left."""
    start = {"classify": finetuned, "segment": segmented}[task]
    data = {"classify": nodule_folder / "nodules.csv", "segment": ball_folder}[task]
    out = tmp_path / "out"
    words = ("--config", start.folder / "config.yaml", "--data", data, "--out", out)
    weights = ("--weights", detected.folder / "model.safetensors")
    assert command("finetune", *words, *OWN.split(), *weights, *QUICK.split()) == 0
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert "100.0% of the backbone" in log
    assert "group_transform" in log


def test_commands_of_other_tasks(
    detected: Run,
    nodule_folder: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    out = tmp_path / "out"
    path = write_volume(tmp_path / "a.nii.gz", Volume(np.full((4, 32, 32), -500, np.int16)))
    assert command("predict", detected.folder, path, "--out", out, "--mirror") == 1
    assert_one_clear_error(capsys, "trained to detect; options of segmentation do not go with it")
    words = ("--data", nodule_folder / "nodules.csv", "--out", out)
    assert command("evaluate", detected.folder, *words) == 1
    assert_one_clear_error(capsys, "nodules.csv", "no column")
    assert not out.exists()
