"""Key slices of CT with lesions, as an annotation file tells of them, of whichever form."""

import re
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
import numpy.typing as npt

# At most nine digits a number: longer ones are no names of files.
_FILE_NAME = re.compile(r"([0-9]{1,9}(?:_[0-9]{1,9}){2})_([0-9]{1,9})\.png")
_SLICE_NAME = re.compile(r"(?:.*[/\\])?([0-9]{1,9}(?:_[0-9]{1,9}){2})[/\\]([0-9]{1,9})\.png")


@dataclass(frozen=True, eq=False)
class LesionImage:
    """One key slice with its lesions.

    Attributes:
        series: The folder of its scan, `<patient>_<study>_<series>`.
        number: Of the slice.
        split: `train`, `val`, `test` or empty.
        spacing_mm: Edge of a pixel; None where it is not told.
        interval_mm: Distance to the next slice.
        corners: Boxes as x1, y1, x2, y2, the first pixel's corner being 0, 0.
        labels: Class numbers of the boxes.
        noisy: Whether each box may be wrong.
        crowd: Whether each box is a region to be ignored.
        lesion_types: What each lesion is in, where it is told.
        diameters_mm: Long and short diameter of each lesion, where they are told.
        window_hu: The window that it was marked in, where it is told.
        slice_range: First and last slice that belong to it, where they are told.
        sizes: Heights and widths that its boxes may have been drawn for; empty where none is told.
    """

    series: str
    number: int
    split: str
    spacing_mm: float | None
    interval_mm: float
    corners: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    noisy: npt.NDArray[np.bool_]
    crowd: npt.NDArray[np.bool_]
    lesion_types: tuple[str | None, ...]
    diameters_mm: tuple[tuple[float, float] | None, ...]
    window_hu: tuple[float, float] | None = None
    slice_range: tuple[int, int] | None = None
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        """What logs and tables call it."""
        return f"{self.series}/{self.number:03d}.png"

    def chosen(self, rows: npt.NDArray[np.bool_]) -> "LesionImage":
        """Return the same slice with some of its lesions."""
        return replace(
            self,
            corners=self.corners[rows],
            labels=self.labels[rows],
            noisy=self.noisy[rows],
            crowd=self.crowd[rows],
            lesion_types=tuple(compress(self.lesion_types, rows)),
            diameters_mm=tuple(compress(self.diameters_mm, rows)),
        )


def parse_name(name: str) -> tuple[str, int] | None:
    """Split the name of a key slice into its scan's folder and its number; None if it is none.

    Args:
        name: Such as `000001_01_01_109.png` or `000001_01_01/109.png`.
    """
    match = _FILE_NAME.fullmatch(name) or _SLICE_NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else None
