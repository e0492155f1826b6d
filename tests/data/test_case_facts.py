"""What one reading of a case tells."""

import numpy as np

from voxlift.data.case_facts import MOST_SAMPLES, measure_case
from voxlift.data.volume import Volume


def test_a_small_case_is_kept_whole() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    direction = np.diag([-1.0, -1.0, 1.0])
    volume = Volume(array, spacing_mm=(3.0, 2.0, 1.0), direction=direction)
    channels = [volume, Volume(-array.astype(np.float64))]
    facts = measure_case(channels, array > 20, class_voxels=(21, 3), ignored_voxels=1)
    assert (facts.size_voxels, facts.spacing_mm) == ((2, 3, 4), (3.0, 2.0, 1.0))
    assert np.array_equal(facts.direction, direction)
    assert (facts.class_voxels, facts.ignored_voxels) == ((21, 3), 1)
    assert (facts.lowest, facts.highest) == ((0.0, -23.0), (23.0, 0.0))
    assert facts.intensities.tolist() == [list(range(24)), [-value for value in range(24)]]
    assert facts.structure_intensities.tolist() == [[21, 22, 23], [-21, -22, -23]]
    assert not facts.is_empty


def test_a_large_case_is_sampled_from_end_to_end() -> None:
    array = np.arange(30**3, dtype=np.float32).reshape(30, 30, 30)
    facts = measure_case([Volume(array)], array >= 20_000)
    assert facts.intensities.shape == facts.structure_intensities.shape == (1, MOST_SAMPLES)
    assert (facts.intensities[0, 0], facts.intensities[0, -1]) == (0, 30**3 - 1)
    inside = facts.structure_intensities[0]
    assert (inside[0], inside[-1]) == (20_000, 30**3 - 1)
    assert np.ptp(np.diff(inside)) <= 1


def test_background_only() -> None:
    facts = measure_case([Volume(np.zeros((1, 2, 2)))], np.zeros((1, 2, 2), dtype=bool))
    assert facts.is_empty
    assert facts.structure_intensities.shape == (1, 0)
    assert facts.intensities.tolist() == [[0, 0, 0, 0]]
