"""What one reading of a case tells about it: size, classes and intensities.

Proposals for the patch, the spacing and the window are made of these, without reading again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Float64

from voxlift.core.types import Triple
from voxlift.data.volume import Volume

MOST_SAMPLES = 2000


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """What one case looks like, on the grid of its file.

    Attributes:
        size_voxels: Size of the volume.
        spacing_mm: Size of a voxel.
        direction: Where the axes point, as in `Volume`.
        class_voxels: Number of voxels of each class, the background first.
        ignored_voxels: Number of voxels that nobody labelled.
        lowest: Smallest intensity of each channel.
        highest: Greatest intensity of each channel.
        intensities: Intensities of up to 2,000 voxels spread evenly over the volume.
        structure_intensities: Intensities of up to 2,000 voxels spread evenly over all classes but
            the background; none where there is background only.
    """

    size_voxels: Triple
    spacing_mm: tuple[float, float, float]
    direction: Float64[np.ndarray, "3 3"]
    class_voxels: tuple[int, ...]
    ignored_voxels: int
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    intensities: Float32[np.ndarray, "channels samples"]
    structure_intensities: Float32[np.ndarray, "channels structure_samples"]

    @property
    def is_empty(self) -> bool:
        """Whether no voxel belongs to a class but the background."""
        return self.structure_intensities.size == 0


def measure_case(
    channels: Sequence[Volume],
    structures: Bool[np.ndarray, "depth height width"],
    *,
    class_voxels: tuple[int, ...] = (),
    ignored_voxels: int = 0,
) -> CaseFacts:
    """Measure a case.

    Args:
        channels: The volume.
        structures: Where a class but the background is.
        class_voxels: Number of voxels of each class, the background first, as far as known.
        ignored_voxels: Number of voxels that nobody labelled.
    """
    whole = _spread(structures.size)
    inside = np.flatnonzero(structures)
    inside = inside[_spread(len(inside))]
    flat = [channel.array.reshape(-1) for channel in channels]
    return CaseFacts(
        size_voxels=channels[0].size_voxels,
        spacing_mm=channels[0].spacing_mm,
        direction=channels[0].direction,
        class_voxels=class_voxels,
        ignored_voxels=ignored_voxels,
        lowest=tuple(float(values.min()) for values in flat),
        highest=tuple(float(values.max()) for values in flat),
        intensities=np.stack([values[whole] for values in flat]).astype(np.float32),
        structure_intensities=np.stack([values[inside] for values in flat]).astype(np.float32),
    )


def _spread(count: int) -> npt.NDArray[np.intp]:
    """Choose positions spread evenly over so many."""
    return np.linspace(0, max(count - 1, 0), min(count, MOST_SAMPLES)).astype(np.intp)
