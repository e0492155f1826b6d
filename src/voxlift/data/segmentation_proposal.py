"""Propose how a network should see a segmentation data set: spacing, intensities, patch."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from voxlift.core.geometry import ONES
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.types import Triple
from voxlift.data.case_facts import CaseFacts
from voxlift.data.orientation import canonical_order
from voxlift.data.segmentation_cases import SegmentationCases

_log = logging.getLogger(__name__)

LOWEST_HU = -200.0
# Intensities of the structures that are kept in CT, as percentiles.
CT_PERCENTILES = (0.5, 99.5)
MR_PERCENTILES = (0.5, 99.5)
SMALLEST_EDGE = 8
EDGE_STEP = 8


@dataclass(frozen=True)
class Wish:
    """What is decided about the preprocessing; None leaves it to the proposal.

    Args:
        spacing_mm: Of the network's grid; 0 for an axis that stays as each scan has it.
        window: Lowest and highest intensity.
        intensity: How intensities are scaled.
        mean_std: Mean and standard deviation on the scale of 0 to 255, of which 1 is a 255th.
        unit: What they are.
        orientation: `canonical` or `stored`.
        patch_voxels: Of a training patch.
        max_patch_voxels: Most that a proposed patch may have.
        strides: Total strides of a network that has its own, to which a proposed patch is fitted;
            1 for one whose strides are fitted to the patch.
    """

    spacing_mm: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None
    intensity: str | None = None
    mean_std: tuple[float, float] | None = None
    unit: str | None = None
    orientation: str = "canonical"
    patch_voxels: Triple | None = None
    max_patch_voxels: int = 64**3
    strides: Triple = ONES


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


def propose(cases: SegmentationCases, indices: npt.NDArray[np.int64], wish: Wish) -> Proposal:
    """Fill in what the user left open, from the facts of the training cases.

    Spacing: the median; scans that are within 2 % of it are taken as they are. CT (values below
    -200): clipped to where the structures are; anything else: each channel's own percentiles.
    Patch: the median size on the network's grid, its longest edges shortened until the patch is
    small enough.

    Args:
        cases: The data set, with its facts.
        indices: The training cases; no other is looked at.
        wish: What is decided already.
    """
    assert cases.facts
    facts = [cases.facts[index] for index in indices]
    sizes, spacings = _laid_out(facts, canonical=wish.orientation == "canonical")
    median_mm = np.median(spacings, axis=0)
    median = _triple(np.round(median_mm, 3))
    wanted_mm = wish.spacing_mm or median
    # Where an axis stays as stored, the median stands for it in what follows.
    seen_mm = (
        wanted_mm[0] or median[0],
        wanted_mm[1] or median[1],
        wanted_mm[2] or median[2],
    )
    scale = np.where(wanted_mm, spacings / np.array(seen_mm), 1.0)
    size = np.maximum(np.round(np.median(sizes * scale, axis=0)), 1).astype(int)
    patch = wish.patch_voxels or shrink_patch(
        (int(size[0]), int(size[1]), int(size[2])),
        seen_mm,
        max_voxels=wish.max_patch_voxels,
        strides=wish.strides,
    )
    preprocessing = _intensities(facts, wish, len(cases.channel_names)).model_copy(
        update={"spacing_mm": wanted_mm}
    )
    how = "as asked" if wish.spacing_mm else "the median"
    reason = (
        f"{len(facts)} training cases of {min(min(f.lowest) for f in facts):g} to "
        f"{max(max(f.highest) for f in facts):g} ({preprocessing.unit}), median size "
        f"{tuple(size.tolist())} voxels of {tuple(round(s, 3) for s in seen_mm)} mm ({how}): "
        f"{preprocessing.describe()}; patches of {patch} voxels"
    )
    if wish.strides != ONES and wish.patch_voxels is None:
        reason += f", for a network whose strides total {wish.strides}"
    return Proposal(preprocessing, seen_mm, patch, reason)


def shrink_patch(
    size_voxels: Triple,
    spacing_mm: tuple[float, float, float],
    *,
    max_voxels: int,
    strides: Triple = ONES,
) -> Triple:
    """Shorten the longest edges, in millimetres, until a patch has at most `max_voxels`.

    Edges become multiples of 8 where they are longer than that; a median size that is none is
    rounded up, for the networks halve their maps. Where a network has strides of its own, edges
    become multiples of these too, and one stays so long that the coarsest map has two voxels: a
    single one leaves nothing to normalise. What is smaller than a patch is padded.

    Args:
        size_voxels: Median size of the scans.
        spacing_mm: Of their voxels.
        max_voxels: Most that the patch may have, where that is possible.
        strides: Total strides of the network.
    """
    steps = [math.lcm(EDGE_STEP, stride) for stride in strides]
    edges = [
        length if length < SMALLEST_EDGE and stride == 1 else math.ceil(length / step) * step
        for length, stride, step in zip(size_voxels, strides, steps, strict=True)
    ]
    strided = [axis for axis in range(3) if strides[axis] > 1]

    def leaves_two(lengths: Sequence[int]) -> bool:
        return not strided or any(-(-lengths[a] // strides[a]) > 1 for a in range(3))

    if not leaves_two(edges):
        edges[max(strided, key=lambda a: size_voxels[a] * spacing_mm[a])] *= 2
    while math.prod(edges) > max_voxels:
        can_shrink = [
            axis
            for axis in range(3)
            if edges[axis] > max(SMALLEST_EDGE, steps[axis])
            and leaves_two([edges[a] - steps[a] * (a == axis) for a in range(3)])
        ]
        if not can_shrink:
            break
        axis = max(can_shrink, key=lambda a: edges[a] * spacing_mm[a])
        edges[axis] -= steps[axis]
    return edges[0], edges[1], edges[2]


def _laid_out(
    facts: Sequence[CaseFacts], *, canonical: bool
) -> tuple[Float64[np.ndarray, "cases 3"], Float64[np.ndarray, "cases 3"]]:
    """Size and spacing of each case in the order of axes in which the network sees it."""
    sizes, spacings = [], []
    for each in facts:
        axes = canonical_order(each.direction).axes if canonical else (0, 1, 2)
        sizes.append([float(each.size_voxels[axis]) for axis in axes])
        spacings.append([each.spacing_mm[axis] for axis in axes])
    return np.array(sizes), np.array(spacings)


def _intensities(facts: Sequence[CaseFacts], wish: Wish, in_channels: int) -> Preprocessing:
    """Choose the unit and how intensities are scaled; mean and std follow from the scaled ones."""
    low, high = min(min(f.lowest) for f in facts), max(max(f.highest) for f in facts)
    guess = "HU" if low < LOWEST_HU else "0-255" if low >= 0 and 1 < high <= 255 else "raw"
    unit = wish.unit or guess
    if unit == "HU" and guess == "0-255":
        _log.warning(
            "The training scans hold %g to %g, as 8-bit images do, but Hounsfield units are "
            "expected. For 8-bit data give --window 0 255 --unit 0-255.",
            low,
            high,
        )
    window, intensity = wish.window, wish.intensity
    if intensity is None:
        intensity = "window" if window or unit in ("HU", "0-255") else "percentiles"
    if intensity == "window" and window is None:
        window = (0.0, 255.0) if unit == "0-255" else _structure_window(facts)
    fields: dict[str, object] = {
        "orientation": wish.orientation,
        "unit": unit,
        "intensity": intensity,
        "in_channels": in_channels,
        "window": window if intensity == "window" else None,
        "percentiles": MR_PERCENTILES if intensity == "percentiles" else None,
    }
    if intensity in ("window", "percentiles"):
        mean, std = _scaled_statistics(facts, window if intensity == "window" else None)
        fields |= {"mean": round(mean, 4), "std": max(1e-3, round(std, 4))}
        if wish.mean_std:
            fields |= {"mean": wish.mean_std[0] / 255, "std": wish.mean_std[1] / 255}
    return Preprocessing.model_validate(fields)


def _structure_window(facts: Sequence[CaseFacts]) -> tuple[float, float]:
    """Take the window from the voxels of the structures."""
    inside = np.concatenate([f.structure_intensities.ravel() for f in facts])
    if not len(inside):
        inside = np.concatenate([f.intensities.ravel() for f in facts])
    low, high = np.percentile(inside, CT_PERCENTILES)
    return float(np.floor(low)), float(np.ceil(max(high, low + 1)))


def _scaled_statistics(
    facts: Sequence[CaseFacts], window: tuple[float, float] | None
) -> tuple[float, float]:
    """Mean and standard deviation of the voxels once they are scaled to 0..1."""
    scaled = []
    for channel in (channel for each in facts for channel in each.intensities):
        low, high = window or np.percentile(channel, MR_PERCENTILES).tolist()
        scaled.append(((channel - low) / max(high - low, 1e-6)).clip(0, 1))
    values = np.concatenate(scaled)
    return float(values.mean()), float(values.std())


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
