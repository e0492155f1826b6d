"""Segmentation of volumes by a fine-tuned backbone and its decoder."""

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from voxlift.core.label_scheme import LabelScheme
from voxlift.data.prepared_image import Region
from voxlift.data.preprocess import NetworkInput
from voxlift.data.segmentation_batches import SegmentationBatch
from voxlift.inference.sliding_window import WindowSettings, predict_windows
from voxlift.metrics.structures import case_metrics
from voxlift.tasks.optimization import (
    OptimizationConfig,
    build_optimizer,
    layer_factor,
    schedule_factor,
)
from voxlift.tasks.segmentation_loss import LossConfig, SegmentationLoss


class SegmentTask(lightning.LightningModule):
    """Learn the classes of voxels from patches; validate on whole cases by sliding window.

    Args:
        model: Network that gives logits of the size of its input.
        optimization: Optimizer and schedule.
        loss: What is minimised.
        labels: What the class numbers mean.
        num_steps: Optimizer steps of the whole run, for the schedule.
        window: How windows lie over a validation case.
        layer_decay: Factor on the learning rate from each stage to the one before it; 1 for none.
    """

    def __init__(
        self,
        model: nn.Module,
        optimization: OptimizationConfig,
        *,
        loss: LossConfig,
        labels: LabelScheme,
        num_steps: int,
        window: WindowSettings,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.loss = SegmentationLoss(loss, labels)
        self.labels = labels
        self.num_steps = num_steps
        self.window = window
        self.layer_decay = layer_decay
        self._scores: list[list[float]] = []

    def forward(self, volumes: Tensor) -> Tensor:
        """Compute the logits of prepared volumes."""
        logits: Tensor = self.model(volumes)
        return logits

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> Tensor:
        """Compute and log the loss."""
        loss = self.compute_loss(batch, batch_idx)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["label"]))
        return loss

    def compute_loss(self, batch: SegmentationBatch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch of patches."""
        del batch_idx
        loss: Tensor = self.loss(self.model(batch["image"]), batch["label"])
        return loss

    def validation_step(self, batch: SegmentationBatch, batch_idx: int) -> None:
        """Segment one whole case and measure the Dice of each structure."""
        del batch_idx
        image, truth = batch["image"][0], batch["label"][0].cpu().numpy()

        def read(region: Region) -> NetworkInput:
            part: NetworkInput = image[(slice(None), *region)].cpu().numpy()
            return part

        probabilities = predict_windows(
            self.model,
            read,
            size_voxels=(image.shape[1], image.shape[2], image.shape[3]),
            num_outputs=self.labels.num_outputs,
            settings=self.window,
            overlapping=self.labels.is_overlapping,
            padding=[float(channel.min()) for channel in image],
            device=self.device,
        )
        found = self.labels.structures_of(probabilities)
        # On a grid of voxels, for Dice does not depend on their size.
        metrics = case_metrics(
            found, truth, labels=self.labels, spacing_mm=(1.0, 1.0, 1.0), surfaces=False
        )
        self._scores.append([metrics[name].dice for name in self.labels.structures])

    def on_validation_epoch_end(self) -> None:
        """Average the Dice over cases, then over structures; absent ones count nowhere."""
        scores = np.array(self._scores)
        self._scores = []
        counted = ~np.isnan(scores)
        sums = np.where(counted, scores, 0).sum(0)
        means = sums / counted.sum(0).clip(1)
        for name, mean, count in zip(self.labels.structures, means, counted.sum(0), strict=True):
            if count:
                self.log(f"val/dice_{name}", float(mean))
        present = counted.any(0)
        dice = float(means[present].mean()) if present.any() else 0.0
        self.log("val/dice", torch.tensor(dice), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Make the optimizer, slower for early layers, and a schedule moving with every step."""
        optimizer = build_optimizer(
            self.model,
            self.optimization,
            lr_factor=lambda name: layer_factor(name, self.layer_decay),
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: schedule_factor(step, num_steps=self.num_steps, config=self.optimization),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
        }
