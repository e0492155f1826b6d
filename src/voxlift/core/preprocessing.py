"""What is done to a volume before a network sees it: saved with every model, applied again."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, model_validator

from voxlift.core.types import Triple

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
NonNegativeFloat = Annotated[FiniteFloat, Field(ge=0)]

PHOTOGRAPH_MEAN = 114.495
PHOTOGRAPH_STD = 57.63


def window_bounds(width: float, centre: float) -> tuple[float, float]:
    """Turn a window as radiologists write it into its lowest and highest value.

    Args:
        width: Such as 450 HU for the liver.
        centre: Such as 25 HU.

    Raises:
        ValueError: If the width is not positive.
    """
    if not width > 0:
        raise ValueError(f"A window's width is {width}, but has to be positive.")
    return centre - width / 2, centre + width / 2


class Preprocessing(BaseModel):
    """The contract between the volumes that trained a network and those it is asked about.

    The steps are taken in the order of the fields: orient, resample, bring the intensities into
    range, subtract `mean` and divide by `std`, crop or pad to `size_voxels`.

    Attributes:
        orientation: `canonical` turns volumes of known direction to one fixed patient orientation
            before anything else, so that the axis order of the file does not matter; `stored`
            takes the axes as the file has them.
        spacing_mm: Resample to this voxel size (depth, height, width); None leaves it as stored,
            and 0 leaves an axis so.
        intensity: `window` clips to `window` and scales it to 0..1; `percentiles` does so with
            bounds taken from each channel of each volume; `zscore` subtracts the channel's mean
            and divides by its standard deviation; `none` takes the numbers as they are.
        window: Lowest and highest intensity kept, in `unit`.
        percentiles: Percentiles (0 to 100) of each volume that become 0 and 1.
        unit: What the numbers were at training: Hounsfield units, 8-bit grey values, or neither.
        mean: Subtracted after the intensity step.
        std: Divided by after that.
        size_voxels: What the network is fed (depth, height, width), cropped or padded about the
            centre; None takes each volume in its own size.
        in_channels: Channels that the network is fed.

    Raises:
        ValueError: If the fields contradict each other, such as `window` without its bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    orientation: Literal["canonical", "stored"] = "canonical"
    spacing_mm: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] | None = None
    intensity: Literal["window", "percentiles", "zscore", "none"] = "none"
    window: tuple[FiniteFloat, FiniteFloat] | None = None
    percentiles: tuple[FiniteFloat, FiniteFloat] | None = None
    unit: Literal["HU", "raw", "0-255"] = "raw"
    mean: FiniteFloat = 0.0
    std: PositiveFloat = 1.0
    size_voxels: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    in_channels: PositiveInt = 1

    @model_validator(mode="after")
    def _check_intensity(self) -> "Preprocessing":
        for name in ("window", "percentiles"):
            bounds = getattr(self, name)
            if (bounds is not None) != (self.intensity == name):
                raise ValueError(
                    f"intensity is '{self.intensity}' and {name} is {bounds}. "
                    f"Give {name}=(low, high) with intensity='{name}', and only then."
                )
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(f"{name} is {bounds}, but low has to be below high.")
        if self.percentiles and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles are {self.percentiles}, but they run from 0 to 100.")
        return self

    def spacing_for(self, stored_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Give the voxel size to which a volume of another is brought."""
        depth, height, width = (
            mm or stored for mm, stored in zip(self.spacing_mm or (0, 0, 0), stored_mm, strict=True)
        )
        return depth, height, width

    @classmethod
    def for_photographs(cls, size: int) -> "Preprocessing":
        """Describe lifted photographs: three slices of 8-bit values with one mean and std for all.

        Args:
            size: Height and width in pixels.

        Source:
            The paper's ImageNet recipe, arXiv 2201.01426.
        """
        return cls(
            orientation="stored",
            unit="0-255",
            mean=PHOTOGRAPH_MEAN,
            std=PHOTOGRAPH_STD,
            size_voxels=(3, size, size),
        )

    def describe(self) -> str:
        """Say in one line what is done, in the order in which it is done."""
        steps = []
        if self.orientation == "canonical":
            steps.append("turned to the canonical orientation")
        if self.spacing_mm is not None:
            sides = [f"{mm:g}" if mm else "stored" for mm in self.spacing_mm]
            steps.append(f"resampled to {' x '.join(sides)} mm")
        if self.window is not None:
            steps.append(f"{self.window[0]:g} to {self.window[1]:g} {self.unit} scaled to 0..1")
        elif self.percentiles is not None:
            low, high = self.percentiles
            steps.append(f"percentiles {low:g} to {high:g} scaled to 0..1")
        elif self.intensity == "zscore":
            steps.append("each channel's mean subtracted, divided by its standard deviation")
        if (self.mean, self.std) != (0.0, 1.0):
            steps.append(f"mean {self.mean:g} subtracted, divided by std {self.std:g}")
        if self.size_voxels is not None:
            steps.append(f"cropped or padded to {_triple(self.size_voxels)} voxels")
        return f"{self.unit} values, {self.in_channels} channel(s): " + (
            "; ".join(steps) or "as they are"
        )


def _triple(values: tuple[float, float, float] | Triple) -> str:
    return " x ".join(f"{value:g}" for value in values)
