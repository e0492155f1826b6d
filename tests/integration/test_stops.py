"""Runs that are stopped, go wrong or stand in the way of another."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from voxlift.config import FinetuneConfig, PretrainConfig
from voxlift.experiment import finetune
from voxlift.tasks.classify import ClassifyTask
from voxlift.tasks.pretrain import PretrainTask
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.weights.file import read_weight_file

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Snapshot = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def folded(small_finetuning: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two folds, never interrupted."""
    out = tmp_path_factory.mktemp("folds") / "run"
    return finetune(small_finetuning.model_copy(update={"out": out, "folds": 2}))


def send(number: signal.Signals, *, at_step: int, kind: Any, patch: pytest.MonkeyPatch) -> None:
    """Send this process a signal in a training step, counted over all networks of the run."""
    steps: list[int] = []
    compute = kind.training_step

    def step(task: Any, *batch: Any) -> Any:
        steps.append(1)
        if len(steps) == at_step:
            os.kill(os.getpid(), number)
        return compute(task, *batch)

    patch.setattr(kind, "training_step", step)


def assert_same_folds(one: Path, other: Path) -> None:
    for fold in ("fold-0", "fold-1"):
        lines, tensors = [], []
        for run in (one, other):
            found = read_metrics(run / fold / "metrics.jsonl")
            lines.append([line for line in found if "samples" not in line["name"]])
            tensors.append(read_weight_file(run / fold / "model.safetensors").tensors)
        assert lines[0] == lines[1]
        torch.testing.assert_close(tensors[0], tensors[1], rtol=0, atol=0)
    for name in ("metrics.json", "predictions.csv"):
        assert (one / name).read_text() == (other / name).read_text()


def test_folds_are_averaged_everywhere(
    folded: Run, nodule_folder: Path, tmp_path: Path, command: Command
) -> None:
    assert folded.model_path == folded.folder
    data = nodule_folder / "nodules.csv"
    assert command("evaluate", folded.folder, "--data", data, "--out", tmp_path / "again") == 0
    for name in ("metrics.json", "predictions.csv"):
        assert (tmp_path / "again" / name).read_text() == (folded.folder / name).read_text()
    scan = nodule_folder / "volumes" / "03.nii.gz"
    answers = []
    for number, model in enumerate([folded.folder, *sorted(folded.folder.glob("fold-*"))]):
        assert command("predict", model, scan, "--out", tmp_path / str(number)) == 0
        line = (tmp_path / str(number) / "predictions.csv").read_text().splitlines()[1]
        answers.append(float(line.split(",")[-1]))
    assert answers[0] == pytest.approx((answers[1] + answers[2]) / 2, abs=2e-6)
    assert answers[1] != answers[2]


@pytest.mark.parametrize("step", [2, 6])
def test_interrupted_folds_go_on_where_they_stopped(
    folded: Run,
    step: int,
    nodule_folder: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    words = ("finetune", "--config", folded.folder / "config.yaml", "--out", out)
    with monkeypatch.context() as patch:
        send(signal.SIGINT, at_step=step, kind=ClassifyTask, patch=patch)
        assert command(*words) == 130
    assert "--resume" in capsys.readouterr().err
    assert (out / "fold-0" / "model.safetensors").is_file() == (step == 6)
    assert not (out / "metrics.json").exists()
    # Until then it answers nothing.
    data = nodule_folder / "nodules.csv"
    assert command("evaluate", out, "--data", data, "--out", tmp_path / "early") == 1
    assert "--resume" in capsys.readouterr().err

    assert command(*words, "--resume") == 0
    assert_same_folds(out, folded.folder)


def test_interrupted_pretraining_goes_on_where_it_stopped(
    pretrained: Run,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("pretrain", "--config", pretrained.folder / "config.yaml", "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        send(signal.SIGINT, at_step=3, kind=PretrainTask, patch=patch)
        assert command(*words) == 130
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert command(*words, "--resume", "--lr", "0.7") == 1
    printed = capsys.readouterr().err
    assert "optimization.lr: was 0.1, is 0.7" in printed
    assert command(*words, "--resume", "--workers", "1") == 0
    ours, theirs = (
        read_weight_file(folder / "model.safetensors").tensors
        for folder in (tmp_path / "run", pretrained.folder)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_finished_run_has_nothing_to_resume(
    pretrained: Run,
    small_pretraining: PretrainConfig,
    tmp_path: Path,
    command: Command,
    snapshot: Snapshot,
) -> None:
    config = pretrained.folder / "config.yaml"
    out = tmp_path / "run"
    assert command("pretrain", "--config", config, "--out", out) == 0
    weights = read_weight_file(out / "model.safetensors").tensors
    assert command("pretrain", "--config", config, "--out", out, "--resume") == 0
    after = read_weight_file(out / "model.safetensors").tensors
    torch.testing.assert_close(after, weights, rtol=0, atol=0)
    # With more epochs it goes on.
    more = small_pretraining.epochs + 1
    assert command("pretrain", "--config", config, "--out", out, "--resume", "--epochs", more) == 0
    assert read_checkpoint(out / "checkpoints" / "last.ckpt")["global_step"] == 6


def test_resume_begins_a_run_that_there_is_not(
    tmp_path: Path, pretrained: Run, command: Command
) -> None:
    config, out = pretrained.folder / "config.yaml", tmp_path / "run"
    assert command("pretrain", "--config", config, "--out", out, "--resume") == 0
    assert "There is no checkpoint" in (out / "log.txt").read_text()
    ours, theirs = (
        read_weight_file(folder / "model.safetensors").tensors
        for folder in (out, pretrained.folder)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_loss_that_is_no_number_stops_the_run(
    pretrained: Run, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    config, out = pretrained.folder / "config.yaml", tmp_path / "run"
    words = ("--config", config, "--out", out, "--lr", "1e30", "--checkpoint-steps", "1")
    assert command("pretrain", *words) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed

    assert re.search(r"at step 1 \(learning rate \d+\.?\d*e\+(29|30)\)", printed)
    assert "smaller --lr" in printed
    assert not (out / "model.safetensors").exists()
    kept = read_checkpoint(out / "checkpoints" / "last.ckpt")
    assert kept["global_step"] >= 1


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
@pytest.mark.parametrize("flags", [(), ("--resume", "--overwrite")])
def test_a_run_is_not_written_over_unasked(
    kind: str,
    flags: tuple[str, ...],
    pretrained: Run,
    finetuned: Run,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    folder = {"pretrain": pretrained, "finetune": finetuned}[kind].folder
    before = snapshot(folder)
    assert command(kind, "--config", folder / "config.yaml", *flags) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert snapshot(folder) == before


def test_overwrite_replaces_a_run_but_nothing_else(
    pretrained: Run, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    config, out = pretrained.folder / "config.yaml", tmp_path / "run"
    assert command("pretrain", "--config", config, "--out", out, "--seed", "9") == 0
    first = (out / "model.safetensors").read_bytes()
    assert command("pretrain", "--config", config, "--out", out, "--overwrite") == 0
    assert (out / "model.safetensors").read_bytes() != first
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    words = ("--config", config, "--out", tmp_path / "thesis", "--overwrite")
    assert command("pretrain", *words) == 1
    assert "holds no run of Voxlift" in capsys.readouterr().err
    assert (tmp_path / "thesis" / "chapter.tex").exists()
