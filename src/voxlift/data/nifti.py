"""The voxels of NIfTI files.

SimpleITK reads a file that was cut off without a word, and puts zeros in the place of NaN. Here the
file is decompressed to its end, once, its check sum compared, and the values are kept.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from voxlift.data.nifti_geometry import nifti_geometry
from voxlift.data.nifti_header import NiftiHeader, is_compressed, read_nifti_header
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import check_count, count_gzip, damaged, several_channels


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
    if is_compressed(path):
        with path.open("rb") as file:
            found = count_gzip(path, file)
    else:
        found = path.stat().st_size
    check_count(path, found=found - header.first_byte, promised=header.num_bytes)


def _read(path: Path, header: NiftiHeader) -> tuple[Volume, ...]:
    geometry = nifti_geometry(path, header)
    stored = np.frombuffer(_read_voxels(path, header), dtype=header.dtype)
    # The width runs fastest in the file, the channel slowest.
    stored = stored.reshape(header.num_channels, *header.size_voxels)
    return tuple(Volume(_scale(channel, header), *geometry) for channel in stored)


def _read_voxels(path: Path, header: NiftiHeader) -> bytearray:
    """Read the bytes of the voxels; a compressed file is read to its end, check sum and all."""
    if not is_compressed(path):
        # Compared before memory is taken for what the header claims.
        found = path.stat().st_size - header.first_byte
        check_count(path, found=found, promised=header.num_bytes)
        with path.open("rb") as file:
            file.seek(header.first_byte)
            voxels = bytearray(header.num_bytes)
            file.readinto(voxels)
            return voxels
    voxels = bytearray()
    with path.open("rb") as file, gzip.GzipFile(fileobj=file) as stream:
        try:
            stream.seek(header.first_byte)
            while len(voxels) < header.num_bytes and (
                chunk := stream.read(min(2**22, header.num_bytes - len(voxels)))
            ):
                voxels += chunk
            while stream.read(2**20):
                pass
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise damaged(path, f"it cannot be decompressed to its end ({error})") from error
    check_count(path, found=len(voxels), promised=header.num_bytes)
    return voxels


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
