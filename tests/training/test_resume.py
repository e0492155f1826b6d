"""A resumed run equals one that was never interrupted."""

import json
import logging
import multiprocessing
import os
import signal
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from voxlift.config import PretrainConfig
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.metrics_file import read_metrics


class CtrlC(Callback):
    """Press Ctrl-C while a batch is being computed."""

    def __init__(self, batch: int) -> None:
        self.batches_left = batch

    def on_before_backward(self, *_: object) -> None:
        if self.batches_left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        self.batches_left -= 1


class Impatience(Callback):
    """Press Ctrl-C twice while a batch is being computed."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_backward(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)


class Crash(Callback):
    """Fail at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("the power went off")


def with_optimization(config: PretrainConfig, **changes: Any) -> PretrainConfig:
    optimization = config.optimization.model_copy(update=changes)
    return config.model_copy(update={"optimization": optimization})


def lines(run: Any) -> list[dict[str, Any]]:
    return [e for e in read_metrics(run.folder.metrics) if e["name"] != "samples_per_second"]


def assert_same_ends(resumed: Any, whole: Any) -> None:
    """Weights, averaged weights, optimizer and metrics are those of the uninterrupted run."""
    assert resumed.finished
    assert lines(resumed) == lines(whole)
    for name in ("last_checkpoint", "best_checkpoint"):
        ours = read_checkpoint(getattr(resumed.folder, name))
        theirs = read_checkpoint(getattr(whole.folder, name))
        assert ours["global_step"] == theirs["global_step"]
        for part in ("state_dict", "optimizer_states", "current_model_state"):
            torch.testing.assert_close(ours.get(part), theirs.get(part), rtol=0, atol=0)
    ends = (dict(run.task.named_parameters()) for run in (resumed, whole))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"slice_shuffle": False, "ema_decay": 0.0},
    "shuffled": {"axis_shuffle": True},
    "accumulated": {"axis_shuffle": True, "accumulate": 2},
    "often-validated": {"val_steps": 4},
    "one-batch-epochs": {"batch_size": 32, "epochs": 6},
    "by-steps": {"steps": 10},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_ctrl_c_leaves_a_run_that_resumes_exactly(
    small_config: PretrainConfig, run_small: Any, variant: str
) -> None:
    changes = {"ema_decay": 0.9, **VARIANTS[variant]}
    config = with_optimization(small_config, ema_decay=changes.pop("ema_decay"))
    config = config.model_copy(update=changes)
    whole = run_small(config.model_copy(update={"out": config.out / "whole"}))
    config = config.model_copy(update={"out": config.out / "parts"})

    batch = 3 if variant == "one-batch-epochs" else 8
    stopped = run_small(config, CtrlC(batch))
    assert not stopped.finished
    # Between batches whose gradients are added up there is no checkpoint.
    assert len(stopped.task.losses) == (10 if variant == "accumulated" else batch + 1)
    assert lines(stopped) == lines(whole)[: len(lines(stopped))]

    resumed = run_small(config, resume=True)
    assert stopped.task.losses + resumed.task.losses == whole.task.losses
    assert stopped.task.indices + resumed.task.indices == whole.task.indices
    assert_same_ends(resumed, whole)


@pytest.mark.parametrize("every", [4, 6], ids=["mid-epoch", "epoch-end"])
def test_crash_goes_on_from_the_last_checkpoint(
    small_config: PretrainConfig, run_small: Any, every: int
) -> None:
    config = with_optimization(small_config, ema_decay=0.9)
    config = config.model_copy(update={"checkpoint_steps": every, "axis_shuffle": True})
    whole = run_small(config.model_copy(update={"out": config.out / "whole"}))
    config = config.model_copy(update={"out": config.out / "parts"})
    with pytest.raises(RuntimeError, match="power"):
        run_small(config, Crash(11))
    kept = 8 if every == 4 else 6
    assert read_checkpoint(small_config.out / "parts/checkpoints/last.ckpt")["global_step"] == kept
    resumed = run_small(config, resume=True)
    assert resumed.task.losses == whole.task.losses[kept:]
    assert_same_ends(resumed, whole)


@pytest.mark.parametrize("step", [3, 10])
def test_a_second_ctrl_c_stops_at_once(
    small_config: PretrainConfig, run_small: Any, caplog: pytest.LogCaptureFixture, step: int
) -> None:
    config = small_config.model_copy(update={"checkpoint_steps": 4})
    before = signal.getsignal(signal.SIGINT)
    caplog.set_level(logging.INFO)
    stopped = run_small(config, Impatience(step))
    assert not stopped.finished
    assert len(stopped.task.losses) == step + 1
    assert signal.getsignal(signal.SIGINT) == before
    if step == 3:
        assert "at step 3, before the first checkpoint" in caplog.text
    else:
        assert "at step 10; --resume goes on from step 8" in caplog.text
        assert run_small(config, resume=True).finished


def test_batch_order_and_losses_differ_between_seeds(
    small_config: PretrainConfig, run_small: Any
) -> None:
    first = run_small(small_config.model_copy(update={"epochs": 1}))
    other = run_small(
        small_config.model_copy(update={"epochs": 1, "seed": 4, "out": small_config.out / "other"})
    )
    assert first.task.indices != other.task.indices


@pytest.mark.parametrize("ema", [0.0, 0.9], ids=["", "ema"])
def test_finished_run_goes_on_with_more_epochs(
    small_config: PretrainConfig, run_small: Any, ema: float
) -> None:
    config = with_optimization(small_config, schedule="constant", warmup=0.0, ema_decay=ema)
    whole = run_small(config.model_copy(update={"out": config.out / "whole"}))
    config = config.model_copy(update={"out": config.out / "parts"})
    first = run_small(config.model_copy(update={"epochs": 2}))
    more = run_small(config, resume=True)
    assert first.task.losses + more.task.losses == whole.task.losses
    assert_same_ends(more, whole)


def test_finished_run_is_not_trained_again(small_config: PretrainConfig, run_small: Any) -> None:
    config = small_config.model_copy(update={"epochs": 1})
    first = run_small(config)
    again = run_small(config, resume=True)
    assert again.finished
    assert again.task.losses == []
    for ours, theirs in zip(again.task.parameters(), first.task.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_workers_may_change(small_config: PretrainConfig, run_small: Any) -> None:
    whole = run_small(small_config.model_copy(update={"out": small_config.out / "whole"}))
    config = small_config.model_copy(update={"out": small_config.out / "parts"})
    stopped = run_small(config, CtrlC(8))
    machine = config.machine.model_copy(update={"workers": 1})
    resumed = run_small(config.model_copy(update={"machine": machine}), resume=True)
    assert stopped.task.losses + resumed.task.losses == whole.task.losses


class SignalToAll(CtrlC):
    """Send SIGTERM to the workers and then to the run, as a scheduler does."""

    def on_before_backward(self, *_: object) -> None:
        self.batches_left -= 1
        if self.batches_left < 0:
            workers = multiprocessing.active_children()
            assert workers
            for process in (*(worker.pid for worker in workers), os.getpid()):
                assert process
                os.kill(process, signal.SIGTERM)


def test_a_signal_to_all_processes_saves(small_config: PretrainConfig, run_small: Any) -> None:
    whole = run_small(small_config.model_copy(update={"out": small_config.out / "whole"}))
    machine = small_config.machine.model_copy(update={"workers": 1})
    config = small_config.model_copy(update={"out": small_config.out / "parts", "machine": machine})
    stopped = run_small(config, SignalToAll(2))
    assert stopped.stopped_by == signal.SIGTERM
    resumed = run_small(config, resume=True)
    assert stopped.task.losses + resumed.task.losses == whole.task.losses
    assert_same_ends(resumed, whole)


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "two steps"])
def test_resume_without_a_checkpoint_begins_the_run(
    small_config: PretrainConfig, run_small: Any, caplog: pytest.LogCaptureFixture, before: str
) -> None:
    caplog.set_level(logging.INFO)
    whole = run_small(small_config.model_copy(update={"out": small_config.out / "whole"}))
    config = small_config.model_copy(update={"out": small_config.out / "begun"})
    if before == "an empty folder":
        config.out.mkdir()
    if before == "two steps":
        with pytest.raises(RuntimeError, match="power"):
            run_small(config, Crash(2))
    resumed = run_small(config, resume=True)
    assert "no checkpoint in" in caplog.text
    assert resumed.task.losses == whole.task.losses
    assert_same_ends(resumed, whole)


def test_each_step_and_name_stands_once_in_the_metrics(
    small_config: PretrainConfig, run_small: Any
) -> None:
    config = small_config.model_copy(update={"checkpoint_steps": 4})
    with pytest.raises(RuntimeError, match="power"):
        run_small(config, Crash(16))
    run = run_small(config, resume=True)
    entries = [
        json.loads(line) for line in run.folder.metrics.read_text(encoding="utf-8").splitlines()
    ]
    keys = [(entry["step"], entry["split"], entry["name"]) for entry in entries]
    assert len(keys) == len(set(keys))
    assert [step for step, split, name in keys if (split, name) == ("val", "loss")] == [5, 11, 17]
