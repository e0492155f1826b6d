"""What one knows of a case without any network: the inputs of the trivial baselines."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from voxlift.data.classification_cases import ClassificationCases


@dataclass(frozen=True, eq=False)
class CaseStatistics:
    """Two numbers a case.

    Attributes:
        mean_intensity: Mean of the volume as stored, in its own unit.
        mask_volume_mm3: Volume of the mask; None where not every case has one.
    """

    mean_intensity: Float64[np.ndarray, "cases"]
    mask_volume_mm3: Float64[np.ndarray, "cases"] | None


def case_statistics(cases: ClassificationCases, indices: npt.NDArray[np.int64]) -> CaseStatistics:
    """Measure the mean intensity and, where there are masks, the size of the finding.

    Raises:
        DataError: If a volume or mask cannot be read.
    """
    means, sizes = [], []
    for index in indices.tolist():
        volume = cases.read_volume(index)
        means.append(volume.array.mean(dtype=np.float64))
        if cases.has_masks:
            mask = cases.read_mask(index, size_voxels=volume.size_voxels)
            sizes.append(mask.sum() * np.prod(volume.spacing_mm))
    return CaseStatistics(
        mean_intensity=np.array(means, dtype=np.float64),
        mask_volume_mm3=np.array(sizes, dtype=np.float64) if cases.has_masks else None,
    )
