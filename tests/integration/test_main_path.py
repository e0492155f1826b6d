"""Photographs to a start, a start to a classifier, a classifier to answers: by commands alone."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.weights.file import read_header, read_weight_file

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Words = tuple[str, ...]


def metric_lines(folder: Path) -> list[dict[str, object]]:
    return [
        line for line in read_metrics(folder / "metrics.jsonl") if "samples" not in line["name"]
    ]


def assert_same_run(one: Path, other: Path) -> None:
    """Equal losses, equal metrics, equal weights."""
    assert metric_lines(one) == metric_lines(other)
    ours, theirs = (read_weight_file(run / "model.safetensors").tensors for run in (one, other))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_from_photographs_to_answers(
    photograph_folder: Path,
    nodule_folder: Path,
    pretrain_words: Words,
    finetune_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    start, run, data = tmp_path / "start", tmp_path / "run", nodule_folder / "nodules.csv"
    assert command("pretrain", "--data", photograph_folder, "--out", start, *pretrain_words) == 0
    assert str(start / "model.safetensors") in capsys.readouterr().out.replace("\n", "")

    words = ("--task", "classify", "--data", data, "--weights", start / "model.safetensors")
    assert command("finetune", *words, "--out", run, *finetune_words) == 0
    printed = capsys.readouterr()
    assert "auroc" in printed.out
    assert "100.0% of the backbone's" in printed.err

    assert command("evaluate", run, "--data", data, "--out", tmp_path / "again") == 0
    assert "mean_intensity" in capsys.readouterr().out
    for name in ("metrics.json", "predictions.csv"):
        assert (tmp_path / "again" / name).read_text() == (run / name).read_text()

    # Two files, and the folder that holds them and the others.
    inputs = [nodule_folder / "volumes" / "07.nii.gz", nodule_folder / "volumes"]
    model = run / "model.safetensors"
    assert command("predict", model, *inputs, "--out", tmp_path / "answers") == 0
    with (tmp_path / "answers" / "predictions.csv").open(newline="") as file:
        answers = {Path(row["case"]).name: row for row in csv.DictReader(file)}
    assert len(answers) == 30
    assert next(iter(answers)) == "07.nii.gz"
    with (run / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found = answers[Path(row["case"]).name]
            assert found["prediction"] == row["prediction"]
            assert float(found["p_smooth"]) == pytest.approx(float(row["p_smooth"]), abs=2e-5)

    # Patients are named nowhere.
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".ckpt":
            assert b"person" not in path.read_bytes(), path


def test_config_of_a_pretraining_runs_it_again(
    pretrained: Run, tmp_path: Path, command: Command
) -> None:
    config = pretrained.folder / "config.yaml"
    assert command("pretrain", "--config", config, "--out", tmp_path / "again") == 0
    assert_same_run(tmp_path / "again", pretrained.folder)


def test_config_of_a_finetuning_runs_it_again(
    finetuned: Run, tmp_path: Path, command: Command
) -> None:
    config = finetuned.folder / "config.yaml"
    assert command("finetune", "--config", config, "--out", tmp_path / "again") == 0
    assert_same_run(tmp_path / "again", finetuned.folder)
    again, first = (
        (run / "metrics.json").read_text() for run in (tmp_path / "again", finetuned.folder)
    )
    assert again == first


def test_options_of_finetuning_reach_the_run(
    pretrained: Run,
    nodule_folder: Path,
    finetune_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    words = "--label-fraction 0.5 --class-weights --norm-mode group --geometry small --patience 1"
    code = command(
        "finetune",
        *("--data", nodule_folder / "nodules.csv", "--weights", pretrained.model_path),
        *finetune_words,
        *words.split(),
        *("--out", tmp_path / "run"),
    )
    assert code == 0
    assert "learning from 7" in (tmp_path / "run" / "log.txt").read_text()
    header = read_header(tmp_path / "run" / "model.safetensors")
    assert header.architecture.norm == "group"
    assert header.geometry.stage_strides[1] == (2, 2, 2)
    capsys.readouterr()
    assert command("inspect", tmp_path / "run") == 1
    assert command("inspect", tmp_path / "run" / "model.safetensors") == 0
    shown = capsys.readouterr().out
    assert "smooth, spiculated" in shown
    assert "small" in shown


def test_three_classes_of_folders_with_dicom(
    pretrained: Run,
    finetune_words: Words,
    tmp_path: Path,
    command: Command,
    dicom_classes: Path,
) -> None:
    words = ("--data", dicom_classes, "--weights", pretrained.model_path, "--out", tmp_path / "run")
    assert command("finetune", *words, *finetune_words) == 0
    report = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert report["metrics"]["class_names"] == ["a", "b", "c"]
    assert len(report["metrics"]["confusion_matrix"]) == 3
    evaluated = tmp_path / "again"
    assert command("evaluate", tmp_path / "run", "--data", dicom_classes, "--out", evaluated) == 0
    assert (evaluated / "metrics.json").read_text() == (
        tmp_path / "run" / "metrics.json"
    ).read_text()
    series = next((dicom_classes / "b").iterdir())
    assert command("predict", tmp_path / "run", series, "--out", tmp_path / "answers") == 0
    with (tmp_path / "answers" / "predictions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert Path(row["case"]) == series
    total = sum(float(row[f"p_{name}"]) for name in "abc")
    assert total == pytest.approx(1, abs=2e-6)
    # Tags of patients are in none of the files.
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"Doe" not in content, path
            assert b"19700101" not in content, path
