"""What has to be known of a trained segmenter beside its tensors, to use it again."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from voxlift.core.label_scheme import LabelScheme
from voxlift.core.types import PublishedSplit

Decoder = Literal["unet", "fcn", "cspr-unet", "cspr-fcn"]


class SegmentationSettings(BaseModel):
    """Saved as the settings of a segmenter's head.

    Args:
        labels: What its outputs mean.
        channel_names: What it is fed, in this order.
        window_voxels: Size of the window at prediction: that of the patches in training.
        window_steps: Voxels from a window to the next at prediction; None takes half a window.
        decoder: What stands on the backbone.
        deep_supervision: Whether the decoder has heads on its coarser levels.
        mirror_axes: Axes along which training patches were flipped, and predictions may be.
        seed: Of the run, by which it split its data.
        fractions: Shares of training, validation and test cases, likewise.
        val_cases: Patterns of the ids of the validation cases, where the run named them.
        test_cases: Patterns of the ids of the test cases, likewise.
        published_split: What the run made of a published split that divides patients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: LabelScheme
    channel_names: tuple[str, ...]
    window_voxels: tuple[PositiveInt, PositiveInt, PositiveInt]
    window_steps: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    decoder: Decoder = "unet"
    deep_supervision: bool = False
    mirror_axes: tuple[int, ...] = ()
    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    val_cases: tuple[str, ...] = ()
    test_cases: tuple[str, ...] = ()
    published_split: PublishedSplit | None = None
