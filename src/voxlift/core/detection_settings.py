"""What has to be known of a trained detector beside its tensors, to use it again."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, model_validator

MIN_SLICES, MAX_SLICES = 3, 27

Head = Literal["faster-rcnn", "retinanet", "fcos"]
Noisy = Literal["drop", "ignore", "keep"]
"""Leave such boxes out, take them as regions to be ignored, or believe them."""

Matching = Literal["iou", "iobb"]

NumSlices = Annotated[int, Field(ge=MIN_SLICES, le=MAX_SLICES)]
PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class DetectorSettings(BaseModel):
    """What stands on the backbone of a detector.

    Args:
        head: `faster-rcnn` in two stages; `retinanet` or `fcos` in one.
        fpn_channels: Channels of the feature pyramid's maps.
        head_width: Outputs of the two fully connected layers of `faster-rcnn`.
        anchor_scale: Edge of an anchor in strides of its map; `fcos` has no anchors.
        anchor_ratios: Height over width of the anchors.
        score_threshold: Boxes with a lower score are left out.
        nms_threshold: Of two boxes of a class that overlap by more than this IoU, the one of the
            lower score is left out.
        max_boxes: Most boxes found in an image.
        box_samples: Proposals of an image that the second stage of `faster-rcnn` learns from; fewer
            make a step shorter, mostly on a CPU.
        train_proposals: Proposals of an image that the first stage of `faster-rcnn` hands on in
            training.
        box_beta: Of `faster-rcnn`: error of a box, in units of its shift, below which the second
            stage's loss is quadratic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Head = "faster-rcnn"
    fpn_channels: PositiveInt = 256
    head_width: PositiveInt = 1024
    anchor_scale: PositiveFloat = 4.0
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    score_threshold: Share = 0.05
    nms_threshold: Share = 0.5
    max_boxes: PositiveInt = 100
    box_samples: PositiveInt = 512
    train_proposals: PositiveInt = 2000
    box_beta: PositiveFloat = 1 / 9


class DetectionSettings(BaseModel):
    """Saved as the settings of a detector's head.

    What is done to the intensities is in the `Preprocessing` saved beside it.

    Args:
        class_names: What its labels mean, counted from 0; the background is none of them.
        num_slices: Slices that it is fed, the key slice in the middle; three of a photograph.
        slice_interval_mm: Distance of these slices; None for photographs.
        image_size: Pixels of an image's shorter edge when it is fed.
        max_image_size: Most pixels of its longer edge; a long image gets a shorter edge below
            `image_size`.
        class_agnostic: Whether all classes of the data were taken as one.
        noisy: What was done with boxes that DeepLesion marks as possibly wrong.
        matching: Overlap that makes a hit when it is judged: over the union of both boxes, or over
            the found box.
        detector: What stands on the backbone.
        seed: Of the run, by which it split its data.
        fractions: Shares of training, validation and test cases, likewise.

    Raises:
        ValueError: If the fields contradict each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    num_slices: NumSlices = 9
    slice_interval_mm: PositiveFloat | None = 2.5
    image_size: PositiveInt = 512
    max_image_size: PositiveInt = 1333
    class_agnostic: bool = False
    noisy: Noisy = "drop"
    matching: Matching = "iou"
    detector: DetectorSettings = DetectorSettings()
    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)

    @model_validator(mode="after")
    def _check_sizes(self) -> "DetectionSettings":
        if self.slice_interval_mm is None and self.num_slices != 3:
            raise ValueError(
                f"num_slices is {self.num_slices} without slice_interval_mm. Give the interval; "
                "only photographs have none, and they have 3 slices."
            )
        if self.max_image_size < self.image_size:
            raise ValueError(
                f"max_image_size is {self.max_image_size}, but image_size {self.image_size}. "
                "The longer edge cannot be below the shorter one."
            )
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes, without background."""
        return len(self.class_names)
