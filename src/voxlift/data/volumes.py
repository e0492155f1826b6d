"""Reading scans into arrays with their place in the patient, and writing them back.

NIfTI, NRRD, MetaImage, DICOM series folders and NumPy files become a `Volume` (see
`voxlift.data.volume` for its axes). Nothing is reoriented or resampled on the way, and of a file's
tags only the geometry is kept.
"""

import logging
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np

from voxlift.core.errors import DataError
from voxlift.core.files import write_aside
from voxlift.data.dicom import holds_dicom, read_dicom_series
from voxlift.data.nifti import check_nifti, read_nifti
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import check_meta, check_nrrd, check_size

__all__ = ["Volume", "is_volume_path", "read_channels", "read_volume", "write_volume"]

logger = logging.getLogger(__name__)

_CHECKS = {
    ".nii": check_nifti,
    ".nii.gz": check_nifti,
    ".nrrd": check_nrrd,
    ".nhdr": check_nrrd,
    ".mha": check_meta,
    ".mhd": check_meta,
}
_NUMPY_SUFFIXES = (".npy", ".npz")
_WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".npz")
_ARRAY_NAMES = ("voxel", "image", "volume")


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
        series_uid: Which series to read from a folder that holds several.
        check_finite: Refuse NaN and infinity.

    Returns:
        The scan, with the rescale slope and intercept of the file applied (so CT is in HU).

    Raises:
        DataError: If there is no such file, it is of an unknown kind, damaged, not
            three-dimensional, or its geometry is not a straight, even grid.
    """
    path = Path(path)
    try:
        if path.is_dir():
            volume = read_dicom_series(path, series_uid=series_uid)
        else:
            volume = _read_file(path)
        if check_finite:
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
    return volume


def read_channels(
    path: str | Path, *, series_uid: str | None = None, check_finite: bool = True
) -> tuple[Volume, ...]:
    """Read a scan that may hold several channels in one file, a `Volume` for each."""
    return (read_volume(path, series_uid=series_uid, check_finite=check_finite),)


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
    suffix = _suffix(path)
    if suffix not in _WRITTEN_SUFFIXES:
        raise DataError(
            f"{path}: volumes are written as {', '.join(_WRITTEN_SUFFIXES)}. Choose one of these."
        )
    if path.exists() and not overwrite:
        raise DataError(f"{path} is there already. Choose another name, or pass overwrite=True.")
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
            _write_simpleitk(aside, volume)
            # A full disk in the middle of compressed data is no error to SimpleITK.
            _CHECKS[suffix](aside)
    return path


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    known = (".nii.gz", *_CHECKS, *_NUMPY_SUFFIXES)
    return next((suffix for suffix in known if name.endswith(suffix)), None)


def _read_file(path: Path) -> Volume:
    if not path.is_file():
        raise DataError(f"{path} is not there. Check the path.")
    suffix = _suffix(path)
    if suffix is None:
        raise DataError(
            f"{path}: this kind of file is not read. Expected "
            f"{', '.join((*_CHECKS, *_NUMPY_SUFFIXES))}, or the folder of a DICOM series "
            "(for a single DICOM file, too, give its folder)."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Copy it again, or leave it out (--skip-bad).")
    if suffix in _NUMPY_SUFFIXES:
        return _read_numpy(path, suffix)
    if suffix in (".nii", ".nii.gz"):
        return read_nifti(path)
    _CHECKS[suffix](path)
    return _read_simpleitk(path)


def _read_simpleitk(path: Path) -> Volume:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        check_size(path, reader.GetSize())
        if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
            raise DataError(
                f"{path}: it has {reader.GetDimension()} dimensions of size "
                f"{reader.GetSize()[::-1]} with {reader.GetNumberOfComponents()} values a voxel; "
                "expected three dimensions (depth, height, width) with one value. Save one "
                "channel or one point in time as a file of its own, a single slice as "
                "(1, height, width)."
            )
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise DataError(
            f"{path} could not be read: {reason} Copy it again, or leave it out (--skip-bad)."
        ) from error
    depth, height, width = reversed(image.GetSpacing())
    return Volume(
        array=SimpleITK.GetArrayFromImage(image),
        spacing_mm=(depth, height, width),
        origin_mm=image.GetOrigin(),
        direction=np.array(image.GetDirection()).reshape(3, 3),
    )


def _write_simpleitk(path: Path, volume: Volume) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(_writable(volume.array))
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    try:
        SimpleITK.WriteImage(image, str(path), useCompression=not path.name.endswith(".nii"))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise OSError(reason) from error


def _writable(array: np.ndarray) -> np.ndarray:
    """Booleans and half precision are not in the formats; both have an exact stand-in."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _read_numpy(path: Path, suffix: str) -> Volume:
    try:
        if suffix == ".npy":
            # Mapping the file compares its size with the header before memory is taken.
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            arrays = {"array": np.array(_native(mapped))}
        else:
            arrays = _read_npz(path)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} could not be read as a NumPy file: {error}. Only plain arrays are read "
            "(no pickled objects). Save it again, or leave it out (--skip-bad)."
        ) from error
    if "spacing_mm" not in arrays:
        logger.info("%s states no geometry: a spacing of 1 mm is taken.", path.name)
    array = _choose_array(path, arrays)
    geometry = {
        name: arrays[name] for name in ("spacing_mm", "origin_mm", "direction") if name in arrays
    }
    return Volume(array=array, **cast("dict[str, Any]", geometry))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the members of an .npz file, refusing claims of size that the file cannot hold."""
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            check_size(path, (max(member.file_size // 16, 1),))
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(file)
                if int(np.prod(shape, dtype=object)) * dtype.itemsize > member.file_size:
                    raise ValueError(f"{member.filename} claims the size {shape} but is shorter")
            with archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                # Reading on to the end compares the check sum of the archive.
                file.read(1)
            arrays[member.filename.removesuffix(".npy")] = _native(array)
    return arrays


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _choose_array(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    named = [name for name in _ARRAY_NAMES if name in arrays]
    if named:
        return arrays[named[0]]
    solid = [name for name, array in arrays.items() if array.ndim == 3]
    if len(solid) == 1:
        return arrays[solid[0]]
    found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
    raise DataError(
        f"{path}: which array is the volume? It holds {found}. Keep one 3D array, or name it "
        f"{' or '.join(_ARRAY_NAMES)}."
    )
