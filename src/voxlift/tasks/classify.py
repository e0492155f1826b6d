"""Classification of volumes by a fine-tuned backbone."""

from collections.abc import Sequence

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from voxlift.core.types import Logits
from voxlift.data.classification_batches import VolumeBatch
from voxlift.nets.classifier import Classifier
from voxlift.tasks.optimization import (
    OptimizationConfig,
    build_optimizer,
    layer_factor,
    schedule_factor,
)


class ClassifyTask(lightning.LightningModule):
    """Learn the classes of volumes.

    Args:
        model: Classifier on a backbone.
        optimization: Optimizer, schedule and loss settings.
        num_steps: Optimizer steps of the whole run, for the schedule.
        class_weights: Weight of each class in the loss; None for equal ones.
        head_warmup: Share of the steps, 0 to 1, in which only the head learns.
        layer_decay: Factor on the learning rate from each stage to the one before it; 1 for none.
    """

    def __init__(
        self,
        model: Classifier,
        optimization: OptimizationConfig,
        *,
        num_steps: int,
        class_weights: Sequence[float] | None = None,
        head_warmup: float = 0.0,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.num_steps = num_steps
        self.warmup_steps = round(head_warmup * num_steps)
        self.layer_decay = layer_decay
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        num_classes = model.head.out_features
        self.auroc = MulticlassAUROC(num_classes)
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, volumes: Tensor) -> Logits:
        """Classify preprocessed volumes."""
        logits: Tensor = self.model(volumes)
        return logits

    def training_step(self, batch: VolumeBatch, batch_idx: int) -> Tensor:
        """Compute and log the loss."""
        loss = self.compute_loss(batch, batch_idx)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["label"]))
        return loss

    def compute_loss(self, batch: VolumeBatch, batch_idx: int) -> Tensor:
        """Compute the loss; while the head warms up, the backbone is left alone."""
        del batch_idx
        if self.is_warming_up:
            self.model.backbone.eval()
            with torch.no_grad():
                features = self.model.features(batch["image"])
            logits = self.model.head(self.model.dropout(features))
        else:
            logits = self.model(batch["image"])
        return functional.cross_entropy(
            logits,
            batch["label"],
            weight=self.class_weights if isinstance(self.class_weights, Tensor) else None,
            label_smoothing=self.optimization.label_smoothing,
        )

    @property
    def is_warming_up(self) -> bool:
        """Whether only the head learns at this step."""
        return self.global_step < self.warmup_steps

    def on_train_batch_start(self, batch: VolumeBatch, batch_idx: int) -> None:
        """Put the backbone back into training once the head is warm."""
        del batch, batch_idx
        if not self.is_warming_up and not self.model.backbone.training:
            self.model.backbone.train()

    def validation_step(self, batch: VolumeBatch, batch_idx: int) -> None:
        """Measure loss, AUROC and accuracy."""
        del batch_idx
        logits, labels = self(batch["image"]).float(), batch["label"]
        size = len(labels)
        # Not called, for a call also computes the metric of the batch, which may lack a class.
        self.auroc.update(logits.softmax(1), labels)
        self.accuracy.update(logits, labels)
        self.log("val/loss", functional.cross_entropy(logits, labels), batch_size=size)
        self.log("val/auroc", self.auroc, on_epoch=True, prog_bar=True, batch_size=size)
        self.log("val/accuracy", self.accuracy, on_epoch=True, batch_size=size)

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
