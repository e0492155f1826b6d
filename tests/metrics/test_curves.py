import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.metrics.curves import steps_to_reach


@pytest.mark.parametrize(
    ("target", "expected"), [(0.6, 10), (0.7, 20), (0.75, 40), (0.9, 40), (0.91, None)]
)
def test_the_first_step_that_is_good_enough_counts(target: float, expected: int | None) -> None:
    steps = [10, 20, 30, 40]
    assert steps_to_reach(steps, [0.6, 0.7, np.nan, 0.9], target) == expected


def test_a_loss_falls_to_its_target() -> None:
    assert steps_to_reach([1, 2, 3], [3.0, 1.0, 2.0], 1.5, higher_is_better=False) == 2
    assert steps_to_reach([], [], 1.5) is None


@pytest.mark.parametrize(("steps", "values"), [([1, 2], [1]), ([2, 1], [1, 1]), ([[1]], [[1]])])
def test_what_is_no_curve_is_refused(steps: list[int], values: list[float]) -> None:
    with pytest.raises(DataError, match="rising steps"):
        steps_to_reach(steps, values, 0.5)
