"""Random changes of a training patch and its mask, by MONAI's transforms."""

import re
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, ConfigDict, Field, model_validator

from voxlift.core.types import AXES, Triple

Axis = Literal["depth", "height", "width"]
Amount = Annotated[float, Field(ge=0)]

_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")
_SIDES: dict[Axis, set[str]] = {
    "depth": {"upper", "lower", "superior", "inferior", "cranial", "caudal", "top", "bottom"},
    "height": {"anterior", "posterior", "ventral", "dorsal", "front", "back"},
    "width": {"left", "right"},
}
"""Words in the names of classes that would change their meaning if an axis were flipped."""


class PatchAugmentation(BaseModel):
    """How training patches may be changed; zero switches a change off.

    Args:
        flip_axes: Axes that are flipped with a chance of one half each; None flips all but those
            along which classes are told apart (width for left and right, height for anterior and
            posterior, depth for upper and lower).
        rotation_degrees: Largest turn about each axis, in degrees; about the depth axis only where
            voxels are at least twice as long along the depth.
        scaling: Smallest and largest factor of the size.
        deform_chance: Chance, 0 to 1, that a patch is turned and scaled at all.
        intensity_scale: Intensities are multiplied by up to this much more or less than 1.
        intensity_shift: Up to this much is added or subtracted, in units of the network's input.
        noise_std: Largest standard deviation of added noise, in units of the network's input.
        intensity_chance: Chance, 0 to 1, of each of the changes of intensity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip_axes: tuple[Axis, ...] | None = None
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    scaling: tuple[float, float] = (0.8, 1.2)
    deform_chance: Annotated[float, Field(ge=0, le=1)] = 0.3
    intensity_scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    intensity_shift: Amount = 0.1
    noise_std: Amount = 0.1
    intensity_chance: Annotated[float, Field(ge=0, le=1)] = 0.3

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.scaling[0] <= self.scaling[1]:
            raise ValueError(
                f"scaling is {self.scaling}; give the smallest factor, above 0, and the largest."
            )
        return self

    @classmethod
    def none(cls) -> "PatchAugmentation":
        """Change nothing."""
        return cls(flip_axes=(), deform_chance=0.0, intensity_chance=0.0)

    def resolved(self, names: tuple[str, ...]) -> "PatchAugmentation":
        """Fill in the axes to flip, from the names of the classes."""
        if self.flip_axes is not None:
            return self
        words = {word.lower() for name in names for word in _WORD.findall(name)}
        if {"l", "r"} <= words:
            words.add("left")
        axes = tuple(axis for axis, sides in _SIDES.items() if not words & sides)
        return self.model_copy(update={"flip_axes": axes})

    def reach(self, size_voxels: Triple) -> Triple:
        """Size of the crop from which a turned and scaled patch of a size is taken."""
        if not self.deform_chance or (not self.rotation_degrees and self.scaling == (1.0, 1.0)):
            return size_voxels
        # A turn brings the corners in; halfway there is enough, the rest repeats the border.
        wider = max(self.scaling[1], 1 / self.scaling[0]) + 0.1 * bool(self.rotation_degrees)
        # As much on both sides, so that a patch that is left as it is lies on whole voxels.
        depth, height, width = (
            length + 2 * int(np.ceil(length * (wider - 1) / 2)) for length in size_voxels
        )
        return depth, height, width


class PatchTransform:
    """Apply an augmentation; what is drawn follows from the seed given with each patch.

    Args:
        augmentation: How much may be changed, with its axes filled in.
        size_voxels: Size of the patches that come out.
        spacing_mm: Size of a voxel.
    """

    def __init__(
        self,
        augmentation: PatchAugmentation,
        *,
        size_voxels: Triple,
        spacing_mm: tuple[float, float, float],
    ) -> None:
        from monai import transforms

        angle = float(np.deg2rad(augmentation.rotation_degrees))
        flat = spacing_mm[0] >= 2 * min(spacing_mm[1:])
        low, high = augmentation.scaling
        # MONAI adds 1 to the factor, and its factor is that of the grid: a large one shrinks.
        factors = (1 / high - 1, 1 / low - 1)
        chance, keys = augmentation.intensity_chance, ["image"]
        steps: list[Any] = [
            transforms.RandAffined(
                ["image", "label"],
                spatial_size=size_voxels,
                prob=augmentation.deform_chance,
                rotate_range=[angle, 0.0, 0.0] if flat else [angle] * 3,
                scale_range=[(0.0, 0.0) if flat else factors, factors, factors],
                mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
        ]
        steps += [
            transforms.RandFlipd(["image", "label"], prob=0.5, spatial_axis=AXES.index(axis))
            for axis in augmentation.flip_axes or ()
        ]
        steps += [
            transforms.RandScaleIntensityd(keys, augmentation.intensity_scale, prob=chance),
            transforms.RandShiftIntensityd(keys, augmentation.intensity_shift, prob=chance),
            transforms.RandGaussianNoised(keys, prob=chance, std=augmentation.noise_std),
        ]
        self._steps = transforms.Compose(steps)

    def __call__(
        self,
        image: Float32[np.ndarray, "channels _ _ _"],
        label: UInt8[np.ndarray, "_ _ _"],
        *,
        seed: int,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Change a crop and its mask alike, and cut the patch out of their middle."""
        self._steps.set_random_state(seed=seed % 2**32)
        sample = {"image": torch.from_numpy(image), "label": torch.from_numpy(label)[None]}
        changed: Any = self._steps(sample)
        return (
            np.ascontiguousarray(changed["image"].numpy(), dtype=np.float32),
            np.ascontiguousarray(changed["label"][0].numpy().astype(np.uint8)),
        )
