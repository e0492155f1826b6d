"""What was trained is kept: whatever goes wrong behind the training, and out of checkpoints."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from voxlift.config import PretrainConfig, SegmentConfig
from voxlift.core.errors import DataError
from voxlift.experiment import finetune, pretrain
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.weights.file import read_header, read_weight_file
from voxlift.weights.header import HEADER_KEY

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]

TASKS = {
    "pretrain": "pretrained",
    "classify": "finetuned",
    "segment": "segmented",
    "detect": "detected",
}
"""The finished run of each task."""


@pytest.fixture(params=TASKS)
def finished(request: pytest.FixtureRequest) -> Run:
    """The finished run of a task; not to be changed."""
    run = request.getfixturevalue(TASKS[request.param])
    assert isinstance(run, Run)
    return run


def test_segmentation_without_validation_keeps_its_model(
    small_segmentation: SegmentConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"out": tmp_path / "run", "fractions": (0.75, 0.0, 0.25), "keep": "last", "steps": 2}
    config = small_segmentation.model_copy(update=changes)
    with caplog.at_level(logging.WARNING):
        run = finetune(config)
    assert "not drawn" not in caplog.text
    names = ("model.safetensors", "metrics.json", "figures/learning_curves.png")
    assert all((run.folder / name).is_file() for name in names)
    assert finetune(config, resume=True).metrics == run.metrics


def broken(*_: Any, **__: Any) -> None:
    raise DataError("there is no font.")


def test_a_run_that_died_behind_its_training_is_completed(
    finished: Run,
    tmp_path: Path,
    command: Command,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a figure that cannot be drawn is no reason to lose the model."""
    out = tmp_path / "run"
    shutil.copytree(finished.folder, out)
    (out / "model.safetensors").unlink()
    (out / "metrics.json").unlink(missing_ok=True)
    # As older versions left it, before checkpoints held a header and what ended the run.
    for path in (out / "checkpoints").iterdir():
        saved = read_checkpoint(path)
        del saved[HEADER_KEY], saved["callbacks"]["ResumePoint"]
        torch.save(saved, path)
    monkeypatch.setattr("voxlift.training.engine.plot_learning_curves", broken)
    name = "pretrain" if finished.report is None else "finetune"
    assert command(name, "--config", out / "config.yaml", "--out", out, "--resume") == 0
    assert "learning_curves.png were not drawn: there is no font." in caplog.text
    tensors = [
        read_weight_file(run / "model.safetensors").tensors for run in (finished.folder, out)
    ]
    torch.testing.assert_close(tensors[0], tensors[1], rtol=0, atol=0)
    if finished.report is not None:
        texts = [(run / "metrics.json").read_text() for run in (finished.folder, out)]
        assert texts[0] == texts[1]


def test_a_defect_of_a_figure_is_not_hidden_and_does_not_take_the_model(
    small_pretraining: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: Any, **__: Any) -> None:
        raise TypeError("a defect")

    monkeypatch.setattr("voxlift.training.engine.plot_learning_curves", defect)
    with pytest.raises(TypeError, match="a defect"):
        pretrain(small_pretraining.model_copy(update={"out": tmp_path / "run"}))
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_run_that_stopped_early_is_not_trained_further(
    small_segmentation: SegmentConfig, tmp_path: Path
) -> None:
    config = small_segmentation.model_copy(
        update={
            "out": tmp_path / "run",
            "val_steps": 1,
            "patience": 1,
            "keep": "last",
            "optimization": small_segmentation.optimization.model_copy(update={"lr": 1e-9}),
        }
    )
    run = finetune(config)
    steps = {line["step"] for line in read_metrics(run.folder / "metrics.jsonl")}
    assert max(steps) + 1 < 6
    before = read_weight_file(run.folder / "model.safetensors").tensors
    (run.folder / "model.safetensors").unlink()
    assert finetune(config, resume=True).metrics == run.metrics
    assert {line["step"] for line in read_metrics(run.folder / "metrics.jsonl")} == steps
    after = read_weight_file(run.folder / "model.safetensors").tensors
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_is_made_a_model_without_its_folder(
    finished: Run, name: str, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    checkpoint, out = tmp_path / f"{name}.ckpt", tmp_path / "model.safetensors"
    shutil.copy(finished.folder / "checkpoints" / f"{name}.ckpt", checkpoint)
    assert command("convert", checkpoint, "--out", out) == 0
    saved = read_checkpoint(checkpoint)
    assert f"Checkpoint of step {saved['global_step']}" in capsys.readouterr().out
    for key, tensor in read_weight_file(out).tensors.items():
        torch.testing.assert_close(tensor, saved["state_dict"][f"model.{key}"], rtol=0, atol=0)
    made, kept = read_header(out), read_header(finished.folder / "model.safetensors")
    assert (made.architecture, made.geometry) == (kept.architecture, kept.geometry)
    assert made.preprocessing == kept.preprocessing
    assert kept.head is not None
    assert made.head == kept.head.model_copy(update={"threshold": None})
    assert made.provenance["checkpoint_step"] == saved["global_step"]
    assert made.provenance["start"] == kept.provenance["start"]
    assert made.provenance.get("start_sha256") == kept.provenance.get("start_sha256")
    assert made.provenance["metrics"] == {}


def test_a_converted_checkpoint_is_evaluated_as_the_model_is(
    segmented: Run, ball_folder: Path, tmp_path: Path, command: Command
) -> None:
    best, out = segmented.folder / "checkpoints" / "best.ckpt", tmp_path / "model.safetensors"
    assert command("convert", best, "--out", out) == 0
    assert command("evaluate", out, "--data", ball_folder, "--out", tmp_path / "again") == 0
    texts = [(run / "metrics.json").read_text() for run in (segmented.folder, tmp_path / "again")]
    assert texts[0] == texts[1]


COMMANDS = {
    "evaluate": ("evaluate", "CHECKPOINT", "--data", "unread"),
    "predict": ("predict", "CHECKPOINT", "unread"),
    "inspect": ("inspect", "CHECKPOINT"),
    "finetune": ("finetune", "--data", "DATA", "--weights", "CHECKPOINT", "--out", "OUT"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_for_models_name_the_way_from_a_checkpoint(
    finished: Run,
    name: str,
    nodule_folder: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    path = finished.folder / "checkpoints" / "last.ckpt"
    places = {
        "CHECKPOINT": path,
        "DATA": nodule_folder / "nodules.csv",
        "OUT": tmp_path / "run",
    }
    assert command(*(places.get(word, word) for word in COMMANDS[name])) == 1
    printed = capsys.readouterr().err.replace("\n", " ")
    assert f"voxlift convert {path} --out model.safetensors" in printed
