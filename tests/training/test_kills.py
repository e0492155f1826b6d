"""A run that is killed, or asked to stop, at any moment ends as one that was not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from voxlift.config import PretrainConfig
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.metrics_file import read_metrics

VARIANTS: dict[str, dict[str, Any]] = {
    "validated-by-epochs": {"ema_decay": 0.9},
    "validated-by-steps": {"ema_decay": 0.9, "steps": 7, "val_steps": 2, "checkpoint_steps": 3},
    "accumulated": {"accumulate": 2, "steps": 5, "val_steps": 2, "batch_size": 6},
    "stopped-early": {"val_steps": 1, "checkpoint_steps": 2},
}


def configure(config: PretrainConfig, variant: str, out: str) -> PretrainConfig:
    changes = {"batch_size": 8, "epochs": 3, "checkpoint_steps": 2, **VARIANTS[variant]}
    decay = changes.pop("ema_decay", 0.0)
    changes["optimization"] = config.optimization.model_copy(update={"ema_decay": decay})
    return config.model_copy(update={**changes, "out": config.out / out})


def more_callbacks(variant: str) -> list[Any]:
    return [EarlyStopping("val/top1", mode="max", patience=2)] if variant == "stopped-early" else []


def assert_same_ends(one: Path, other: Path) -> None:
    lines = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    for line in (*lines[0], *lines[1]):
        if line["name"] == "samples_per_second":
            assert line["value"] > 0
            line["value"] = None
    assert lines[0] == lines[1]
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (read_checkpoint(run / "checkpoints" / name) for run in (one, other))
        assert ours["global_step"] == theirs["global_step"]
        for part in ("state_dict", "optimizer_states", "current_model_state"):
            torch.testing.assert_close(ours.get(part), theirs.get(part), rtol=0, atol=0)


def sweep(
    variant: str,
    stride: int,
    happens: Callable[[], object],
    config: PretrainConfig,
    run_small: Any,
    events: Any,
) -> None:
    counted = events()
    whole = run_small(configure(config, variant, "whole"), *more_callbacks(variant))
    assert whole.finished
    if variant == "stopped-early":
        assert len(whole.task.losses) < 9
    for at in range(stride // 2, len(counted.names), stride):
        parts = configure(config, variant, f"at-{at}")
        seen = events(at=at, happens=happens)
        try:
            stopped = run_small(parts, *more_callbacks(variant))
        except BaseException as error:
            if type(error).__name__ != "PowerCut":
                raise
            steps = None
        else:
            steps = stopped.task.losses
        events()
        resumed = run_small(parts, *more_callbacks(variant), resume=True)
        try:
            assert resumed.finished
            assert_same_ends(parts.out, whole.folder.path)
            if steps is not None:
                assert steps == whole.task.losses[: len(steps)]
                again = len(steps) + len(resumed.task.losses) - len(whole.task.losses)
                assert resumed.task.losses == whole.task.losses[len(steps) - again :]
                # Only the last step, whose validation may be out of turn, is computed again.
                assert again in (0, parts.accumulate)
                assert not again or len(steps) == len(whole.task.losses)
        except AssertionError as error:
            raise AssertionError(f"event {at}, {seen.names[at]}: {error}") from error


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.slow), pytest.param(31, id="some")]
)
def test_a_killed_run_ends_as_another(
    variant: str,
    stride: int,
    small_config: PretrainConfig,
    run_small: Any,
    events: Any,
    cut_power: Callable[[], None],
) -> None:
    sweep(variant, stride, cut_power, small_config, run_small, events)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.slow), pytest.param(31, id="some")]
)
def test_a_terminated_run_ends_as_another(
    variant: str,
    stride: int,
    small_config: PretrainConfig,
    run_small: Any,
    events: Any,
    cut_power: Callable[[], None],
) -> None:
    def terminate() -> None:
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            cut_power()  # Nobody handles it outside of the training.
        os.kill(os.getpid(), signal.SIGTERM)

    sweep(variant, stride, terminate, small_config, run_small, events)
