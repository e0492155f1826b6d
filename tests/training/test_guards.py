from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from voxlift.config import PretrainConfig
from voxlift.core.errors import ConfigError
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.guards import NonFiniteLossError
from voxlift.training.metrics_file import read_metrics


class Spoil(Callback):
    """Make a weight or a gradient NaN at a step."""

    def __init__(self, *, step: int, gradient: bool) -> None:
        self.step = step
        self.gradient = gradient

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object
    ) -> None:
        if trainer.global_step == self.step and not self.gradient:
            next(pl_module.parameters()).data.fill_(float("nan"))

    def on_after_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if trainer.global_step == self.step and self.gradient:
            gradient = next(pl_module.parameters()).grad
            assert gradient is not None
            gradient.view(-1)[0] = float("inf")


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (False, r"loss became nan at step 7 \(learning rate 0\.0\d+\)\. Try .*--lr"),
        (True, r"gradient .* infinite at step 7 \(learning rate .* first model\.backbone\.conv1"),
    ],
    ids=["loss", "gradient"],
)
def test_nan_stops_the_run_and_the_last_checkpoint_stands(
    small_config: PretrainConfig,
    run_small: Any,
    gradient: bool,
    message: str,
) -> None:
    config = small_config.model_copy(update={"checkpoint_steps": 3})
    with pytest.raises(NonFiniteLossError, match=message) as caught:
        run_small(config, Spoil(step=7, gradient=gradient))
    assert isinstance(caught.value, ConfigError)
    kept = read_checkpoint(config.out / "checkpoints/last.ckpt")
    assert kept["global_step"] == 6
    assert all(bool(torch.isfinite(t).all()) for t in kept["state_dict"].values())


def test_speed_is_logged_for_each_epoch(small_config: PretrainConfig, run_small: Any) -> None:
    run = run_small(small_config.model_copy(update={"epochs": 2}))
    speeds = [
        line["value"]
        for line in read_metrics(run.folder.metrics)
        if line["name"] == "samples_per_second"
    ]
    assert len(speeds) == 2
    assert all(speed > 0 for speed in speeds)
