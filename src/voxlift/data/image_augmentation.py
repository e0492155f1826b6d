"""How photographs are cropped, flipped and recoloured on their way into a batch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, UInt8
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from voxlift.data.images import RgbImage

# The uniform numbers that one image may use, each always for the same choice.
NUM_DRAWS = 12
_AREA, _RATIO, _TOP, _LEFT, _FLIP, _BRIGHTNESS, _CONTRAST, _SATURATION = range(8)
_ERASE, _ERASE_AREA, _ERASE_TOP, _ERASE_LEFT = range(8, NUM_DRAWS)
_ERASE_VALUE = 114

Draws = Float64[np.ndarray, "samples draws"]
ChannelsLast = UInt8[np.ndarray, "batch height width 3"]


class ImageAugmentation(BaseModel):
    """Random changes to training photographs; the defaults are ImageNet's usual ones.

    Args:
        crop: `random-resized` takes a random part (`area`, `ratio`) and scales it to the size
            asked for; `pad` shifts the image by up to `pad_pixels` either way, mirroring it at its
            borders; `none` takes the centre.
        area: Smallest and largest share of the image's area in a crop.
        ratio: Smallest and largest width over height of a crop.
        pad_pixels: Largest shift of `pad`, in pixels of the stored image.
        center_fraction: Share of the shorter side that `none` keeps (0.875: crop 224 out of 256).
        flip_probability: Of a left-right flip.
        brightness: 0.4 means a random factor from 0.6 to 1.4.
        contrast: As brightness, about the image's mean grey.
        saturation: As brightness, about each pixel's grey.
        erase_probability: Of blanking a square of 2 to 33 % of the image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: Literal["random-resized", "pad", "none"] = "random-resized"
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad_pixels: int = Field(default=4, ge=0)
    center_fraction: float = Field(default=1.0, gt=0, le=1)
    flip_probability: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=0.0, ge=0, lt=1)
    contrast: float = Field(default=0.0, ge=0, lt=1)
    saturation: float = Field(default=0.0, ge=0, lt=1)
    erase_probability: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check_ranges(self) -> "ImageAugmentation":
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area is {self.area}; it needs 0 < smallest <= largest <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio is {self.ratio}; it needs 0 < smallest <= largest")
        return self

    @classmethod
    def for_evaluation(cls, *, center_fraction: float = 1.0) -> "ImageAugmentation":
        """Take the centre of each image, and change nothing."""
        return cls(crop="none", center_fraction=center_fraction, flip_probability=0.0)


@dataclass(frozen=True)
class Box:
    """A part of an image, in pixels."""

    top: float
    left: float
    height: float
    width: float


def draft_size(
    augmentation: ImageAugmentation, draws: npt.NDArray[np.float64], size: int
) -> int | None:
    """Tell how short an image's shorter side may be so that its crop need not be enlarged.

    None for `pad`, which counts in pixels of the stored image.
    """
    if augmentation.crop == "pad":
        return None
    share = augmentation.center_fraction
    if augmentation.crop == "random-resized":
        area, ratio = _area_and_ratio(augmentation, draws)
        share = float(np.sqrt(area * min(ratio, 1 / ratio)))
    return int(np.ceil(size / share))


def crop_box(
    augmentation: ImageAugmentation, draws: npt.NDArray[np.float64], height: int, width: int
) -> Box:
    """Choose the part of one image that is kept, for `random-resized` and `none`.

    Differs from torchvision: a crop that does not fit is cut to fit, not drawn again.
    """
    if augmentation.crop == "none":
        side = min(height, width) * augmentation.center_fraction
        return Box((height - side) / 2, (width - side) / 2, side, side)
    area, ratio = _area_and_ratio(augmentation, draws)
    crop_height = min(np.sqrt(area * height * width / ratio), height)
    crop_width = min(np.sqrt(area * height * width * ratio), width)
    smallest, largest = augmentation.ratio
    crop_height = min(crop_height, crop_width / smallest)
    crop_width = min(crop_width, crop_height * largest)
    top = draws[_TOP] * (height - crop_height)
    left = draws[_LEFT] * (width - crop_width)
    return Box(float(top), float(left), float(crop_height), float(crop_width))


def _area_and_ratio(
    augmentation: ImageAugmentation, draws: npt.NDArray[np.float64]
) -> tuple[float, float]:
    smallest, largest = augmentation.area
    narrow, wide = np.log(augmentation.ratio)
    area = smallest + draws[_AREA] * (largest - smallest)
    return float(area), float(np.exp(narrow + draws[_RATIO] * (wide - narrow)))


def shift_indices(
    augmentation: ImageAugmentation, draws: Draws, height: int, width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the row and the column of its image that each pixel of a shifted one shows.

    Shape:
        `(samples, height)` and `(samples, width)`.
    """
    pad = augmentation.pad_pixels if augmentation.crop == "pad" else 0
    shifts = np.floor(draws[:, [_TOP, _LEFT]] * (2 * pad + 1)).astype(np.int64) - pad
    rows = _mirror(np.arange(height)[None, :] + shifts[:, :1], height)
    columns = _mirror(np.arange(width)[None, :] + shifts[:, 1:], width)
    return rows, columns


def _mirror(positions: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Reflect positions at the first and the last pixel, without repeating these."""
    period = max(2 * (length - 1), 1)
    positions = np.abs(positions) % period
    return np.minimum(positions, period - positions) if length > 1 else positions * 0


def flips(augmentation: ImageAugmentation, draws: Draws) -> npt.NDArray[np.bool_]:
    """Tell which images are flipped left to right."""
    flipped: npt.NDArray[np.bool_] = draws[:, _FLIP] < augmentation.flip_probability
    return flipped


def resize_crop(image: RgbImage, box: Box, size: int) -> RgbImage:
    """Scale a part of an image to `size` x `size` pixels, averaging over what is left out."""
    height, width = image.shape[:2]
    if (box.top, box.left, box.height, box.width) == (0, 0, height, width) == (0, 0, size, size):
        return image
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    scaled = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=corners)
    return np.asarray(scaled)


def recolour(images: ChannelsLast, augmentation: ImageAugmentation, draws: Draws) -> ChannelsLast:
    """Change brightness, contrast and saturation, and blank squares, as `augmentation` says."""
    strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    if any(strengths):
        factors = 1 + (2 * draws[:, [_BRIGHTNESS, _CONTRAST, _SATURATION]] - 1) * strengths
        images = np.stack([_recolour_one(*pair) for pair in zip(images, factors, strict=True)])
    if augmentation.erase_probability:
        images = images.copy()
        for image, numbers in zip(images, draws, strict=True):
            if numbers[_ERASE] < augmentation.erase_probability:
                _blank_square(image, numbers)
    return images


def _recolour_one(image: RgbImage, factors: npt.NDArray[np.float64]) -> RgbImage:
    brightness, contrast, saturation = factors.astype(np.float32)
    values = image.astype(np.float32) * brightness
    grey = values @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    mean = grey.mean()
    values = mean + contrast * (values - mean)
    grey = (mean + contrast * (grey - mean))[..., None]
    values = grey + saturation * (values - grey)
    recoloured: RgbImage = np.rint(values.clip(0, 255)).astype(np.uint8)
    return recoloured


def _blank_square(image: RgbImage, numbers: npt.NDArray[np.float64]) -> None:
    height, width = image.shape[:2]
    share = np.sqrt(0.02 + numbers[_ERASE_AREA] * 0.31)
    side_h, side_w = round(share * height), round(share * width)
    top = int(numbers[_ERASE_TOP] * (height - side_h + 1))
    left = int(numbers[_ERASE_LEFT] * (width - side_w + 1))
    image[top : top + side_h, left : left + side_w] = _ERASE_VALUE
