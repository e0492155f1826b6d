"""Detection of lesions, or of things in photographs, by a detector."""

from collections.abc import Sequence

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional

from voxlift.data.detection_batches import DetectionBatch
from voxlift.metrics.average_precision import average_precision_of
from voxlift.metrics.box_matching import find_lesions
from voxlift.metrics.froc import DEEPLESION_RATES, froc_of
from voxlift.metrics.image_boxes import ImageBoxes
from voxlift.nets.detection_head import Detection, Losses, Target
from voxlift.nets.detector import Detector
from voxlift.nets.slice_encoder import TRANSFORM
from voxlift.tasks.optimization import (
    OptimizationConfig,
    build_optimizer,
    layer_factor,
    schedule_factor,
)

IOU_THRESHOLD = 0.5


class DetectTask(lightning.LightningModule):
    """Learn boxes; validate by AP50 and by the sensitivity at some rates of false positives.

    Args:
        model: The detector.
        optimization: Optimizer and schedule.
        num_steps: Optimizer steps of the whole run, for the schedule.
        layer_decay: Factor on the learning rate from each stage to the one before it; 1 for none.
        false_positives_per_image: Rates at which the sensitivity is measured.
    """

    def __init__(
        self,
        model: Detector,
        optimization: OptimizationConfig,
        *,
        num_steps: int,
        layer_decay: float = 1.0,
        false_positives_per_image: Sequence[float] = DEEPLESION_RATES,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.num_steps = num_steps
        self.layer_decay = layer_decay
        self.false_positives_per_image = tuple(false_positives_per_image)
        self._judged: list[ImageBoxes] = []

    def forward(self, volumes: Sequence[Tensor]) -> list[Detection]:
        """Find boxes in preprocessed slices."""
        return self.model.detect(volumes)

    def training_step(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        """Compute and log the loss and its parts."""
        del batch_idx
        losses = self.model.compute_losses(batch["volumes"], batch["targets"])
        size = len(batch["targets"])
        for name, part in losses.items():
            self.log(f"train/loss_{name}", part.detach(), batch_size=size)
        loss = total(losses)
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        return loss

    def compute_loss(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch."""
        del batch_idx
        return total(self.model.compute_losses(batch["volumes"], batch["targets"]))

    def validation_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        """Find boxes, and keep them beside the true ones."""
        del batch_idx
        for found, target in zip(self(batch["volumes"]), batch["targets"], strict=True):
            self._judged.append(image_boxes(found, target))

    def on_validation_epoch_end(self) -> None:
        """Judge the boxes of all images together; where there is nothing to find, all is 0."""
        judged, self._judged = self._judged, []
        if not judged:
            return
        for name, value in judge(judged, rates=self.false_positives_per_image).items():
            prominent = name in ("ap50", "sensitivity")
            self.log(f"val/{name}", torch.tensor(value), prog_bar=prominent)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Make the optimizer, slower for early layers, and a schedule moving with every step."""
        optimizer = build_optimizer(
            self.model,
            self.optimization,
            lr_factor=lambda name: detector_layer_factor(name, self.layer_decay),
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: schedule_factor(step, num_steps=self.num_steps, config=self.optimization),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
        }


def detector_layer_factor(name: str, layer_decay: float) -> float:
    """Share of the learning rate for a parameter of a detector.

    Args:
        name: Of the parameter; group transforms learn at the full rate as the head does, for they
            are built anew where the number of slices changes.
        layer_decay: Factor from each stage of the backbone to the one before it.
    """
    return 1.0 if f".{TRANSFORM}." in f".{name}" else layer_factor(name, layer_decay)


def total(losses: Losses) -> Tensor:
    """Add up the parts of a detector's loss, each of the same weight."""
    return torch.stack(list(losses.values())).sum()


def image_boxes(found: Detection, target: Target) -> ImageBoxes:
    """Take what was found in an image, and what there is, from the device."""
    count, regions = len(target["boxes"]), len(target["ignored"])
    # The class of a region is of no account.
    classes = functional.pad(target["labels"], (0, regions))
    return ImageBoxes(
        boxes=found["boxes"].cpu().double().numpy(),
        scores=found["scores"].cpu().double().numpy(),
        labels=found["labels"].cpu().numpy(),
        truths=torch.cat([target["boxes"], target["ignored"]]).cpu().double().numpy(),
        truth_labels=classes.cpu().numpy(),
        ignored=np.arange(count + regions) >= count,
    )


def judge(images: Sequence[ImageBoxes], *, rates: Sequence[float]) -> dict[str, float]:
    """Measure AP50, and the sensitivity at each rate of false positives an image and on average.

    Args:
        images: All images, those without boxes too.
        rates: False positives an image.

    Returns:
        The measures by name; 0 where there is nothing to find.
    """
    precision = average_precision_of(images, iou_thresholds=(IOU_THRESHOLD,))
    curve = froc_of(find_lesions(images, iou_threshold=IOU_THRESHOLD, matching="iou"), rates=rates)
    measures = {
        "ap50": precision.value,
        "sensitivity": curve.mean_sensitivity,
        **{
            f"sensitivity_at_{rate:g}": float(sensitivity)
            for rate, sensitivity in zip(rates, curve.sensitivity, strict=True)
        },
    }
    return {name: float(np.nan_to_num(value)) for name, value in measures.items()}
