"""Writing a mask with the very header of the scan that it was made for.

`write_volume` writes the geometry anew, from a spacing, an origin and a direction. Where the scan
is a NIfTI file that loses something: which of the two forms it has, their codes, the last bits of
its matrix. Viewers that compare headers then warn, or shift the mask.
"""

import gzip
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

import numpy as np

from voxlift.core.errors import DataError
from voxlift.core.files import write_aside
from voxlift.data.nifti import check_nifti
from voxlift.data.nifti_geometry import farthest_voxels, nifti_geometry
from voxlift.data.nifti_header import NiftiHeader, is_compressed, read_nifti_header
from voxlift.data.simpleitk_volumes import writable
from voxlift.data.volume import Volume
from voxlift.data.volumes import check_volume_path, write_volume

# The place in the patient, and nothing that could name him.
_COPIED = (
    "pixdim",
    "xyzt_units",
    "qform_code",
    "sform_code",
    *(f"quatern_{axis}" for axis in "bcd"),
    *(f"qoffset_{axis}" for axis in "xyz"),
    *(f"srow_{axis}" for axis in "xyz"),
)
_NIFTI_SUFFIXES = (".nii", ".nii.gz")
# Between the grid of the header and that of the volume, in voxels.
_TOLERANCE = 0.05


def write_like(
    path: str | Path, volume: Volume, *, source: str | Path, overwrite: bool = False
) -> Path:
    """Write a mask, or anything else on the grid of a scan, as a file of the scan's own kind.

    If both are NIfTI, the file has the version, byte order, matrices, codes and units of the
    source bit by bit, the data type of the volume and no scaling; of the source's text nothing is
    kept. In all other cases the file is that of `write_volume`.

    Args:
        path: Where to; the suffix chooses the format, as for `write_volume`.
        volume: What to write, on the grid of the source. Booleans are written as 0 and 1.
        source: The file or DICOM folder that the grid comes from.
        overwrite: Replace a file that stands there.

    Returns:
        The path.

    Raises:
        DataError: If the volume is not on the grid of a NIfTI source, the suffix is none of those
            written, the file is there already, or there is no space or right to write it.
    """
    path, source = Path(path), Path(source)
    suffix = check_volume_path(path, overwrite=overwrite)
    if suffix not in _NIFTI_SUFFIXES or not source.name.lower().endswith(_NIFTI_SUFFIXES):
        return write_volume(path, volume, overwrite=overwrite)
    try:
        header = read_nifti_header(source)
    except OSError as error:
        raise DataError(
            f"{source} could not be read: {error.strerror or error}. "
            "Its header is needed to write a file like it."
        ) from error
    _check_grid(source, header, volume)
    volume = replace(volume, array=writable(volume.array))
    with write_aside(path) as aside:
        _write(aside, header, volume.array)
        check_nifti(aside)
    return path


def _check_grid(source: Path, header: NiftiHeader, volume: Volume) -> None:
    if volume.size_voxels != header.size_voxels:
        raise DataError(
            f"{source} has {header.size_voxels} voxels (depth, height, width), but what is to be "
            f"written with its header has {volume.size_voxels}. Resample it to the scan first."
        )
    grid = Volume(np.broadcast_to(np.uint8(0), header.size_voxels), *nifti_geometry(source, header))
    off = farthest_voxels(volume.affine, grid.affine, header.size_voxels)
    if off > _TOLERANCE:
        raise DataError(
            f"What is to be written with the header of {source} lies up to {off:.2f} voxels "
            "beside it. Resample it to the scan first."
        )


def _write(path: Path, header: NiftiHeader, array: np.ndarray) -> None:
    from nibabel.spatialimages import HeaderDataError

    kind = type(header.raw)
    new = kind(endianness=header.raw.endianness)
    try:
        new.set_data_dtype(array.dtype)
        new.set_data_shape(array.shape[::-1])
    except HeaderDataError as error:
        raise DataError(
            f"{path.name}: NIfTI holds no volume of type {array.dtype} ({error}). "
            "Convert it to a common type, such as uint8 or float32."
        ) from error
    for name in _COPIED:
        new[name] = header.raw[name]
    first_byte = int(new["sizeof_hdr"]) + 4
    new["vox_offset"] = first_byte
    new["scl_slope"], new["scl_inter"] = 1, 0
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("wb"))
        if is_compressed(path):
            # Without the name and the time, the same mask makes the same file.
            zipped = gzip.GzipFile("", "wb", fileobj=file, mtime=0, compresslevel=6)
            file = cast("IO[bytes]", stack.enter_context(zipped))
        file.write(new.binaryblock)
        file.write(bytes(first_byte - len(new.binaryblock)))
        # Slice by slice: no second copy of a large mask.
        for one in array:
            file.write(one.astype(new.get_data_dtype(), copy=False).tobytes())
