"""Propose how a network should see a segmentation data set: spacing, intensities, patch."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.core.preprocessing import Preprocessing
from voxlift.core.types import Triple
from voxlift.data.prepared_image import network_grid
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.data.volume import Volume

MOST_READ = 40
LOWEST_HU = -200.0
# Intensities of the structures that are kept in CT, as percentiles.
CT_PERCENTILES = (0.5, 99.5)
MR_PERCENTILES = (0.5, 99.5)
# Spacings that differ by less are taken for one.
SPACING_TOLERANCE = 0.02
SMALLEST_EDGE = 8
EDGE_STEP = 8
_SAMPLED_VOXELS = 20_000


@dataclass(frozen=True)
class Wish:
    """What the user has decided about the preprocessing; None leaves it to the proposal."""

    spacing_mm: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None
    intensity: str | None = None
    unit: str | None = None
    orientation: str = "canonical"
    patch_voxels: Triple | None = None
    max_patch_voxels: int = 64**3


@dataclass(frozen=True)
class Proposal:
    """How the network sees the data.

    Attributes:
        preprocessing: From a volume to the network's input.
        spacing_mm: Size of a voxel on the network's grid.
        patch_voxels: Size of a training patch and of the window at prediction.
        reason: Why, in words.
    """

    preprocessing: Preprocessing
    spacing_mm: tuple[float, float, float]
    patch_voxels: Triple
    reason: str


@dataclass(frozen=True)
class _Look:
    """What one case looks like, in the orientation of the network."""

    size_voxels: Triple
    spacing_mm: tuple[float, float, float]
    low: float
    high: float
    inside: npt.NDArray[np.float64]
    everywhere: npt.NDArray[np.float64]


def propose(cases: SegmentationCases, indices: npt.NDArray[np.int64], wish: Wish) -> Proposal:
    """Fill in what the user left open, from some of the training cases, evenly spread.

    Spacing: that of the files where they agree, else their median. CT (values below -200): clipped
    to where the structures are; anything else: each channel's own percentiles. Patch: the median
    size on the network's grid, its longest edges shortened until the patch is small enough.

    Args:
        cases: The data set.
        indices: The training cases; no other is looked at.
        wish: What is decided already.
    """
    chosen = indices[np.linspace(0, len(indices) - 1, min(MOST_READ, len(indices))).astype(int)]
    looks = [_look(cases, int(index), orientation=wish.orientation) for index in chosen]
    spacings = np.array([look.spacing_mm for look in looks])
    median_mm = np.median(spacings, axis=0)
    agree = bool((np.abs(spacings / median_mm - 1) <= SPACING_TOLERANCE).all())
    spacing_mm = wish.spacing_mm
    if spacing_mm is None and not agree:
        spacing_mm = _triple(np.round(median_mm, 3))
    seen_mm = spacing_mm or _triple(median_mm)

    sizes = [np.array(look.size_voxels) * look.spacing_mm / seen_mm for look in looks]
    size = np.maximum(np.round(np.median(sizes, axis=0)), 1).astype(int)
    patch = wish.patch_voxels or shrink_patch(
        (int(size[0]), int(size[1]), int(size[2])), seen_mm, max_voxels=wish.max_patch_voxels
    )
    preprocessing = _intensities(looks, wish, len(cases.channel_names)).model_copy(
        update={"spacing_mm": spacing_mm}
    )
    spacing_reason = (
        "as stored" if spacing_mm is None else "as asked" if wish.spacing_mm else "the median"
    )
    reason = (
        f"{len(looks)} training cases of {min(look.low for look in looks):g} to "
        f"{max(look.high for look in looks):g} ({preprocessing.unit}), median size "
        f"{tuple(size.tolist())} voxels of {_short(seen_mm)} mm ({spacing_reason}): "
        f"{preprocessing.describe()}; patches of {patch} voxels"
    )
    return Proposal(preprocessing, seen_mm, patch, reason)


def shrink_patch(
    size_voxels: Triple, spacing_mm: tuple[float, float, float], *, max_voxels: int
) -> Triple:
    """Shorten the longest edges, in millimetres, until a patch has at most `max_voxels`.

    Edges become multiples of 8 where they are longer than that; a median size that is none is
    rounded up, for the networks halve their maps.
    """
    edges = [
        length if length < SMALLEST_EDGE else math.ceil(length / EDGE_STEP) * EDGE_STEP
        for length in size_voxels
    ]
    while math.prod(edges) > max_voxels:
        can_shrink = [axis for axis in range(3) if edges[axis] > SMALLEST_EDGE]
        if not can_shrink:
            break
        axis = max(can_shrink, key=lambda a: edges[a] * spacing_mm[a])
        edges[axis] -= EDGE_STEP
    return edges[0], edges[1], edges[2]


def _look(cases: SegmentationCases, index: int, *, orientation: str) -> _Look:
    channels = cases.read_image(index)
    label = cases.read_label(index, like=channels[0])
    grid = network_grid(channels[0], Preprocessing.model_validate({"orientation": orientation}))
    inside = [_sample(channel, label.array > 0) for channel in channels]
    return _Look(
        size_voxels=grid.size_voxels,
        spacing_mm=grid.spacing_mm,
        low=min(float(channel.array.min()) for channel in channels),
        high=max(float(channel.array.max()) for channel in channels),
        inside=np.concatenate(inside),
        everywhere=np.concatenate([_sample(channel, None) for channel in channels]),
    )


def _sample(channel: Volume, where: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float64]:
    values = channel.array.ravel() if where is None else channel.array[where]
    step = max(1, len(values) // _SAMPLED_VOXELS)
    return values[::step].astype(np.float64)


def _intensities(looks: list[_Look], wish: Wish, in_channels: int) -> Preprocessing:
    """Choose the unit and how intensities are scaled; mean and std follow from the scaled ones."""
    low, high = min(look.low for look in looks), max(look.high for look in looks)
    guess = "HU" if low < LOWEST_HU else "0-255" if low >= 0 and 1 < high <= 255 else "raw"
    unit = wish.unit or guess
    inside = np.concatenate([look.inside for look in looks])
    everywhere = np.concatenate([look.everywhere for look in looks])
    window, intensity = wish.window, wish.intensity
    if intensity is None:
        intensity = "window" if window or unit in ("HU", "0-255") else "percentiles"
    if intensity == "window" and window is None:
        window = (0.0, 255.0)
        if unit == "HU":
            bounds = np.percentile(inside if len(inside) else everywhere, CT_PERCENTILES)
            window = (float(np.floor(bounds[0])), float(np.ceil(bounds[1])))
    fields: dict[str, object] = {
        "orientation": wish.orientation,
        "unit": unit,
        "intensity": intensity,
        "in_channels": in_channels,
        "window": window if intensity == "window" else None,
        "percentiles": MR_PERCENTILES if intensity == "percentiles" else None,
    }
    if intensity in ("window", "percentiles"):
        mean, std = _scaled_statistics(looks, window if intensity == "window" else None)
        fields |= {"mean": round(mean, 4), "std": max(1e-3, round(std, 4))}
    return Preprocessing.model_validate(fields)


def _scaled_statistics(
    looks: list[_Look], window: tuple[float, float] | None
) -> tuple[float, float]:
    """Mean and standard deviation of the voxels once they are scaled to 0..1."""
    scaled = []
    for look in looks:
        low, high = window or np.percentile(look.everywhere, MR_PERCENTILES).tolist()
        scaled.append(((look.everywhere - low) / max(high - low, 1e-6)).clip(0, 1))
    values = np.concatenate(scaled)
    return float(values.mean()), float(values.std())


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _short(spacing_mm: tuple[float, float, float]) -> tuple[float, ...]:
    return tuple(round(length, 3) for length in spacing_mm)
