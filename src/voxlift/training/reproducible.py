"""What makes a step the same whenever and wherever it is computed."""

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from voxlift.core.randomness import derive_seed


class SeededSteps(Callback):
    """Seed torch anew for each training batch, so that dropout is alike in a resumed run.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Seed the global generators by epoch, batch and rank."""
        del pl_module, batch
        identity = (trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(derive_seed(self.seed, "step", *identity))
