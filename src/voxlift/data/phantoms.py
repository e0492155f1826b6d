"""Simulated CT nodules: smooth against spiculated, in lung-like surroundings.

The two classes differ in the shape of the surface alone. The volume, the attenuation, the vessels,
the noise and the position of a nodule are drawn from the same distributions for both, so that
neither the mean intensity nor the size of the mask gives the answer away.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from pydantic import BaseModel, Field
from scipy import ndimage

from voxlift.core.errors import ConfigError
from voxlift.core.randomness import numpy_generator

SMOOTH, SPICULATED = 0, 1
CLASS_NAMES = ("smooth", "spiculated")

# A voxel's share of the nodule is counted on this many points along each axis.
_SUBVOXELS = 2
_NUM_SPHERE_POINTS = 2048

Range = tuple[float, float]


class NoduleParameters(BaseModel, frozen=True, extra="forbid"):
    """What the simulated nodules and their surroundings are drawn from.

    Pairs are (lowest, highest) of a uniform distribution, if not said otherwise.

    Attributes:
        spacing_mm: Distance of voxel centres along depth, height and width.
        radius_mm: Radius of the ball that has the volume of the nodule; for both classes alike.
        nodule_hu: Mean attenuation of the nodule.
        max_shift_mm: Farthest shift of the nodule from the middle, along each axis.
        num_lobes: Number of broad bulges of the surface, both ends included; for both classes.
        lobe_height: Height of a bulge as a share of the radius.
        num_spicules: Number of spicules of a spiculated nodule, both ends included.
        spicule_height: Length of a spicule beyond the surface, as a share of the radius.
        spicule_sharpness: Concentration of a spicule about its direction (the kappa of a von Mises
            distribution on the sphere): 60 is a cone of about 7 degrees to either side.
        lung_hu: Mean attenuation of the lung.
        texture_hu: Standard deviation of the slow changes of the lung.
        texture_mm: Extent of these changes (the sigma of a Gaussian).
        num_vessels: Number of bent tubes that cross the volume, both ends included.
        vessel_radius_mm: Radius of a tube.
        vessel_hu: Attenuation of a tube.
        vessel_bend: Greatest bend, as a share of the length of the volume.
        blur_mm: Point spread of the scanner (the sigma of a Gaussian); 0 for none.
        noise_hu: Standard deviation of the noise.
    """

    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    radius_mm: Range = (4.0, 7.0)
    nodule_hu: Range = (-120.0, 80.0)
    max_shift_mm: float = Field(default=2.0, ge=0)
    num_lobes: tuple[int, int] = (2, 5)
    lobe_height: Range = (0.05, 0.25)
    num_spicules: tuple[int, int] = (10, 20)
    spicule_height: Range = (0.4, 0.9)
    spicule_sharpness: Range = (40.0, 90.0)
    lung_hu: Range = (-880.0, -800.0)
    texture_hu: float = Field(default=35.0, ge=0)
    texture_mm: float = Field(default=3.0, ge=0)
    num_vessels: tuple[int, int] = (1, 4)
    vessel_radius_mm: Range = (0.8, 1.8)
    vessel_hu: Range = (-100.0, 60.0)
    vessel_bend: float = Field(default=0.3, ge=0)
    blur_mm: float = Field(default=0.5, ge=0)
    noise_hu: float = Field(default=40.0, ge=0)


@dataclass(frozen=True)
class Phantom:
    """One simulated nodule.

    Attributes:
        array: Attenuation in HU, (depth, height, width).
        mask: The voxels of the nodule; as many as the nodule's volume makes up.
        label: 0 for smooth, 1 for spiculated.
    """

    array: Float32[np.ndarray, "depth height width"]
    mask: Bool[np.ndarray, "depth height width"]
    label: int


class NoduleSet(NamedTuple):
    """Simulated nodules, stacked."""

    volumes: Float32[np.ndarray, "count depth height width"]
    masks: Bool[np.ndarray, "count depth height width"]
    labels: Int64[np.ndarray, " count"]


def nodule_phantom(
    *,
    label: int,
    size_voxels: tuple[int, int, int] = (32, 32, 32),
    seed: int,
    parameters: NoduleParameters | None = None,
) -> Phantom:
    """Simulate one nodule in HU.

    Args:
        label: 0 for a smooth nodule, 1 for a spiculated one.
        size_voxels: Size of the volume.
        seed: The same seed gives the same phantom. Seed and label together choose it.
        parameters: What is drawn from; None for the defaults.

    Raises:
        ConfigError: If the label is neither 0 nor 1, or a nodule would not fit into the volume.
    """
    if label not in (SMOOTH, SPICULATED):
        raise ConfigError(f"label is {label!r}; expected 0 (smooth) or 1 (spiculated).")
    parameters = parameters or NoduleParameters()
    _check_fit(size_voxels, parameters)
    generator = numpy_generator(seed, "nodule", label)

    array = _lung(size_voxels, parameters, generator)
    for _ in range(_draw_count(parameters.num_vessels, generator)):
        _add_vessel(array, parameters, generator)
    share = _nodule_share(label, size_voxels, parameters, generator)
    array += share * (generator.uniform(*parameters.nodule_hu) - array)
    if parameters.blur_mm:
        array = ndimage.gaussian_filter(
            array, [parameters.blur_mm / step for step in parameters.spacing_mm], mode="nearest"
        )
    array += parameters.noise_hu * generator.standard_normal(size_voxels, dtype=np.float32)
    return Phantom(array=array.astype(np.float32, copy=False), mask=_mask(share), label=label)


def nodule_set(
    count: int,
    *,
    seed: int,
    size_voxels: tuple[int, int, int] = (32, 32, 32),
    parameters: NoduleParameters | None = None,
) -> NoduleSet:
    """Simulate nodules, half of them spiculated, in random order.

    Args:
        count: Number of nodules. One more is smooth if it is odd.
        seed: The same seed gives the same nodules; different seeds give unrelated ones.
        size_voxels: Size of each volume.
        parameters: What is drawn from; None for the defaults.

    Raises:
        ConfigError: If there is nothing to simulate, or a nodule would not fit into the volume.
    """
    if count < 1:
        raise ConfigError(f"count is {count}; at least one nodule is needed.")
    labels = numpy_generator(seed, "nodule-labels").permutation(np.arange(count) % 2)
    seeds = numpy_generator(seed, "nodule-seeds").integers(2**62, size=count)
    phantoms = [
        nodule_phantom(
            label=int(label), size_voxels=size_voxels, seed=int(one), parameters=parameters
        )
        for label, one in zip(labels, seeds, strict=True)
    ]
    return NoduleSet(
        volumes=np.stack([phantom.array for phantom in phantoms]),
        masks=np.stack([phantom.mask for phantom in phantoms]),
        labels=labels.astype(np.int64),
    )


@dataclass(frozen=True)
class _Surface:
    """A star-shaped surface: its distance from the centre along each direction."""

    directions: Float64[np.ndarray, "bumps 3"]
    heights: Float64[np.ndarray, " bumps"]
    sharpness: Float64[np.ndarray, " bumps"]

    def relative_radius(
        self, directions: Float32[np.ndarray, "points 3"]
    ) -> Float32[np.ndarray, " points"]:
        cosine = directions @ self.directions.T.astype(np.float32)
        bumps = np.exp((cosine - 1.0) * self.sharpness.astype(np.float32))
        return np.asarray(1.0 + bumps @ self.heights.astype(np.float32), dtype=np.float32)


def _nodule_share(
    label: int,
    size_voxels: tuple[int, int, int],
    parameters: NoduleParameters,
    generator: np.random.Generator,
) -> Float32[np.ndarray, "depth height width"]:
    """Draw a nodule and return each voxel's share of it, from 0 to 1."""
    surface = _draw_surface(label, parameters, generator)
    # The ball's radius is that of the volume wanted; the bumps add to it, so the whole shrinks.
    sphere = surface.relative_radius(_sphere_points(_NUM_SPHERE_POINTS))
    scale = generator.uniform(*parameters.radius_mm) / np.cbrt(np.mean(sphere**3, dtype=np.float64))
    centre = generator.uniform(-parameters.max_shift_mm, parameters.max_shift_mm, size=3)

    fine = tuple(_SUBVOXELS * size for size in size_voxels)
    axes = [
        ((np.arange(number) + 0.5) / _SUBVOXELS - size / 2) * step - shift
        for number, size, step, shift in zip(
            fine, size_voxels, parameters.spacing_mm, centre, strict=True
        )
    ]
    reach = scale * float(sphere.max()) * 1.05
    inside = [np.flatnonzero(np.abs(axis) <= reach) for axis in axes]
    box = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in inside)
    grid = np.meshgrid(*(axis[part] for axis, part in zip(axes, box, strict=True)), indexing="ij")
    points = np.stack(grid, axis=-1).astype(np.float32).reshape(-1, 3)
    radius = np.linalg.norm(points, axis=1) + np.float32(1e-6)
    within = radius <= scale * surface.relative_radius(points / radius[:, None])

    subvoxels = np.zeros(fine, dtype=np.float32)
    subvoxels[box] = within.reshape(grid[0].shape)
    depth, height, width = size_voxels
    blocks = subvoxels.reshape(depth, _SUBVOXELS, height, _SUBVOXELS, width, _SUBVOXELS)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), dtype=np.float32)


def _draw_surface(
    label: int, parameters: NoduleParameters, generator: np.random.Generator
) -> _Surface:
    num_lobes = _draw_count(parameters.num_lobes, generator)
    heights = [generator.uniform(*parameters.lobe_height, size=num_lobes)]
    sharpness = [np.full(num_lobes, 3.0)]
    if label == SPICULATED:
        num_spicules = _draw_count(parameters.num_spicules, generator)
        heights.append(generator.uniform(*parameters.spicule_height, size=num_spicules))
        sharpness.append(generator.uniform(*parameters.spicule_sharpness, size=num_spicules))
    directions = generator.standard_normal((sum(len(part) for part in heights), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return _Surface(directions, np.concatenate(heights), np.concatenate(sharpness))


def _sphere_points(count: int) -> Float32[np.ndarray, "count 3"]:
    """Spread points evenly over the unit sphere (a Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    angle = index * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    points = np.stack([height, radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points.astype(np.float32)


def _mask(share: Float32[np.ndarray, "d h w"]) -> Bool[np.ndarray, "d h w"]:
    """Mark as many voxels as the nodule's volume makes up, those with the greatest share.

    A threshold would lose thin spicules, and the size of the mask would tell the classes apart.
    """
    count = round(float(share.sum(dtype=np.float64)))
    mask = np.zeros(share.size, dtype=bool)
    mask[np.argsort(-share, axis=None, kind="stable")[:count]] = True
    return mask.reshape(share.shape)


def _lung(
    size_voxels: tuple[int, int, int],
    parameters: NoduleParameters,
    generator: np.random.Generator,
) -> Float32[np.ndarray, "depth height width"]:
    texture = generator.standard_normal(size_voxels, dtype=np.float32)
    if parameters.texture_mm:
        sigma = [parameters.texture_mm / step for step in parameters.spacing_mm]
        texture = ndimage.gaussian_filter(texture, sigma, mode="wrap")
    texture *= parameters.texture_hu / max(float(texture.std()), 1e-6)
    return np.asarray(texture + generator.uniform(*parameters.lung_hu), dtype=np.float32)


def _add_vessel(
    array: Float32[np.ndarray, "depth height width"],
    parameters: NoduleParameters,
    generator: np.random.Generator,
) -> None:
    """Lay a bent tube through the volume, in place."""
    extent = np.array(array.shape) * parameters.spacing_mm
    middle = generator.uniform(-0.4, 0.4, size=3) * extent
    along = generator.standard_normal(3)
    along /= np.linalg.norm(along)
    bend = np.cross(along, generator.standard_normal(3))
    bend *= generator.uniform(0, parameters.vessel_bend) / np.linalg.norm(bend) / extent.max()
    radius = generator.uniform(*parameters.vessel_radius_mm)

    axes = [
        ((np.arange(size) + 0.5 - size / 2) * step - shift).astype(np.float32)
        for size, step, shift in zip(array.shape, parameters.spacing_mm, middle, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    distance = along[0] * z + along[1] * y + along[2] * x
    squared = sum(
        (part - along[axis] * distance - bend[axis] * distance**2) ** 2
        for axis, part in enumerate((z, y, x))
    )
    voxel = float(np.mean(parameters.spacing_mm))
    share = np.clip(0.5 + (radius - np.sqrt(squared)) / voxel, 0, 1).astype(np.float32)
    array += share * (generator.uniform(*parameters.vessel_hu) - array)


def _draw_count(bounds: tuple[int, int], generator: np.random.Generator) -> int:
    return int(generator.integers(bounds[0], bounds[1], endpoint=True))


def _check_fit(size_voxels: tuple[int, int, int], parameters: NoduleParameters) -> None:
    """Refuse a volume so small that the ball of a nodule's volume would be cut."""
    needed = 2 * (parameters.radius_mm[1] + parameters.max_shift_mm)
    for size, step in zip(size_voxels, parameters.spacing_mm, strict=True):
        if size * step < needed:
            smallest = tuple(int(np.ceil(needed / one)) for one in parameters.spacing_mm)
            raise ConfigError(
                f"Nodules of up to {parameters.radius_mm[1]} mm radius do not fit into a volume of "
                f"{size_voxels} voxels of {parameters.spacing_mm} mm. Use at least {smallest} "
                "voxels, or smaller radius_mm and max_shift_mm."
            )
