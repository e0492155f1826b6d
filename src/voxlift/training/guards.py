"""Callbacks that watch a run: against NaN, and by saying how fast it goes."""

import math
import time

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from voxlift.core.errors import ConfigError
from voxlift.training.metrics_file import MetricsLog


class NonFiniteLossError(ConfigError):
    """The loss has become NaN or infinite."""


class FiniteLossGuard(Callback):
    """Stop the run at the first loss that is not finite, before a bad step is kept."""

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Check the loss of the step.

        Raises:
            NonFiniteLossError: With step, learning rate, and what to try.
        """
        del pl_module
        if torch.isfinite(loss):
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise NonFiniteLossError(
            f"The loss became {loss.item()} at step {trainer.global_step} (learning rate "
            f"{rate:.3g}). Try a smaller --lr, --warmup 0.05, --gradient-clip 1 or --precision "
            "fp32, and look for NaN in the data. The last checkpoint was saved before this step."
        )


class FiniteGradientGuard(Callback):
    """Stop the run before weights are changed by a gradient that is not finite.

    A finite loss can have a gradient that is not (a bf16 kernel gone wrong, an overflow); once it
    is stepped along, every later loss is NaN and the cause is gone.
    """

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Check the gradient of every parameter, unless fp16 loss scaling does so itself.

        Raises:
            NonFiniteLossError: With the first parameters concerned, the step and what to try.
        """
        if trainer.precision == "16-mixed":
            return
        named = [(n, p.grad) for n, p in pl_module.named_parameters() if p.grad is not None]
        norms = torch._foreach_norm([gradient for _, gradient in named])
        if torch.isfinite(torch.stack(norms)).all():
            return
        bad = [n for (n, _), norm in zip(named, norms, strict=True) if not torch.isfinite(norm)]
        raise NonFiniteLossError(
            f"The gradient became NaN or infinite at step {trainer.global_step} (learning rate "
            f"{optimizer.param_groups[0]['lr']:.3g}) in {len(bad)} of {len(named)} parameters, "
            f"first {bad[0]}. Try --precision fp32, a smaller --lr or --gradient-clip 1. The last "
            "checkpoint was saved before this step."
        )


class Throughput(Callback):
    """Show samples per second in the progress bar and log them once an epoch.

    What counts is the time from batch to batch, so that waiting for data is part of it. A resumed
    run counts on.

    Args:
        log: Where the epoch's mean is logged.
    """

    def __init__(self, log: MetricsLog) -> None:
        self._log = log
        self._samples = 0
        self._seconds = 0.0
        self._started = 0.0

    def on_train_start(self, *_: object) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_validation_end(self, *_: object) -> None:
        """Start the clock anew: a validation does not count."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: dict[str, Tensor],
        batch_idx: int,
    ) -> None:
        """Count the batch."""
        del trainer, outputs, batch_idx
        now = time.perf_counter()
        self._seconds += now - self._started
        self._started = now
        self._samples += len(next(iter(batch.values())))
        rate = self._samples / self._seconds
        pl_module.log("images/s", rate, prog_bar=True, logger=False)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Log the epoch's mean and start anew."""
        del pl_module
        rate = self._samples / self._seconds if self._seconds else math.nan
        self._log.write(trainer, {"train/samples_per_second": rate})
        self._samples, self._seconds = 0, 0.0

    def state_dict(self) -> dict[str, float]:
        """Return what was counted in this epoch."""
        return {"samples": self._samples, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take over what was counted in the epoch that is resumed."""
        self._samples, self._seconds = int(state_dict["samples"]), state_dict["seconds"]
