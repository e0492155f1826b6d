"""Random changes of volumes: parameters drawn from a passed generator, then applied."""

from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64
from pydantic import BaseModel, Field, NonNegativeInt, model_validator
from scipy import ndimage

from voxlift.core.types import AXES, Triple

Channels = Float32[np.ndarray, "channels _ _ _"]
Axis = Literal["depth", "height", "width"]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class VolumeAugmentation(BaseModel, frozen=True, extra="forbid"):
    """How much volumes are changed at random in training. The default changes nothing.

    Attributes:
        shift_voxels: Farthest shift of the crop along each axis. What lies beyond the crop is
            brought in; only where the volume ends there is padding.
        rotation: `quarter-turns` by multiples of 90 degrees about any axis, among axes of equal
            length (exact; for voxels that are as deep as wide); `in-plane` by an angle about the
            depth axis; `free` by an angle about any direction (for voxels as deep as wide).
        rotation_degrees: Greatest angle of `in-plane` and `free`.
        flip_axes: Axes that are flipped with a chance of one half each.
        flip_at_most_one: Flip along one of `flip_axes` or none, each as likely.
        intensity_scale: Intensities are multiplied by up to this much more or less than 1.
        intensity_shift: Up to this much is added or subtracted, in units of the network's input.
        noise_std: Standard deviation of added noise, in units of the network's input.

    Raises:
        ValueError: If a rotation lacks its angle, or an angle its rotation.
    """

    shift_voxels: NonNegativeInt = 0
    rotation: Literal["none", "quarter-turns", "in-plane", "free"] = "none"
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    flip_axes: tuple[Axis, ...] = ()
    flip_at_most_one: bool = False
    intensity_scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    intensity_shift: Amount = 0.0
    noise_std: Amount = 0.0

    @model_validator(mode="after")
    def _check_rotation(self) -> "VolumeAugmentation":
        if (self.rotation in ("in-plane", "free")) != (self.rotation_degrees > 0):
            raise ValueError(
                f"rotation is '{self.rotation}' and rotation_degrees is {self.rotation_degrees:g}. "
                "Give an angle above 0 with 'in-plane' or 'free', and only then."
            )
        return self


@dataclass(frozen=True, eq=False)
class VolumeChange:
    """One draw of an augmentation, ready to be applied.

    Attributes:
        shift_voxels: Where the crop lies against the centre.
        axes: Which axis of the crop becomes depth, height and width.
        flipped: Which axes are then flipped.
        rotation: Matrix of a turn that needs interpolation.
        scale: Factor of the intensities.
        offset: What is added to them.
        noise_std: Standard deviation of the noise.
        noise_seed: What the noise is drawn from.
    """

    shift_voxels: Triple
    axes: Triple
    flipped: tuple[bool, bool, bool]
    rotation: Float64[np.ndarray, "3 3"] | None
    scale: float
    offset: float
    noise_std: float
    noise_seed: int


def draw_change(
    augmentation: VolumeAugmentation, *, size_voxels: Triple, generator: np.random.Generator
) -> VolumeChange:
    """Draw the parameters of one change. The same number of draws is made whatever is switched on.

    Args:
        augmentation: How much may be changed.
        size_voxels: Size of the crop, on which quarter turns depend.
        generator: Where the random numbers come from.
    """
    farthest = augmentation.shift_voxels
    shift = generator.integers(-farthest, farthest, size=3, endpoint=True)
    flips = generator.random(3)
    turn = generator.random()
    direction = generator.standard_normal(3)
    angle = generator.uniform(-1.0, 1.0) * np.deg2rad(augmentation.rotation_degrees)
    scale, offset = generator.uniform(-1.0, 1.0, size=2).tolist()
    noise_seed = int(generator.integers(2**63))
    axes, mirrored = (0, 1, 2), (False, False, False)
    if augmentation.rotation == "quarter-turns":
        turns = _quarter_turns(size_voxels)
        axes, mirrored = turns[int(turn * len(turns))]
    rotation = None
    if augmentation.rotation == "in-plane":
        rotation = _rotation_matrix(np.array([1.0, 0.0, 0.0]), angle)
    elif augmentation.rotation == "free":
        rotation = _rotation_matrix(direction, angle)
    to_flip = {name for name, flip in zip(AXES, flips, strict=True) if flip < 0.5}
    if augmentation.flip_at_most_one:
        # One place more than there are axes, for none of them.
        place = int(flips[0] * (len(augmentation.flip_axes) + 1))
        to_flip = set(augmentation.flip_axes[place : place + 1])
    flipped = [
        mirror != (name in to_flip & set(augmentation.flip_axes))
        for name, mirror in zip(AXES, mirrored, strict=True)
    ]
    return VolumeChange(
        shift_voxels=(int(shift[0]), int(shift[1]), int(shift[2])),
        axes=axes,
        flipped=(flipped[0], flipped[1], flipped[2]),
        rotation=rotation,
        scale=1.0 + scale * augmentation.intensity_scale,
        offset=offset * augmentation.intensity_shift,
        noise_std=augmentation.noise_std,
        noise_seed=noise_seed,
    )


def apply_change(volume: Channels, change: VolumeChange, *, margin_voxels: int) -> Channels:
    """Apply a change to a volume that was read with a margin, and crop the margin.

    Shape:
        Each axis becomes shorter by twice the margin.
    """
    depth, height, width = (length - 2 * margin_voxels for length in volume.shape[1:])
    size = (depth, height, width)
    if change.rotation is None:
        crop = _shifted_crop(volume, size, change.shift_voxels, margin_voxels)
    else:
        crop = _rotated_crop(volume, size, change.shift_voxels, change.rotation)
    crop = crop.transpose(0, *(axis + 1 for axis in change.axes))
    crop = np.flip(crop, tuple(axis + 1 for axis in range(3) if change.flipped[axis]))
    changed: Channels = crop * np.float32(change.scale) + np.float32(change.offset)
    if change.noise_std > 0:
        noise = np.random.default_rng(change.noise_seed).standard_normal(
            changed.shape, dtype=np.float32
        )
        changed += np.float32(change.noise_std) * noise
    return np.ascontiguousarray(changed)


@cache
def _quarter_turns(size: Triple) -> tuple[tuple[Triple, tuple[bool, bool, bool]], ...]:
    """List the turns by multiples of 90 degrees that leave the size as it is.

    A permutation of the axes followed by flips is a turn if it does not mirror: if it is even with
    an even number of flips, or odd with an odd number.
    """
    turns = []
    for d, h, w in permutations(range(3)):
        if (size[d], size[h], size[w]) != size:
            continue
        odd = ((d > h) + (d > w) + (h > w)) % 2 == 1
        for flips in product((False, True), repeat=3):
            if (sum(flips) % 2 == 1) == odd:
                turns.append(((d, h, w), (flips[0], flips[1], flips[2])))
    return tuple(turns)


def _rotation_matrix(
    direction: npt.NDArray[np.float64], angle: float
) -> Float64[np.ndarray, "3 3"]:
    """Turn about a direction (Rodrigues' formula)."""
    x, y, z = direction / np.linalg.norm(direction)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix: Float64[np.ndarray, "3 3"] = (
        np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    )
    return matrix


def _shifted_crop(volume: Channels, size: Triple, shift: Triple, margin_voxels: int) -> Channels:
    starts = [margin_voxels + step for step in shift]
    assert min(starts) >= 0, "the margin is at least the farthest shift"
    return volume[
        :,
        starts[0] : starts[0] + size[0],
        starts[1] : starts[1] + size[1],
        starts[2] : starts[2] + size[2],
    ]


def _rotated_crop(
    volume: Channels, size: Triple, shift: Triple, rotation: Float64[np.ndarray, "3 3"]
) -> Channels:
    """Sample the turned and shifted crop at once; beyond the volume its border is repeated."""
    centre_out = (np.array(size) - 1) / 2
    centre_in = (np.array(volume.shape[1:]) - 1) / 2 + np.array(shift)
    offset = centre_in - rotation @ centre_out
    channels = [
        ndimage.affine_transform(
            channel, rotation, offset, output_shape=size, order=1, mode="nearest"
        )
        for channel in volume
    ]
    return np.stack(channels).astype(np.float32, copy=False)
