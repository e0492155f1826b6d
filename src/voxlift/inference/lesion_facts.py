"""How large true boxes are, and of which type, as far as their annotations tell."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from voxlift.data.detection_cases import DetectionCase

Floats = npt.NDArray[np.float64]

SizeMeasure = Literal["long diameter", "longest edge of the box"]


def lesion_sizes_mm(
    cases: Sequence[DetectionCase],
) -> tuple[SizeMeasure | None, list[Floats] | None]:
    """Measure every true box, all in the same way.

    The long diameter counts where every box has one, as results on DeepLesion are given. Otherwise
    it is the longest edge of the box, which is somewhat more: DeepLesion's boxes have a margin of
    5 pixels about the diameters.

    Args:
        cases: The images.

    Returns:
        How sizes were measured, and one array an image, with those of regions to be ignored; NaN
        where the edge of a pixel is not known. Nothing if it is known of no image.
    """
    diameters = [case.facts.get("diameters_mm", ()) for case in cases]
    complete = all(
        len(of_case) == len(case.truth) and all(pair is not None for pair in of_case)
        for of_case, case in zip(diameters, cases, strict=True)
    )
    if complete and any(diameters):
        return "long diameter", [
            np.array([max(pair) for pair in of_case], dtype=np.float64) for of_case in diameters
        ]
    spacings = [case.facts.get("spacing_mm") for case in cases]
    if all(spacing is None for spacing in spacings):
        return None, None
    return "longest edge of the box", [
        case.truth.edges.max(axis=1, initial=0).astype(np.float64)
        * (np.nan if spacing is None else spacing)
        for case, spacing in zip(cases, spacings, strict=True)
    ]


def lesion_types(cases: Sequence[DetectionCase]) -> list[tuple[str | None, ...]] | None:
    """Return the type of every true box, None where it is not known; nothing if none is."""
    types = [case.facts.get("lesion_type", (None,) * len(case.truth)) for case in cases]
    return types if any(name is not None for of_case in types for name in of_case) else None
