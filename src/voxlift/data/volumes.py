"""Reading scans into arrays with their place in the patient, and writing them back.

NIfTI, NRRD, MetaImage, DICOM series folders and NumPy files become a `Volume` (see
`voxlift.data.volume` for its axes). Nothing is reoriented or resampled on the way, and of a file's
tags only the geometry is kept.
"""

import os
from pathlib import Path

import numpy as np

from voxlift.core.errors import DataError
from voxlift.core.files import write_aside
from voxlift.data.dicom import read_dicom_series
from voxlift.data.dicom_series import holds_dicom
from voxlift.data.meta_header import check_meta, read_meta
from voxlift.data.nifti import check_nifti, read_nifti, read_nifti_channels
from voxlift.data.nrrd_header import check_nrrd, read_nrrd
from voxlift.data.numpy_volumes import read_numpy_channels
from voxlift.data.simpleitk_volumes import write_simpleitk
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import several_channels

__all__ = [
    "Volume",
    "check_volume_path",
    "is_volume_path",
    "read_channels",
    "read_volume",
    "write_volume",
]

_CHECKS = {
    ".nii": check_nifti,
    ".nii.gz": check_nifti,
    ".nrrd": check_nrrd,
    ".nhdr": check_nrrd,
    ".mha": check_meta,
    ".mhd": check_meta,
}
_READERS = {
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".mha": read_meta,
    ".mhd": read_meta,
    ".npy": read_numpy_channels,
    ".npz": read_numpy_channels,
}
_READ_SUFFIXES = (".nii.gz", ".nii", *_READERS)
_WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".npz")


def is_volume_path(path: str | Path) -> bool:
    """Tell whether a path is of a kind that `read_volume` reads, without reading the voxels.

    Returns:
        True for a file with a known suffix and for a folder that holds a DICOM file.
    """
    path = Path(path)
    if path.is_dir():
        return holds_dicom(path)
    return path.is_file() and _suffix(path) is not None


def read_volume(
    path: str | Path, *, series_uid: str | None = None, check_finite: bool = True
) -> Volume:
    """Read one scan with its place in the patient. The axes stay in the order of the file.

    Args:
        path: A NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd) or NumPy file
            (.npy, .npz), or the folder of a DICOM series. An .npz holds one 3D array, or names its
            array `voxel`, `image` or `volume`; `spacing_mm`, `origin_mm` and `direction` are read
            if they are there. Where a file states no geometry, the spacing is 1 mm, and the log
            says so.
        series_uid: Which series to read from a folder that holds several; see
            `voxlift.data.dicom_series.list_series`.
        check_finite: Refuse NaN and infinity.

    Returns:
        The scan, with the rescale slope and intercept of the file applied (so CT is in HU).

    Raises:
        DataError: If there is no such file, it is of an unknown kind, damaged, not
            three-dimensional, or its geometry is not a straight, even grid.
    """
    (volume,) = _read(Path(path), series_uid=series_uid, check_finite=check_finite, several=False)
    return volume


def read_channels(
    path: str | Path, *, series_uid: str | None = None, check_finite: bool = True
) -> tuple[Volume, ...]:
    """Read a scan that may hold several channels in one file.

    Channels are the fourth dimension of a NIfTI file (as in the Medical Segmentation Decathlon) or
    its fifth after an empty fourth, the values a voxel or the fourth dimension of an NRRD or
    MetaImage file, and the first of four dimensions of a NumPy array.

    Args:
        path: As for `read_volume`.
        series_uid: As for `read_volume`.
        check_finite: Refuse NaN and infinity.

    Returns:
        A volume for each channel, all on the same grid; one for a three-dimensional file.

    Raises:
        DataError: As `read_volume`, but for the number of dimensions.
    """
    return _read(Path(path), series_uid=series_uid, check_finite=check_finite, several=True)


def write_volume(path: str | Path, volume: Volume, *, overwrite: bool = False) -> Path:
    """Write a scan or a mask with its place in the patient, in one step.

    Args:
        path: Where to; the suffix chooses the format: .nii.gz, .nii, .nrrd, .mha or .npz.
        volume: What to write. Booleans are written as 0 and 1.
        overwrite: Replace a file that stands there.

    Returns:
        The path.

    Raises:
        DataError: If the suffix is not one of these, the file is there already, or there is no
            space or right to write it.
    """
    path = Path(path)
    suffix = check_volume_path(path, overwrite=overwrite)
    with write_aside(path) as aside:
        if suffix == ".npz":
            np.savez_compressed(
                aside,
                volume=volume.array,
                spacing_mm=np.array(volume.spacing_mm),
                origin_mm=np.array(volume.origin_mm),
                direction=volume.direction,
            )
        else:
            write_simpleitk(aside, volume)
            _check_written(path, aside, suffix)
    return path


def _check_written(path: Path, aside: Path, suffix: str) -> None:
    """Read back what was written: a full disk in mid-write is no error to SimpleITK."""
    try:
        _CHECKS[suffix](aside)
    except DataError as error:
        raise DataError(
            f"{path} could not be written: what reached the disk is cut off. "
            "Free some space, or choose another folder with --out."
        ) from error


def check_volume_path(path: Path, *, overwrite: bool) -> str:
    """Check that a volume may be written to a path, and return the suffix that says how.

    Raises:
        DataError: If the suffix is none of those written, or a file stands there already.
    """
    suffix = _suffix(path)
    if suffix not in _WRITTEN_SUFFIXES:
        raise DataError(
            f"{path}: volumes are written as {', '.join(_WRITTEN_SUFFIXES)}. Choose one of these."
        )
    if os.path.lexists(path) and not overwrite:
        raise DataError(f"{path} is there already. Choose another name, or pass overwrite=True.")
    return suffix


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in _READ_SUFFIXES if name.endswith(suffix)), None)


def _read(
    path: Path, *, series_uid: str | None, check_finite: bool, several: bool
) -> tuple[Volume, ...]:
    try:
        if path.is_dir():
            volumes: tuple[Volume, ...] = (read_dicom_series(path, series_uid=series_uid),)
        else:
            volumes = _read_file(path, several=several)
        if check_finite:
            for volume in volumes:
                volume.check_finite()
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(
            f"{path} could not be read: {error.strerror or error}. "
            "Check the path and the right to read it."
        ) from error
    return volumes


def _read_file(path: Path, *, several: bool) -> tuple[Volume, ...]:
    if not path.is_file():
        raise DataError(f"{path} is not there. Check the path.")
    suffix = _suffix(path)
    if suffix is None:
        raise DataError(
            f"{path}: this kind of file is not read. Expected "
            f"{', '.join(_READ_SUFFIXES)}, or the folder of a DICOM series "
            "(for a single DICOM file, too, give its folder)."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Copy it again, or leave it out (--skip-bad).")
    if suffix in (".nii", ".nii.gz"):
        return read_nifti_channels(path) if several else (read_nifti(path),)
    volumes = _READERS[suffix](path)
    if len(volumes) > 1 and not several:
        raise several_channels(path, len(volumes))
    return volumes
