"""One fixed order of axes for every scan, and the way back.

Files keep their axes in many orders: a sagittal MR has its slices from right to left, some CT grow
from head to foot. A network should see the patient always from the same side. In the canonical
order the array's axes grow as LPS does:

- depth from foot to head (superior),
- height from front to back (posterior),
- width from the patient's right to the left.

This is an axial slice as a radiologist sees it. Only whole axes are exchanged and turned round;
no voxel is interpolated. An oblique scan keeps its slant: each of its axes goes to the place of the
patient axis that it is nearest to.
"""

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from jaxtyping import Float64

from voxlift.data.volume import Volume


@dataclass(frozen=True)
class AxisOrder:
    """How the axes of a scan are laid out to reach the canonical order.

    Attributes:
        axes: For the canonical depth, height and width, which axis of the array it is.
        turned: For the same three, whether it has to be turned round.
    """

    axes: tuple[int, int, int]
    turned: tuple[bool, bool, bool]


def canonical_order(direction: Float64[np.ndarray, "3 3"]) -> AxisOrder:
    """Find the exchange of axes that brings a scan nearest to the canonical order.

    Args:
        direction: As in `Volume`: unit vectors of the width, height and depth axis, as columns.
    """
    # From x, y, z and width, height, depth to depth, height, width on both sides.
    cosines = np.asarray(direction, dtype=np.float64)[::-1, ::-1]
    # The sum over all three axes, so that no two of them claim the same place. Ties, at exactly
    # 45 degrees, go to the order nearest to that of the file; rounding must not decide them.
    axes = max(
        permutations(range(3)),
        key=lambda order: round(sum(abs(cosines[place, order[place]]) for place in range(3)), 6),
    )
    depth, height, width = (bool(cosines[place, axes[place]] < 0) for place in range(3))
    return AxisOrder(axes=(axes[0], axes[1], axes[2]), turned=(depth, height, width))


def to_canonical(volume: Volume) -> Volume:
    """Lay out a scan in the canonical order of axes; every voxel keeps its place in the patient.

    The array is a view where that is possible.
    """
    order = canonical_order(volume.direction)
    return _turn(_exchange(volume, order.axes), order.turned)


def from_canonical(volume: Volume, *, like: Volume) -> Volume:
    """Undo `to_canonical`: lay out a scan or a mask in the order of axes of another one.

    Args:
        volume: In the canonical order, such as a prediction.
        like: The scan as it was before `to_canonical`.

    Returns:
        The volume in the order of axes of `like`. It has the same grid as `like` if `volume` has
        the same grid as `to_canonical(like)`.
    """
    order = canonical_order(like.direction)
    back = (order.axes.index(0), order.axes.index(1), order.axes.index(2))
    return _exchange(_turn(volume, order.turned), back)


def _exchange(volume: Volume, axes: tuple[int, int, int]) -> Volume:
    """Put axis `axes[0]` first, `axes[1]` second and `axes[2]` third."""
    depth, height, width = (volume.spacing_mm[axis] for axis in axes)
    return replace(
        volume,
        array=volume.array.transpose(axes),
        spacing_mm=(depth, height, width),
        direction=volume.direction[:, ::-1][:, axes][:, ::-1],
    )


def _turn(volume: Volume, turned: tuple[bool, bool, bool]) -> Volume:
    """Turn axes round; the origin moves to the voxel that is the first one now."""
    signs = np.where(turned, -1, 1)
    first = [size - 1 if turn else 0 for size, turn in zip(volume.array.shape, turned, strict=True)]
    x, y, z = (volume.affine @ np.array([*first, 1.0]))[:3].tolist()
    return replace(
        volume,
        array=volume.array[:: signs[0], :: signs[1], :: signs[2]],
        origin_mm=(x, y, z),
        direction=volume.direction * signs[::-1],
    )
