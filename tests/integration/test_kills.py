"""Runs of all tasks that are killed, and resumed, end as runs that were not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from voxlift.experiment import finetune, pretrain
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.weights.file import read_weight_file

TASKS = {
    "pretrain": "pretrained",
    "classify": "finetuned",
    "segment": "segmented",
    "detect": "detected",
}
CONFIGS = {
    "pretrain": "small_pretraining",
    "classify": "small_finetuning",
    "segment": "small_segmentation",
    "detect": "small_detection",
}


def run(config: Any, task: str, *, resume: bool = False) -> Run:
    command: Callable[..., Run] = pretrain if task == "pretrain" else finetune
    return command(config, resume=resume)


def assert_same_ends(one: Path, other: Path) -> None:
    lines = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    for line in (*lines[0], *lines[1]):
        if line["name"] == "samples_per_second":
            line["value"] = None
    assert lines[0] == lines[1]
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (read_checkpoint(run / "checkpoints" / name) for run in (one, other))
        assert ours["global_step"] == theirs["global_step"]
        for part in ("state_dict", "optimizer_states", "current_model_state"):
            torch.testing.assert_close(ours.get(part), theirs.get(part), rtol=0, atol=0)
    tensors = (read_weight_file(run / "model.safetensors").tensors for run in (one, other))
    torch.testing.assert_close(*tensors, rtol=0, atol=0)
    for name in ("metrics.json", "predictions.csv", "cases.csv"):
        assert (one / name).exists() == (other / name).exists()
        if (one / name).exists():
            assert (one / name).read_text() == (other / name).read_text()
    assert not list(one.rglob(".voxlift-*"))


def in_child(work: Callable[[], int]) -> int:
    """Run something in a process of its own, and return how that ended, as `os.waitpid` does."""
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 99
        try:
            torch.set_num_threads(1)
            code = work()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def kill() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


@pytest.mark.parametrize("task", TASKS)
def test_a_run_killed_between_its_checkpoints_ends_as_another(
    task: str, request: pytest.FixtureRequest, tmp_path: Path, events: Any
) -> None:
    """The best checkpoint of a validation is written, the last one that knows of it is not."""
    whole: Run = request.getfixturevalue(TASKS[task])
    config = request.getfixturevalue(CONFIGS[task]).model_copy(
        update={"checkpoint_steps": 2, "out": tmp_path / "run"}
    )
    events(of="after replace best.ckpt", at=0, happens=kill)
    assert os.WTERMSIG(in_child(lambda: bool(run(config, task)))) == signal.SIGKILL
    steps = {
        name: read_checkpoint(config.out / "checkpoints" / f"{name}.ckpt")["global_step"]
        for name in ("last", "best")
    }
    assert steps == {"last": 2, "best": 2 if task in ("pretrain", "classify") else 3}
    events()
    resumed = run(config, task, resume=True)
    assert resumed.metrics == whole.metrics
    assert_same_ends(config.out, whole.folder)


def test_half_a_checkpoint_is_removed(
    segmented: Run, small_segmentation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_segmentation.model_copy(update={"checkpoint_steps": 2, "out": tmp_path / "run"})
    write = Path.write_bytes

    def write_half(self: Path, data: bytes) -> int:
        if not (config.out / "checkpoints" / "last.ckpt").exists():
            return write(self, data)
        write(self, bytes(data)[: len(data) // 2])
        return kill()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        assert os.WTERMSIG(in_child(lambda: bool(finetune(config)))) == signal.SIGKILL
    left = [path.name for path in (config.out / "checkpoints").iterdir()]
    assert len([name for name in left if name.startswith(".voxlift-")]) == 1
    (config.out / ".notes.last.ckpt").write_text("of the user")
    finetune(config, resume=True)
    assert_same_ends(config.out, segmented.folder)
    assert (config.out / ".notes.last.ckpt").exists()


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
@pytest.mark.parametrize("of", ["training_step", "validation_step"])
def test_signals_save_and_leave_by_their_own_exit_code(
    number: str,
    of: str,
    pretrained: Run,
    tmp_path: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    events: Any,
) -> None:
    stop = signal.Signals[number]
    before = {each: signal.getsignal(each) for each in signal.Signals}
    words = ("pretrain", "--config", pretrained.folder / "config.yaml", "--out", tmp_path / "run")
    events(of=f"before {of}", at=0, happens=lambda: os.kill(os.getpid(), stop))
    assert command(*words) == 128 + stop
    assert "--resume" in capsys.readouterr().err
    assert {each: signal.getsignal(each) for each in signal.Signals} == before
    kept = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    assert kept == (1 if of == "training_step" else 2)
    events()
    assert command(*words, "--resume") == 0
    assert_same_ends(tmp_path / "run", pretrained.folder)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_signals_during_the_last_evaluation_lose_nothing(
    number: str,
    pretrained: Run,
    tmp_path: Path,
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    events: Any,
) -> None:
    # Lightning would requeue the job and swallow the signal.
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_NAME", "voxlift")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    stop = signal.Signals[number]
    words = ("pretrain", "--config", pretrained.folder / "config.yaml", "--out", tmp_path / "run")
    # Two epochs are validated; the third validation is that of the trained network.
    events(of="before validation_step", at=2, happens=lambda: os.kill(os.getpid(), stop))
    ended = in_child(lambda: command(*words))
    if stop == signal.SIGINT:
        assert os.WEXITSTATUS(ended) == 130
    else:
        assert os.WTERMSIG(ended) == stop
    assert not (tmp_path / "run" / "model.safetensors").exists()
    events(of="before training_step", at=0, happens=lambda: pytest.fail("trained again"))
    assert command(*words, "--resume") == 0
    events()
    assert_same_ends(tmp_path / "run", pretrained.folder)


def test_two_processes_do_not_train_in_one_folder(
    pretrained: Run,
    tmp_path: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    events: Any,
) -> None:
    words = ("pretrain", "--config", pretrained.folder / "config.yaml", "--out", tmp_path / "run")
    codes: list[int] = []

    def run_others() -> None:
        for flag in ("--resume", "--overwrite"):
            codes.append(os.WEXITSTATUS(in_child(partial(command, *words, flag))))

    events(of="before training_step", at=2, happens=run_others)
    assert command(*words) == 0
    assert codes == [1, 1]
    assert_same_ends(tmp_path / "run", pretrained.folder)
    assert command(*words, "--overwrite") == 0


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_run_killed_anywhere_ends_as_another(
    task: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    events: Any,
    cut_power: Callable[[], None],
) -> None:
    whole: Run = request.getfixturevalue(TASKS[task])
    config = request.getfixturevalue(CONFIGS[task]).model_copy(update={"checkpoint_steps": 2})
    counted = events()
    run(config.model_copy(update={"out": tmp_path / "counted"}), task)
    for at in range(0, len(counted.names), 7):
        parts = config.model_copy(update={"out": tmp_path / f"at-{at}"})
        seen = events(at=at, happens=cut_power)
        try:
            run(parts, task)
        except BaseException as error:
            if type(error).__name__ != "PowerCut":
                raise
        events()
        resumed = run(parts, task, resume=True)
        try:
            assert resumed.metrics == whole.metrics
            assert_same_ends(parts.out, tmp_path / "counted")
        except AssertionError as error:
            raise AssertionError(f"event {at}, {seen.names[at]}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("task", ["segment", "detect"])
def test_a_real_process_in_a_loop(
    task: str, number: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """As under a scheduler: the same command, with --resume, until it succeeds."""
    whole: Run = request.getfixturevalue(TASKS[task])
    out = tmp_path / "run"
    program = "import sys, voxlift.cli; sys.exit(voxlift.cli.main())"
    words = ["finetune", "--config", str(whole.folder / "config.yaml"), "--out", str(out)]
    codes: list[int] = []
    for wanted in (out / "config.yaml", out / "metrics.jsonl", None):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words, "--resume"],
            stderr=subprocess.PIPE,
        )
        while wanted and not wanted.exists():
            assert process.poll() is None
            time.sleep(0.01)
        if wanted:
            process.send_signal(signal.Signals[number])
        _, printed = process.communicate(timeout=200)
        codes.append(process.returncode)
        assert b"Traceback" not in printed
    stopped = {"SIGKILL": {-9}, "SIGTERM": {-15, 143}}[number]
    assert set(codes[:2]) <= stopped | {0}
    assert codes[2] == 0
    assert_same_ends(out, whole.folder)
