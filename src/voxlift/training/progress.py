"""One line in the log for each validation, for those who watch no progress bar."""

import logging

import lightning
from lightning.pytorch.callbacks import Callback

logger = logging.getLogger(__name__)


class ValidationLog(Callback):
    """Log step, epoch and validation metrics.

    Args:
        num_steps: Optimizer steps of the whole run.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write the line."""
        del pl_module
        found = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in sorted(found.items()))
        logger.info(
            "Step %d of %d, epoch %d: %s",
            trainer.global_step,
            self.num_steps,
            trainer.current_epoch + 1,
            metrics,
        )
