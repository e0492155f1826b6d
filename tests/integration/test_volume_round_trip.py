"""From a file to the order of axes of a network and back to a file, for every order there is.

NIfTI stores its geometry as 32-bit floats: 1e-5 mm is kept up to about 100 mm from the origin.
"""

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from voxlift.data.orientation import from_canonical, to_canonical
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume, write_volume
from voxlift.data.write_like import write_like

# All ways in which the axes of an array can run along those of the patient.
ORDERS = [
    np.eye(3)[:, order] * signs
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
# A turn by 0.4 about a skew axis, from its quaternion.
W, (X, Y, Z) = np.cos(0.2), np.sin(0.2) * np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
OBLIQUE = np.array(
    [
        [1 - 2 * (Y * Y + Z * Z), 2 * (X * Y - W * Z), 2 * (X * Z + W * Y)],
        [2 * (X * Y + W * Z), 1 - 2 * (X * X + Z * Z), 2 * (Y * Z - W * X)],
        [2 * (X * Z - W * Y), 2 * (Y * Z + W * X), 1 - 2 * (X * X + Y * Y)],
    ]
)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".npz"])
@pytest.mark.parametrize("slant", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_any_order_of_axes_comes_back(tmp_path: Path, suffix: str, slant: np.ndarray) -> None:
    numbers = np.random.default_rng(0).integers(-1000, 1000, (2, 3, 4)).astype(np.int16)
    assert len({order.tobytes() for order in ORDERS}) == 48
    for number, order in enumerate(ORDERS):
        volume = Volume(numbers, (2.5, 0.7, 1 / 3), (-71.3, 58.2, 99.9), slant @ order)
        source = write_volume(tmp_path / f"scan{number}{suffix}", volume)
        stored = read_volume(source)
        canonical = to_canonical(stored)
        np.testing.assert_allclose(canonical.direction, slant, atol=1e-5)
        # A mask made by the network, on its order of axes.
        mask = replace(canonical, array=(canonical.array + 1000).astype(np.uint16))
        back = from_canonical(mask, like=stored)
        written = [write_volume(tmp_path / f"mask{number}{suffix}", back)]
        if suffix.startswith(".nii"):
            # The other kinds are written the same either way.
            written.append(write_like(tmp_path / f"like{number}{suffix}", back, source=source))
        for path in written:
            found = read_volume(path)
            assert found.size_voxels == volume.size_voxels
            np.testing.assert_allclose(found.spacing_mm, volume.spacing_mm, rtol=0, atol=1e-5)
            np.testing.assert_allclose(found.origin_mm, volume.origin_mm, rtol=0, atol=1e-5)
            np.testing.assert_allclose(found.direction, volume.direction, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(found.array, numbers + 1000)
