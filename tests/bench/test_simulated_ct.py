from pathlib import Path

import numpy as np

from voxlift.bench.simulated_ct import write_simulated_ct
from voxlift.data.volumes import read_volume


def test_a_simulated_ct_is_read_as_one(tmp_path: Path) -> None:
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path in paths:
        write_simulated_ct(path, size_voxels=(30, 64, 48))
    volume = read_volume(paths[0])
    assert volume.size_voxels == (30, 64, 48)
    np.testing.assert_allclose(volume.spacing_mm, (1.0, 0.8, 0.8), rtol=1e-6)
    assert volume.array.dtype == np.int16
    # Air about a body of several tissues, with noise.
    assert abs(float(volume.array[:, :4].mean()) + 1000) < 2
    assert 15 > volume.array[:, :4].std() > 8
    assert volume.array.max() > 600
    np.testing.assert_array_equal(volume.array, read_volume(paths[1]).array)
