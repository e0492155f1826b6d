"""Keep the largest connected piece of a structure, for organs of which there is one."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool


def outside_largest_component(
    mask: Bool[np.ndarray, "depth height width"],
) -> Bool[np.ndarray, "depth height width"] | None:
    """Find what does not belong to the largest piece; voxels that touch by a corner are connected.

    Of two pieces of equal size, the one that comes first is the largest.

    Returns:
        A mask of all other pieces; None if there are none.
    """
    from scipy import ndimage

    # Only the box about the structure is numbered: numbers take four times the space of a mask.
    box = _box(mask)
    if box is None:
        return None
    pieces, num_pieces = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    if num_pieces < 2:
        return None
    sizes = np.zeros(num_pieces + 1, dtype=np.int64)
    for plane in pieces:
        sizes += np.bincount(plane.ravel(), minlength=num_pieces + 1)
    largest = 1 + int(sizes[1:].argmax())
    outside = np.zeros(mask.shape, dtype=bool)
    outside[box] = (pieces != largest) & (pieces != 0)
    return outside


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Give the smallest box that holds the mask."""
    bounds = []
    for axes in ((1, 2), (0, 2), (0, 1)):
        (there,) = np.nonzero(mask.any(axis=axes))
        if not len(there):
            return None
        bounds.append(slice(int(there[0]), int(there[-1]) + 1))
    return bounds[0], bounds[1], bounds[2]
