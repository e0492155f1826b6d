"""Boxes as annotation files have them, made such that a network and a judge can use them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32

# Less than this beyond an edge, in pixels, is rounding and not counted.
_ROUNDING = 0.01


@dataclass(frozen=True, eq=False)
class ClippedBoxes:
    """What is left of some boxes.

    Attributes:
        boxes: Those with an area inside the image, as x1, y1, x2, y2.
        kept: Which of all boxes these are.
        num_clipped: How many of them reached beyond the image.
        num_empty: How many had no width or height.
        num_outside: How many lay outside the image as a whole.
    """

    boxes: Float32[np.ndarray, "kept 4"]
    kept: Bool[np.ndarray, " all"]
    num_clipped: int
    num_empty: int
    num_outside: int

    @property
    def counts(self) -> dict[str, int]:
        """How often something had to be put right, by what it was."""
        return {
            "boxes clipped to their image": self.num_clipped,
            "boxes dropped for having no area": self.num_empty,
            "boxes dropped for lying outside their image": self.num_outside,
        }


def clip_boxes(corners: npt.NDArray[np.floating], *, size: tuple[int, int] | None) -> ClippedBoxes:
    """Clip boxes to their image and drop those without an area, as COCO does.

    Args:
        corners: x1, y1, x2, y2 of each box, all finite.
        size: Height and width of the image; None if they are not known.
    """
    corners = np.asarray(corners, dtype=np.float64).reshape(-1, 4)
    has_area = _has_area(corners.astype(np.float32))
    clipped = corners
    if size is not None:
        height, width = size
        clipped = corners.clip(0, [width, height, width, height])
    boxes = clipped.astype(np.float32)
    kept = has_area & _has_area(boxes)
    beyond = (np.abs(clipped - corners) > _ROUNDING).any(axis=1)
    return ClippedBoxes(
        boxes=boxes[kept],
        kept=kept,
        num_clipped=int((beyond & kept).sum()),
        num_empty=int((~has_area).sum()),
        num_outside=int((has_area & ~kept).sum()),
    )


def _has_area(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
