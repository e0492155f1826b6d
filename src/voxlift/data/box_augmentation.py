"""Resizing, flips and orders of slices, for images and their boxes alike."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor
from torch.nn import functional

from voxlift.core.detection_settings import MAX_SLICES

# The uniform numbers that one image may use, each always for the same choice.
NUM_DRAWS = 4 + MAX_SLICES
_SIZE, _FLIP_X, _FLIP_Y, _FLIP_Z = range(4)

Chance = Annotated[float, Field(ge=0, le=1)]


class BoxAugmentation(BaseModel):
    """Random changes of training images with boxes. The default changes nothing.

    Args:
        image_sizes: Shorter edges in pixels, one of which is drawn for each image; empty takes
            always that of evaluation.
        flip_x: Chance of a left-right flip.
        flip_y: Chance of an upside-down flip.
        flip_slices: Chance of reversing the slices; the key slice stays where it is.
        shuffle_slices: Put the slices in a random order: for photographs, whose slices are colours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_sizes: tuple[PositiveInt, ...] = ()
    flip_x: Chance = 0.0
    flip_y: Chance = 0.0
    flip_slices: Chance = 0.0
    shuffle_slices: bool = False

    @classmethod
    def for_photographs(cls, *, image_sizes: tuple[int, ...] = ()) -> "BoxAugmentation":
        """Flip photographs left to right and shuffle their slices, as the paper does."""
        return cls(image_sizes=image_sizes, flip_x=0.5, shuffle_slices=True)

    @classmethod
    def for_slices(cls, *, image_sizes: tuple[int, ...] = ()) -> "BoxAugmentation":
        """Flip CT along each axis."""
        # Differs from the paper: it flips along x and z only; lesions have no upside either.
        return cls(image_sizes=image_sizes, flip_x=0.5, flip_y=0.5, flip_slices=0.5)


@dataclass(frozen=True)
class BoxChange:
    """One draw of an augmentation, ready to be applied.

    Attributes:
        size: Height and width of the changed image.
        flip_x: Whether it is flipped left to right.
        flip_y: Whether it is flipped upside down.
        flip_slices: Whether the slices are reversed.
        order: Which slice comes where; None for the order they have.
    """

    size: tuple[int, int]
    flip_x: bool = False
    flip_y: bool = False
    flip_slices: bool = False
    order: tuple[int, ...] | None = None


def resized(size: tuple[int, int], *, image_size: int, max_image_size: int) -> tuple[int, int]:
    """Return the height and width at which the shorter edge is `image_size`.

    Args:
        size: Height and width as stored.
        image_size: Pixels of the shorter edge.
        max_image_size: Most pixels of the longer edge, which makes the shorter one shorter still.
    """
    scale = min(image_size / min(size), max_image_size / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def draw_box_change(
    augmentation: BoxAugmentation,
    draws: npt.NDArray[np.float64],
    *,
    size: tuple[int, int],
    num_slices: int,
    image_size: int,
    max_image_size: int,
) -> BoxChange:
    """Choose one change by uniform numbers.

    Args:
        augmentation: How much may be changed.
        draws: `NUM_DRAWS` numbers from 0 to 1.
        size: Height and width of the image.
        num_slices: Number of its slices.
        image_size: Shorter edge where the augmentation has none.
        max_image_size: As in `resized`.
    """
    sizes = augmentation.image_sizes or (image_size,)
    chosen = sizes[int(draws[_SIZE] * len(sizes))]
    order = None
    if augmentation.shuffle_slices:
        order = tuple(np.argsort(draws[4 : 4 + num_slices], kind="stable").tolist())
    return BoxChange(
        size=resized(size, image_size=chosen, max_image_size=max(chosen, max_image_size)),
        flip_x=bool(draws[_FLIP_X] < augmentation.flip_x),
        flip_y=bool(draws[_FLIP_Y] < augmentation.flip_y),
        flip_slices=bool(draws[_FLIP_Z] < augmentation.flip_slices),
        order=order,
    )


def change_slices(
    slices: Float32[np.ndarray, "slices height width"], change: BoxChange
) -> Float32[Tensor, "slices new_height new_width"]:
    """Apply a change to the pixels. Where an image gets smaller, pixels are averaged."""
    image = torch.from_numpy(np.ascontiguousarray(slices))
    if change.order is not None:
        image = image[list(change.order)]
    flipped = [
        axis
        for axis, is_flipped in enumerate((change.flip_slices, change.flip_y, change.flip_x))
        if is_flipped
    ]
    image = image.flip(flipped) if flipped else image
    if tuple(image.shape[1:]) == change.size:
        return image.contiguous()
    return functional.interpolate(image[None], change.size, mode="bilinear", antialias=True)[0]


def change_boxes(
    boxes: Float32[np.ndarray, "boxes 4"], change: BoxChange, *, size: tuple[int, int]
) -> Float32[np.ndarray, "boxes 4"]:
    """Apply a change to boxes x1, y1, x2, y2 of an image of the given height and width."""
    height, width = size
    x1, y1, x2, y2 = boxes.T
    if change.flip_x:
        x1, x2 = width - x2, width - x1
    if change.flip_y:
        y1, y2 = height - y2, height - y1
    scale = np.array([change.size[1] / width, change.size[0] / height] * 2, dtype=np.float32)
    return np.asarray(np.stack([x1, y1, x2, y2], axis=1) * scale, dtype=np.float32)
