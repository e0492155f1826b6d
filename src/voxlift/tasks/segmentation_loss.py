"""Losses of segmentation, by name: how much two shapes overlap, and how right each voxel is."""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.label_scheme import IGNORED, LabelScheme

LossName = Literal[
    "dice-ce", "dice", "ce", "dice-focal", "generalized-dice-ce", "generalized-dice-focal"
]
Classes = UInt8[Tensor, "batch depth height width"]
OutputMasks = Float[Tensor, "batch outputs depth height width"]


class LossConfig(BaseModel):
    """What segmentation minimises.

    Args:
        loss: Overlap and voxelwise part: `dice` or `generalized-dice` (classes weighted inversely
            to their squared volume), and `ce` (cross-entropy) or `focal` (gamma 2, for rare
            structures).
        dice_weight: Weight of the overlap part.
        ce_weight: Weight of the voxelwise part.
        dice_background: Measure the overlap of the background too.
        dice_per_case: Measure the overlap of each patch alone, not of the batch as a whole.
        dice_squared: Add up squares in the denominator of `dice`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: LossName = "dice-ce"
    dice_weight: float = Field(default=1.0, ge=0)
    ce_weight: float = Field(default=1.0, ge=0)
    dice_background: bool = False
    dice_per_case: bool = False
    dice_squared: bool = False

    @model_validator(mode="after")
    def _squares_of_dice_alone(self) -> Self:
        if self.dice_squared and not self.loss.startswith("dice"):
            raise ValueError(f"dice_squared goes with dice, not with {self.loss}.")
        return self


class SegmentationLoss(nn.Module):
    """Compare logits with class numbers; voxels that nobody labelled count for nothing.

    Unless the config says otherwise, overlap is measured over the whole batch and without the
    background, so that a patch without a structure does not ask for the impossible. Of several
    logits (deep supervision) each coarser one counts half as much as the one before.

    Args:
        config: Which loss.
        labels: What the class numbers mean. Exclusive classes are softmaxed, overlapping regions
            are each a yes or no.

    Shape:
        Logits `(batch, outputs, *size)`, or a list of them in falling sizes; class numbers
        `(batch, *size)` -> a scalar.
    """

    members: Tensor

    def __init__(self, config: LossConfig, labels: LabelScheme) -> None:
        super().__init__()
        from monai.losses import DiceLoss, FocalLoss, GeneralizedDiceLoss

        self.config = config
        self.overlapping = labels.is_overlapping
        overlap_name, _, voxel_name = config.loss.rpartition("-")
        if config.loss in ("dice", "ce"):
            overlap_name, voxel_name = ("dice", "") if config.loss == "dice" else ("", "ce")
        self.overlap: nn.Module | None = None
        background = self.overlapping or config.dice_background
        batch = not config.dice_per_case
        if overlap_name == "dice":
            self.overlap = DiceLoss(
                include_background=background, batch=batch, squared_pred=config.dice_squared
            )
        elif overlap_name == "generalized-dice":
            self.overlap = GeneralizedDiceLoss(include_background=background, batch=batch)
        self.focal = (
            FocalLoss(gamma=2.0, use_softmax=not self.overlapping, reduction="none")
            if voxel_name == "focal"
            else None
        )
        self.voxelwise = bool(voxel_name)
        table = torch.zeros(labels.num_outputs, IGNORED + 1)
        table[:, : len(labels.names)] = torch.from_numpy(labels.members()).float()
        self.register_buffer("members", table, persistent=False)

    def forward(self, logits: Tensor | Sequence[Tensor], classes: Classes) -> Tensor:
        """Compute the loss."""
        if isinstance(logits, Tensor):
            return self._compare(logits, classes)
        weights = [0.5**level for level in range(len(logits))]
        losses = [
            weight * self._compare(each, _shrink(classes, each))
            for weight, each in zip(weights, logits, strict=True)
        ]
        return torch.stack(losses).sum() / sum(weights)

    def _compare(self, logits: Tensor, classes: Classes) -> Tensor:
        logits = logits.float()
        numbers = classes.long()
        labelled = (numbers != IGNORED).unsqueeze(1)
        wanted = self.members[:, numbers].transpose(0, 1)
        loss = logits.new_zeros(())
        if self.overlap is not None:
            found = logits.sigmoid() if self.overlapping else logits.softmax(1)
            overlap: Tensor = self.overlap(found * labelled, wanted)
            loss = loss + self.config.dice_weight * overlap
        if self.voxelwise:
            loss = loss + self.config.ce_weight * self._voxelwise(logits, wanted, numbers, labelled)
        return loss

    def _voxelwise(
        self, logits: Tensor, wanted: OutputMasks, numbers: Tensor, labelled: Tensor
    ) -> Tensor:
        """Average the error of all labelled voxels."""
        if self.focal is not None:
            errors: Tensor = self.focal(logits, wanted)
        elif self.overlapping:
            errors = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        else:
            errors = functional.cross_entropy(
                logits, numbers, ignore_index=IGNORED, reduction="none"
            ).unsqueeze(1)
        weights = labelled.expand_as(errors)
        return (errors * weights).sum() / weights.sum().clamp(min=1)


def _shrink(classes: Classes, like: Tensor) -> Classes:
    """Take the class of the nearest voxel on a coarser grid."""
    size = tuple(like.shape[2:])
    if tuple(classes.shape[1:]) == size:
        return classes
    shrunk: Classes = functional.interpolate(classes.unsqueeze(1), size, mode="nearest-exact")
    return shrunk.squeeze(1)
