"""What a learning curve says about speed."""

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError


def steps_to_reach(
    steps: npt.ArrayLike, values: npt.ArrayLike, target: float, *, higher_is_better: bool = True
) -> int | None:
    """Find the first step at which a learning curve is as good as the target.

    A value that is not a number is passed over. Nothing is interpolated: the step is one at which
    the curve was measured.

    Args:
        steps: The steps, rising.
        values: The value measured at each.
        target: The value to reach.
        higher_is_better: Whether the curve is to rise to the target; otherwise it is to fall.

    Returns:
        The step, or None if the target was not reached.

    Raises:
        DataError: If there is not one value a step, or the steps do not rise.
    """
    measured, curve = np.asarray(steps), np.asarray(values, dtype=np.float64)
    if measured.ndim != 1 or measured.shape != curve.shape or np.any(np.diff(measured) <= 0):
        raise DataError(
            f"The curve has steps of the shape {measured.shape} and values of the shape "
            f"{curve.shape}, but rising steps with one value each are needed."
        )
    reached = curve >= target if higher_is_better else curve <= target
    return int(measured[np.argmax(reached)]) if reached.any() else None
