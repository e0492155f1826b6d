"""Simulated CT about key slices, with lesions that only their neighbouring slices give away.

In one slice a vessel that runs through it is a round spot, and so is a lesion: size, attenuation
and edge are drawn alike. From slice to slice the vessel goes on, and the lesion ends.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from pydantic import BaseModel, Field

from voxlift.core.errors import ConfigError

Range = tuple[float, float]
Plane = npt.NDArray[np.float32]

_AIR_HU, _FAT_HU, _MUSCLE_HU, _BONE_HU = -1000.0, -100.0, 55.0, 500.0
# The body and what is within its wall, as shares of half the image.
_BODY, _WALL, _INSIDE = 0.95, 0.88, 0.78
# Height of the body over its width, where images are square.
_OVAL = (0.8, 1.0)
_NUM_RIBS = 9
_TEXTURE_STEP_MM = 6.0
# Thick slices are a mean over so many thin ones.
_NUM_THIN, _THICK_MM = 3, 2.0
_NUM_TRIALS = 200
# Vessels whose direction has less of the slices' normal than this may cross a whole slice.
_STEEP = 0.5


class Surroundings(NamedTuple):
    """What lesions lie in.

    Attributes:
        lesion_type: DeepLesion's name of it.
        tissue_hu: Attenuation of the tissue.
        lesion_hu: Attenuation of lesions and vessels.
        window_hu: The window that it is looked at in.
    """

    lesion_type: str
    tissue_hu: Range
    lesion_hu: Range
    window_hu: Range


SURROUNDINGS = (
    Surroundings("lung", (-880.0, -780.0), (-250.0, 80.0), (-1500.0, 500.0)),
    Surroundings("liver", (85.0, 125.0), (15.0, 55.0), (-175.0, 275.0)),
    Surroundings("mediastinum", (-115.0, -85.0), (10.0, 70.0), (-175.0, 275.0)),
)


class LesionParameters(BaseModel, frozen=True, extra="forbid"):
    """What simulated lesions and vessels are drawn from.

    Pairs are (lowest, highest) of a uniform distribution, if not said otherwise.

    Attributes:
        radius_mm: Mean radius of a lesion, and of the vessels that run through the slices.
        flatness: Shorter over longer radius of a lesion within the slice.
        depth_ratio: Radius of a lesion across the slices over that within.
        num_lesions: Chances of 1, 2, ... lesions in a key slice.
        num_through: Number of vessels that run through the slices, both ends included.
        tilt_degrees: Angle between such a vessel and the normal of the slices.
        num_along: Number of thin vessels that run along the slices, both ends included.
        along_radius_mm: Radius of these.
        bend: Greatest bend of a vessel, as its shift in mm where it is 10 mm long.
        texture_hu: Standard deviation of the slow changes of the tissue.
        noise_hu: Standard deviation of the noise.
        box_margin: Beyond the lesion's edge on each side, as a share of the image's width;
            DeepLesion has 5 pixels of 512.
    """

    radius_mm: Range = (4.0, 9.0)
    flatness: Range = (0.75, 1.0)
    depth_ratio: Range = (0.8, 1.1)
    num_lesions: tuple[float, ...] = (0.8, 0.2)
    num_through: tuple[int, int] = (3, 6)
    tilt_degrees: Range = (0.0, 40.0)
    num_along: tuple[int, int] = (1, 3)
    along_radius_mm: Range = (1.0, 2.5)
    bend: float = Field(default=2.0, ge=0)
    texture_hu: float = Field(default=12.0, ge=0)
    noise_hu: float = Field(default=20.0, ge=0)
    box_margin: float = Field(default=5 / 512, ge=0)


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid with two axes within the slice. Millimetres, from the centre of the key slice.

    Attributes:
        centre: Depth, height, width.
        radii: Across the slices, then along the two axes within.
        angle: Of the first axis within the slice, in radians from the width axis.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    angle: float

    def section(self, depth: float) -> tuple[float, float]:
        """Return the radii of its section at a depth; 0 where there is none."""
        share = max(0.0, 1 - ((depth - self.centre[0]) / self.radii[0]) ** 2) ** 0.5
        return share * self.radii[1], share * self.radii[2]

    def extent(self, depth: float) -> tuple[float, float]:
        """Return half the height and half the width of the box about its section."""
        one, other = self.section(depth)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return float(np.hypot(one * sin, other * cos)), float(np.hypot(one * cos, other * sin))

    def place(self, depths: list[float]) -> tuple[tuple[float, float], float]:
        """Return where its sections lie at most so far from."""
        del depths
        return self.centre[1:], max(self.radii[1:])

    def depth_within(self, depth: float, grid: tuple[Plane, Plane]) -> Plane | None:
        """Return about how far within its surface each pixel lies; None if it has no section."""
        one, other = self.section(depth)
        if one == 0:
            return None
        v, u = grid[0] - np.float32(self.centre[1]), grid[1] - np.float32(self.centre[2])
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        relative = np.hypot(
            (cos * u + sin * v) / np.float32(one), (cos * v - sin * u) / np.float32(other)
        )
        return (1 - relative) * np.float32((one * other) ** 0.5)


@dataclass(frozen=True)
class _Vessel:
    """A bent tube: `middle` + way x `along` + way^2 x `bend`."""

    middle: npt.NDArray[np.float64]
    along: npt.NDArray[np.float64]
    bend: npt.NDArray[np.float64]
    radius: float

    def place(self, depths: list[float]) -> tuple[tuple[float, float], float]:
        """Return where its sections lie at most so far from."""
        if abs(self.along[0]) < _STEEP:
            return (self.middle[1], self.middle[2]), np.inf
        ways = (np.array([[min(depths)], [max(depths)]]) - self.middle[0]) / self.along[0]
        ends = self.middle + ways * self.along
        y, x = ends.mean(axis=0)[1:].tolist()
        far = np.ptp(ends, axis=0).max() + self.radius / self.along[0]
        # The bend moves a section, and where it leans over makes it longer.
        reach = (np.abs(ways).max() + 2 * self.radius) ** 2 * np.linalg.norm(self.bend)
        return (y, x), float(far + 3 * reach)

    def depth_within(self, depth: float, grid: tuple[Plane, Plane]) -> Plane | None:
        """Return about how far within its surface each pixel lies."""
        middle, along, bend = (
            part.astype(np.float32) for part in (self.middle, self.along, self.bend)
        )
        parts = (np.float32(depth) - middle[0], grid[0] - middle[1], grid[1] - middle[2])
        way = along[0] * parts[0] + along[1] * parts[1] + along[2] * parts[2]
        bent = way * way
        squared = [
            np.square(part - along[axis] * way - bend[axis] * bent)
            for axis, part in enumerate(parts)
        ]
        far = np.sqrt(squared[0] + squared[1] + squared[2])
        return np.asarray(np.float32(self.radius) - far, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class SimulatedSlices:
    """Slices about a key slice, at depth 0.

    Attributes:
        array: Attenuation in HU.
        lesions: What is to be found in the key slice.
        surroundings: What they lie in.
    """

    array: Float32[np.ndarray, "slices height width"]
    lesions: tuple[Lesion, ...]
    surroundings: Surroundings


def simulate_slices(
    depths_mm: npt.NDArray[np.float64],
    *,
    size: tuple[int, int],
    spacing_mm: float,
    thickness_mm: float,
    generator: np.random.Generator,
    parameters: LesionParameters | None = None,
) -> SimulatedSlices:
    """Simulate some slices of a body with lesions about depth 0.

    Args:
        depths_mm: Where the slices lie; the key slice is at 0.
        size: Height and width in pixels.
        spacing_mm: Edge of a pixel.
        thickness_mm: Thickness of a slice.
        generator: What everything is drawn from.
        parameters: What it is drawn from; None for the defaults.

    Raises:
        ConfigError: If the lesions do not fit into the image.
    """
    parameters = parameters or LesionParameters()
    half = np.array(size) * spacing_mm / 2
    if half.min() * _INSIDE < 4 * parameters.radius_mm[1]:
        raise ConfigError(
            f"Lesions of up to {parameters.radius_mm[1]} mm radius do not fit into images of "
            f"{size} pixels of {spacing_mm:g} mm. Use larger images, or a smaller radius_mm."
        )
    half[0] *= generator.uniform(*_OVAL)
    surroundings = SURROUNDINGS[generator.integers(len(SURROUNDINGS))]
    lesions, vessels = _draw_structures(half, parameters, generator)
    structures: list[Lesion | _Vessel] = [*vessels, *lesions]
    hu_of = generator.uniform(*surroundings.lesion_hu, size=len(structures))
    y, x = (
        ((np.arange(count) + 0.5 - count / 2) * spacing_mm).astype(np.float32) for count in size
    )
    grid = (y[:, None], x[None, :])
    outside, share_inside = _draw_wall(half, grid, spacing_mm, generator)
    tissue = generator.uniform(*surroundings.tissue_hu)
    texture = _Texture(depths_mm, half, grid, parameters.texture_hu, generator)
    thin = (
        (np.arange(_NUM_THIN) + 0.5) / _NUM_THIN - 0.5 if thickness_mm >= _THICK_MM else np.zeros(1)
    ) * thickness_mm
    array = np.empty((len(depths_mm), *size), dtype=np.float32)
    for number, depth in enumerate(depths_mm.tolist()):
        inside = tissue + texture.at(depth)
        for hu, structure in zip(hu_of.tolist(), structures, strict=True):
            _add(inside, structure, hu, (depth + thin).tolist(), grid, spacing_mm)
        array[number] = outside + share_inside * (inside - outside)
    array += parameters.noise_hu * generator.standard_normal(array.shape, dtype=np.float32)
    return SimulatedSlices(array, lesions, surroundings)


def _draw_structures(
    half: npt.NDArray[np.float64], parameters: LesionParameters, generator: np.random.Generator
) -> tuple[tuple[Lesion, ...], tuple[_Vessel, ...]]:
    """Draw lesions and vessels that do not touch each other in the key slice."""
    chances = np.array(parameters.num_lesions)
    num_lesions = 1 + int(generator.choice(len(chances), p=chances / chances.sum()))
    num_through = int(generator.integers(*parameters.num_through, endpoint=True))
    taken: list[tuple[float, float, float]] = []
    lesions: list[Lesion] = []
    vessels: list[_Vessel] = []
    for number in range(num_lesions + num_through):
        radius = generator.uniform(*parameters.radius_mm)
        place = _free_place(half, radius, taken, generator)
        if place is None:
            continue
        taken.append((*place, radius))
        if number < num_lesions:
            flat = generator.uniform(*parameters.flatness)
            radii = (radius / np.sqrt(flat), radius * np.sqrt(flat))
            deep = radius * generator.uniform(*parameters.depth_ratio)
            depth = generator.uniform(-0.2, 0.2) * deep
            angle = generator.uniform(0, np.pi)
            lesions.append(Lesion((depth, *place), (deep, *radii), angle))
        else:
            tilt = np.deg2rad(generator.uniform(*parameters.tilt_degrees))
            angle = generator.uniform(0, 2 * np.pi)
            along = np.array(
                [np.cos(tilt), np.sin(tilt) * np.sin(angle), np.sin(tilt) * np.cos(angle)]
            )
            # Its section is longer than its radius, as a lesion's is; alike on average.
            slim = radius * np.sqrt(np.cos(tilt))
            vessels.append(_vessel(np.array([0.0, *place]), along, slim, parameters, generator))
    for _ in range(int(generator.integers(*parameters.num_along, endpoint=True))):
        angle = generator.uniform(0, np.pi)
        along = np.array([generator.uniform(-0.3, 0.3), np.sin(angle), np.cos(angle)])
        middle = np.array([generator.uniform(-5, 5), *(generator.uniform(-0.5, 0.5, 2) * half)])
        radius = generator.uniform(*parameters.along_radius_mm)
        vessels.append(
            _vessel(middle, along / np.linalg.norm(along), radius, parameters, generator)
        )
    return tuple(lesions), tuple(vessels)


def _vessel(
    middle: npt.NDArray[np.float64],
    along: npt.NDArray[np.float64],
    radius: float,
    parameters: LesionParameters,
    generator: np.random.Generator,
) -> _Vessel:
    # Within the slice, so that a vessel passes each slice once.
    angle = generator.uniform(0, 2 * np.pi)
    bend = np.array([0.0, np.sin(angle), np.cos(angle)])
    bend *= generator.uniform(0, parameters.bend) / 10.0**2
    return _Vessel(middle, along, bend, radius)


def _free_place(
    half: npt.NDArray[np.float64],
    radius: float,
    taken: list[tuple[float, float, float]],
    generator: np.random.Generator,
) -> tuple[float, float] | None:
    """Find a place within the wall that touches nothing; None if there is hardly one."""
    for _ in range(_NUM_TRIALS):
        y, x = (generator.uniform(-1, 1, 2) * half * _INSIDE).tolist()
        if np.hypot(*((abs(p) + radius) / h for p, h in zip((y, x), half, strict=True))) > _INSIDE:
            continue
        if all(np.hypot(y - v, x - u) > radius + r + 2 for v, u, r in taken):
            return y, x
    return None


def _add(
    plane: Plane,
    structure: Lesion | _Vessel,
    hu: float,
    depths: list[float],
    grid: tuple[Plane, Plane],
    spacing_mm: float,
) -> None:
    """Lay a structure into a slice that is the mean over some depths, in place."""
    middle, far = structure.place(depths)
    rows, columns = (
        slice(*np.searchsorted(axis.ravel(), [at - far - spacing_mm, at + far + spacing_mm]))
        for axis, at in zip(grid, middle, strict=True)
    )
    part = (grid[0][rows], grid[1][:, columns])
    if 0 in (part[0].size, part[1].size):
        return
    share = np.zeros((part[0].size, part[1].size), dtype=np.float32)
    for depth in depths:
        beyond = structure.depth_within(depth, part)
        if beyond is not None:
            share += np.clip(0.5 + beyond / np.float32(spacing_mm), 0, 1)
    plane[rows, columns] += (
        share / np.float32(len(depths)) * (np.float32(hu) - plane[rows, columns])
    )


def _draw_wall(
    half: npt.NDArray[np.float64],
    grid: tuple[Plane, Plane],
    spacing_mm: float,
    generator: np.random.Generator,
) -> tuple[Plane, Plane]:
    """Draw air, skin, muscle and ribs, and the share of each pixel that lies within them."""
    relative = np.hypot(grid[0] / np.float32(half[0]), grid[1] / np.float32(half[1]))
    soft = np.float32(half.mean() / spacing_mm)

    def within(share: float) -> Plane:
        return np.asarray(np.clip(0.5 + (share - relative) * soft, 0, 1), dtype=np.float32)

    wall = np.full(relative.shape, _AIR_HU, dtype=np.float32)
    wall += within(_BODY) * np.float32(_FAT_HU - _AIR_HU)
    wall += within(_WALL) * np.float32(_MUSCLE_HU - _FAT_HU)
    start = generator.uniform(0, 2 * np.pi)
    for number in range(_NUM_RIBS):
        angle = start + 2 * np.pi * number / _NUM_RIBS
        middle = (_WALL + _INSIDE) / 2 * half * (np.sin(angle), np.cos(angle))
        far = np.hypot(grid[0] - np.float32(middle[0]), grid[1] - np.float32(middle[1]))
        share = np.clip(0.5 + (0.04 * half.mean() - far) / spacing_mm, 0, 1).astype(np.float32)
        wall += share * (np.float32(_BONE_HU) - wall)
    return wall, within(_INSIDE)


class _Texture:
    """Slow changes of the tissue: random numbers on a coarse grid, interpolated."""

    def __init__(
        self,
        depths_mm: npt.NDArray[np.float64],
        half: npt.NDArray[np.float64],
        grid: tuple[Plane, Plane],
        std: float,
        generator: np.random.Generator,
    ) -> None:
        lowest = np.array([depths_mm.min() if len(depths_mm) else 0.0, -half[0], -half[1]])
        highest = np.array([depths_mm.max() if len(depths_mm) else 0.0, half[0], half[1]])
        counts = np.ceil((highest - lowest) / _TEXTURE_STEP_MM).astype(int) + 2
        self._start = lowest[0]
        self._knots = generator.standard_normal(tuple(counts), dtype=np.float32) * np.float32(std)
        self._rows = _weights(grid[0].ravel() - lowest[1], counts[1])
        self._columns = _weights(grid[1].ravel() - lowest[2], counts[2])

    def at(self, depth: float) -> Plane:
        """Return the plane at one depth."""
        position = (depth - self._start) / _TEXTURE_STEP_MM
        below = int(position)
        share = np.float32(position - below)
        plane = (1 - share) * self._knots[below] + share * self._knots[below + 1]
        return np.asarray(self._rows @ plane @ self._columns.T, dtype=np.float32)


def _weights(distances: npt.NDArray[np.floating], count: int) -> Plane:
    """Return the weights of the knots at each distance from the first one."""
    positions = distances / _TEXTURE_STEP_MM
    knots = np.arange(count)
    weights = np.clip(1 - np.abs(positions[:, None] - knots[None, :]), 0, 1)
    return np.asarray(weights, dtype=np.float32)
