"""Propose a preprocessing from what the training volumes look like."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.core.preprocessing import Preprocessing
from voxlift.core.types import Triple
from voxlift.data.preprocess import preprocess
from voxlift.data.readable_volumes import ReadableVolumes

MOST_READ = 40
LOWEST_HU = -200.0
CT_WINDOW_HU = (-1000.0, 1000.0)
MR_PERCENTILES = (0.5, 99.5)
LARGEST_SIZE = 160


@dataclass(frozen=True)
class Fingerprint:
    """What a sample of the training volumes has in common.

    Attributes:
        size_voxels: Median size (depth, height, width).
        spacing_mm: Median voxel size (depth, height, width).
        low: Lowest intensity.
        high: Highest intensity.
        num_read: How many volumes were looked at.
    """

    size_voxels: Triple
    spacing_mm: tuple[float, float, float]
    low: float
    high: float
    num_read: int

    @property
    def unit(self) -> str:
        """What the numbers seem to be: `HU`, `0-255` or `raw`."""
        if self.low < LOWEST_HU:
            return "HU"
        return "0-255" if self.low >= 0 and 1 < self.high <= 255 else "raw"


def take_fingerprint(
    cases: ReadableVolumes, indices: npt.NDArray[np.int64]
) -> tuple[Fingerprint, Sequence[int]]:
    """Look at some of the training volumes, evenly spread.

    Returns:
        What they have in common, and the indices of those looked at.
    """
    chosen = indices[np.linspace(0, len(indices) - 1, min(MOST_READ, len(indices))).astype(int)]
    volumes = [cases.read_volume(int(index)) for index in chosen]
    sizes = np.median([volume.array.shape[-3:] for volume in volumes], axis=0)
    spacing = np.median([volume.spacing_mm for volume in volumes], axis=0)
    found = Fingerprint(
        size_voxels=(int(sizes[0]), int(sizes[1]), int(sizes[2])),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        low=min(float(volume.array.min()) for volume in volumes),
        high=max(float(volume.array.max()) for volume in volumes),
        num_read=len(volumes),
    )
    return found, [int(index) for index in chosen]


def propose_preprocessing(
    cases: ReadableVolumes,
    indices: npt.NDArray[np.int64],
    *,
    size_voxels: Triple | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    window: tuple[float, float] | None = None,
    mean_std: tuple[float, float] | None = None,
    unit: str | None = None,
    orientation: str = "canonical",
    in_channels: int = 1,
) -> tuple[Preprocessing, tuple[float, float, float], str]:
    """Fill in what the user left open about the preprocessing, and say why.

    Args:
        cases: The data set, or volumes without labels.
        indices: The training cases; no other is looked at.
        size_voxels: See `Preprocessing`; None takes the median size, up to 160 voxels an axis.
        spacing_mm: See `Preprocessing`; None keeps the spacing as stored.
        window: Lowest and highest intensity; None takes a wide CT window for Hounsfield units, 0
            to 255 for 8-bit values, and percentiles for anything else.
        mean_std: Mean and standard deviation on the scale of 0 to 255; None measures them.
        unit: `HU`, `0-255` or `raw`; None guesses it from the intensities.
        orientation: `canonical` or `stored`.
        in_channels: Channels of the volumes.

    Returns:
        The preprocessing, the voxel size that the network will see, and the reasons in words.
    """
    found, chosen = take_fingerprint(cases, indices)
    unit = unit or found.unit
    if window is None and unit == "HU":
        window = CT_WINDOW_HU
    elif window is None and unit == "0-255":
        window = (0.0, 255.0)
    seen_mm = spacing_mm or found.spacing_mm
    if size_voxels is None:
        scale = np.divide(found.spacing_mm, seen_mm)
        sizes = np.clip(np.round(np.multiply(found.size_voxels, scale)), 1, LARGEST_SIZE)
        size_voxels = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
    fields: dict[str, object] = {
        "size_voxels": size_voxels,
        "spacing_mm": spacing_mm,
        "unit": unit,
        "orientation": orientation,
        "in_channels": in_channels,
    }
    fields |= (
        {"intensity": "window", "window": window}
        if window
        else {"intensity": "percentiles", "percentiles": MR_PERCENTILES}
    )
    raw = Preprocessing.model_validate(fields)
    samples = np.stack(
        [preprocess(cases.read_volume(i), raw, name=cases.cases[i].id) for i in chosen]
    )
    mean, std = round(float(samples.mean()), 4), max(1e-3, round(float(samples.std()), 4))
    if mean_std is not None:
        mean, std = (value / 255 for value in mean_std)
    proposed = Preprocessing.model_validate({**fields, "mean": mean, "std": std})
    reason = (
        f"{found.num_read} training volumes of {found.low:g} to {found.high:g} ({unit}), median "
        f"size {found.size_voxels} voxels of {tuple(round(s, 2) for s in found.spacing_mm)} mm: "
        f"cropped or padded to {size_voxels}, "
        + (f"window {window[0]:g} to {window[1]:g}" if window else "percentiles 0.5 to 99.5")
        + f", then mean {proposed.mean:g} and std {proposed.std:g}"
    )
    return proposed, seen_mm, reason
