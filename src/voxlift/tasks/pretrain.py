"""Pre-training: classify lifted photographs with full supervision."""

from collections.abc import Callable
from typing import TypedDict

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from voxlift.core.geometry import AXIS_ORDERS, AxisOrder, Geometry
from voxlift.core.preprocessing import PHOTOGRAPH_MEAN, PHOTOGRAPH_STD
from voxlift.core.randomness import numpy_generator, torch_generator
from voxlift.core.types import LiftedImages, Logits
from voxlift.lifting.image_to_volume import lift
from voxlift.lifting.turn import turned_parameters
from voxlift.nets.classifier import Classifier
from voxlift.tasks.optimization import OptimizationConfig, build_optimizer, schedule_factor


class ImageBatch(TypedDict):
    """A batch of photographs: uint8 `(batch, 3, height, width)`, labels and indices `(batch,)`."""

    image: Tensor
    label: Tensor
    index: Tensor


class PretrainTask(lightning.LightningModule):
    """Lift each batch to thin volumes and learn its labels.

    Args:
        model: Classifier on a 3D backbone whose geometry leaves the thin axis unstrided.
        optimization: Optimizer, schedule and loss settings.
        num_steps: Optimizer steps of the whole run, for the schedule.
        seed: Seed of slice shuffle and axis shuffle.
        slice_shuffle: Put the slices of each image in random order, in training only.
        axis_shuffle: Lay each training batch out in one of the six axis orders.
        size_at: Edge in pixels to which the images of an epoch are resized, for progressive
            resizing; None keeps them.

    Source:
        arXiv 2201.01426, section 3; the axis shuffle is Voxlift's own.
    """

    def __init__(
        self,
        model: Classifier,
        optimization: OptimizationConfig,
        *,
        num_steps: int,
        seed: int,
        slice_shuffle: bool = True,
        axis_shuffle: bool = False,
        size_at: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.num_steps = num_steps
        self.seed = seed
        self.slice_shuffle = slice_shuffle
        self.axis_shuffle = axis_shuffle
        self.size_at = size_at
        self.geometry: Geometry = model.backbone.geometry
        num_classes = model.head.out_features
        self.top1 = MulticlassAccuracy(num_classes, average="micro")
        self.top5 = MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes))

    def forward(self, images: Tensor) -> Logits:
        """Classify photographs `(batch, 3, height, width)` with values from 0 to 255."""
        logits: Tensor = self.model(lift(normalize(images)))
        return logits

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Compute and log the loss."""
        loss = self.compute_loss(batch, batch_idx)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["label"]))
        return loss

    def compute_loss(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch whose random layout depends on seed, epoch and index only."""
        identity = (self.current_epoch, batch_idx, self.global_rank)
        images = normalize(batch["image"])
        if self.size_at is not None:
            images = resize(images, self.size_at(self.current_epoch))
        volumes = lift(
            images,
            shuffle=self.slice_shuffle,
            generator=torch_generator(self.seed, "slices", *identity),
        )
        if self.axis_shuffle:
            order = AXIS_ORDERS[numpy_generator(self.seed, "axes", *identity).integers(6)]
            logits = self.classify_transposed(volumes, order)
        else:
            logits = self.model(volumes)
        return functional.cross_entropy(
            logits, batch["label"], label_smoothing=self.optimization.label_smoothing
        )

    def classify_transposed(self, volumes: LiftedImages, order: AxisOrder) -> Logits:
        """Classify lifted photographs as if they were laid out in another axis order.

        The kernels are turned instead of the volumes, which gives the same logits sooner; but
        recomputed blocks would meet kernels that are turned back already, so with checkpointing
        the volumes are transposed, and the geometry with them.
        """
        backbone = self.model.backbone
        if not backbone.checkpointing:
            turned = turned_parameters(self.model, order)
            logits: Tensor = torch.func.functional_call(self.model, turned, (volumes,))
        else:
            backbone.geometry = self.geometry.transposed(order)
            logits = self.model(volumes.permute(0, 1, *(2 + axis for axis in order)))
        return logits

    def on_train_batch_end(self, *_: object) -> None:
        """Restore the geometry only now: recomputed blocks needed it in the backward pass."""
        self.model.backbone.geometry = self.geometry

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Measure loss, top-1 and top-5 accuracy with the slices in their own order."""
        del batch_idx
        logits = self(batch["image"])
        labels = batch["label"]
        self.top1.update(logits, labels)
        size = len(labels)
        self.log("val/loss", functional.cross_entropy(logits, labels), batch_size=size)
        self.log("val/top1", self.top1, prog_bar=True, batch_size=size)
        if self.model.head.out_features > 5:
            self.top5.update(logits, labels)
            self.log("val/top5", self.top5, batch_size=size)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Make the optimizer and a schedule that moves with every step."""
        optimizer = build_optimizer(self.model, self.optimization)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: schedule_factor(step, num_steps=self.num_steps, config=self.optimization),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
        }


def normalize(images: Tensor) -> Tensor:
    """Scale photographs of 0 to 255 by one mean and one std for all channels."""
    return (images.float() - PHOTOGRAPH_MEAN) / PHOTOGRAPH_STD


def resize(images: Tensor, size: int) -> Tensor:
    """Resize square images to an edge in pixels; images of that size are returned as they are."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
