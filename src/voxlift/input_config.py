"""The part of a run's config that says how the network sees an image, a volume or a scan."""

from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from voxlift.core.detection_settings import NumSlices
from voxlift.core.preprocessing import window_bounds

MeanStd = tuple[float, PositiveFloat]


class VolumeConfig(BaseModel):
    """What is done to a volume before the network sees it; None proposes it from the data.

    Args:
        size_voxels: Depth, height and width that each volume is cropped or padded to.
        spacing_mm: Depth, height and width of a voxel in mm that volumes are resampled to; None
            keeps the spacing as stored.
        window: Lowest and highest intensity kept, in the unit of the data (HU for CT).
        mean_std: Mean and standard deviation to normalise by, on the scale of 0 to 255 to which
            intensities are brought; None measures those of the training volumes.
        unit: What the numbers are: HU, 0-255 (8-bit), or raw (MR and the like).
        orientation: `canonical` turns volumes to one patient orientation, `stored` leaves the axes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_voxels: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None
    mean_std: MeanStd | None = None
    unit: Literal["HU", "raw", "0-255"] | None = None
    orientation: Literal["canonical", "stored"] = "canonical"


class ScanConfig(BaseModel):
    """What is done to a scan before the network sees it; None proposes it from the data.

    Args:
        spacing_mm: Depth, height and width of a voxel in mm that scans are resampled to, but for
            those within 2 % of it; None takes the median of the training scans, and 0 leaves an
            axis as each scan has it.
        window: Lowest and highest intensity kept, in the unit of the data (HU for CT).
        window_width_centre: The same as radiologists write it: width and centre, such as 450 25.
        intensity: `window` clips to a window, `percentiles` (0.5 and 99.5) to each scan's own,
            `zscore` takes each scan's mean and deviation, `none` takes the numbers as they are.
        mean_std: Mean and standard deviation to normalise by, on the scale of 0 to 255 to which
            `window` and `percentiles` bring intensities; None measures those of the training scans.
        unit: What the numbers are: HU, 0-255 (8-bit), or raw (MR and the like).
        orientation: `canonical` turns scans to one patient orientation, `stored` leaves the axes.
        patch_voxels: Depth, height and width of the training patches and of the window at
            prediction.
        window_steps: Depth, height and width in voxels from a window to the next, in validation and
            at prediction; None takes the overlap instead.
        max_patch_voxels: Most voxels that a proposed patch may have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing_mm: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] | None = None
    window: tuple[float, float] | None = None
    window_width_centre: tuple[float, float] | None = None
    intensity: Literal["window", "percentiles", "zscore", "none"] | None = None
    mean_std: MeanStd | None = None
    unit: Literal["HU", "raw", "0-255"] | None = None
    orientation: Literal["canonical", "stored"] = "canonical"
    patch_voxels: tuple[int, int, int] | None = None
    window_steps: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    max_patch_voxels: int = Field(default=96**3, ge=1)

    @model_validator(mode="after")
    def _one_window(self) -> Self:
        if self.window and self.window_width_centre:
            raise ValueError("window and window_width_centre say the same; give one of them.")
        bounds = self.bounds
        if bounds and self.intensity not in (None, "window"):
            raise ValueError(f"a window goes with intensity window, not {self.intensity}.")
        if self.mean_std and self.intensity in ("zscore", "none"):
            raise ValueError(f"mean_std goes with a window or percentiles, not {self.intensity}.")
        if bounds and not bounds[0] < bounds[1]:
            raise ValueError(f"the window is {bounds}, but low has to be below high.")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest intensity kept, however they were given."""
        if self.window_width_centre is not None:
            return window_bounds(*self.window_width_centre)
        return self.window


class KeySliceConfig(BaseModel):
    """What is done to an image, or to the slices around a key slice, before the network sees it.

    Args:
        num_slices: Slices fed at once, 3 to 27, the key slice in the middle; None takes 9 of CT.
            Photographs have 3, their colour channels.
        slice_interval_mm: Distance of the slices; those between stored ones are interpolated.
        image_size: Pixels of the shorter edge.
        max_image_size: Most pixels of the longer edge.
        window: Of CT, by name (lesions, lung, mediastinum, abdomen, liver, bone, brain) or by its
            lowest and highest HU.
        mean_std: Mean and standard deviation to normalise by, on the scale of 0 to 255 to which
            the window is brought; None takes those of pre-training, 114.495 and 57.63.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_slices: NumSlices | None = None
    slice_interval_mm: float = Field(default=2.5, gt=0)
    image_size: int = Field(default=512, ge=32)
    max_image_size: int = Field(default=1333, ge=32)
    window: tuple[float, float] | str = "lesions"
    mean_std: MeanStd | None = None
