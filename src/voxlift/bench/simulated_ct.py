"""A large made-up CT on disk, written slice by slice, so that making it takes no memory."""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxlift.core.randomness import numpy_generator
from voxlift.core.types import Triple

SPACING_MM = (1.0, 0.8, 0.8)
_AIR_HU, _BODY_HU = -1000, 40
# Blocks of tissue: darker and brighter organs, bone.
_BLOCKS_HU = (-100, 0, 70, 120, 700)
_NOISE_HU = 20
_HEADER_BYTES = 352


def write_simulated_ct(path: Path, *, size_voxels: Triple, seed: int = 0) -> None:
    """Write a `.nii.gz` of 16-bit Hounsfield units: blocks of constant tissue, and noise.

    Args:
        path: The file.
        size_voxels: Size of the scan.
        seed: Determines the voxels.
    """
    import nibabel

    depth, height, width = size_voxels
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((width, height, depth))
    header.set_zooms(SPACING_MM[::-1])
    header.set_sform(np.diag([-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1.0]), code=1)
    header.set_xyzt_units("mm")
    header["vox_offset"] = _HEADER_BYTES
    tissue = _blocks(size_voxels, seed)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock.ljust(_HEADER_BYTES, b"\0"))
        for number in range(depth):
            generator = numpy_generator(seed, "simulated-ct", number)
            noise = generator.integers(-_NOISE_HU, _NOISE_HU + 1, (height, width), dtype=np.int16)
            # Each plane of tissue is a tenth of the scan deep.
            plane = tissue[number * len(tissue) // depth]
            file.write((plane + noise).astype("<i2").tobytes())


def _blocks(size_voxels: Triple, seed: int) -> npt.NDArray[np.int16]:
    """Make a few planes with a body in air and blocks of tissue in it."""
    _, height, width = size_voxels
    generator = numpy_generator(seed, "simulated-ct")
    planes = np.full((10, height, width), _AIR_HU, dtype=np.int16)
    planes[:, height // 8 : -(height // 8), width // 8 : -(width // 8)] = _BODY_HU
    for plane in planes:
        for hounsfield in _BLOCKS_HU:
            top = int(generator.integers(height // 8, height // 2))
            left = int(generator.integers(width // 8, width // 2))
            plane[top : top + height // 4, left : left + width // 4] = hounsfield
    return planes
