"""The voxels of NIfTI files.

SimpleITK reads a file that was cut off without a word, and puts zeros in the place of NaN. Here the
file is decompressed to its end, once, its check sum compared, and the values are kept.
"""

from pathlib import Path

import numpy as np

from voxlift.data.nifti_geometry import nifti_geometry
from voxlift.data.nifti_header import NiftiHeader, is_compressed, read_nifti_header
from voxlift.data.stored_voxels import StoredVoxels
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import several_channels


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file (.nii, .nii.gz, version 1 or 2) with one channel.

    Values are scaled by the slope and the intercept of the header, where it has them. The geometry
    is the one that SimpleITK chooses where the header has both a qform and an sform.

    Raises:
        DataError: If the file is damaged or cut, not three-dimensional, or its axes are sheared.
    """
    header = read_nifti_header(path)
    if header.num_channels > 1:
        raise several_channels(path, header.num_channels)
    return _read(path, header)[0]


def read_nifti_channels(path: Path) -> tuple[Volume, ...]:
    """Read a NIfTI file with any number of channels, as its fourth or fifth dimension.

    Raises:
        DataError: As `read_nifti`, but for the number of dimensions.
    """
    return _read(path, read_nifti_header(path))


def check_nifti(path: Path) -> None:
    """Check that a NIfTI file can be read and is whole, in little memory.

    Raises:
        DataError: If the file is damaged or cut, not three-dimensional, or its axes are sheared.
    """
    header = read_nifti_header(path)
    nifti_geometry(path, header)
    _stored_voxels(path, header).check()


def _read(path: Path, header: NiftiHeader) -> tuple[Volume, ...]:
    geometry = nifti_geometry(path, header)
    stored = _stored_voxels(path, header).read()
    return tuple(Volume(_scale(channel, header), *geometry) for channel in stored)


def _stored_voxels(path: Path, header: NiftiHeader) -> StoredVoxels:
    return StoredVoxels(
        path=path,
        file=path,
        # The width runs fastest in the file, the channel slowest.
        shape=(header.num_channels, *header.size_voxels),
        dtype=header.dtype,
        packing="gzip" if is_compressed(path) else "none",
        skipped=header.first_byte,
    )


def _scale(stored: np.ndarray, header: NiftiHeader) -> np.ndarray:
    """Apply slope and intercept, in 32 bits where these hold every stored value."""
    native = stored.dtype.newbyteorder("=")
    if (header.slope, header.intercept) == (1.0, 0.0):
        # Beyond 64 bits no network and no other format goes.
        wide = stored.dtype.kind == "f" and stored.dtype.itemsize > 8
        return stored.astype(np.float64 if wide else native, copy=False)
    narrow = stored.dtype.itemsize <= 2 or native == np.float32
    scaled = np.empty(stored.shape, np.float32 if narrow else np.float64)
    # Slice by slice, so that the doubles are never there for all of them.
    for index, one in enumerate(stored):
        scaled[index] = one.astype(np.float64) * header.slope + header.intercept
    return scaled
