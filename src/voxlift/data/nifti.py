"""NIfTI files: the voxels read here, the place in the patient read by SimpleITK.

SimpleITK alone reads a file that was cut off without a word, and puts zeros in the place of NaN.
Here the file is decompressed to its end, once, its check sum compared, and the values are kept.
"""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import DataError
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import check_count, check_size, count_gzip, damaged

if TYPE_CHECKING:
    from nibabel import Nifti1Header

_Geometry = tuple[
    tuple[float, float, float], tuple[float, float, float], Float64[np.ndarray, "3 3"]
]

_SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Header:
    """What is needed of a NIfTI header. Shape is (width, height, depth, ...), as in the file."""

    version: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first_byte: int
    slope: float
    intercept: float

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file (.nii, .nii.gz, version 1 or 2).

    Values are scaled by the slope and the intercept of the header, where it has them. The geometry
    is the one that SimpleITK chooses where the header has both a qform and an sform.

    Raises:
        DataError: If the file is damaged or cut, not three-dimensional, or its axes are sheared.
    """
    header = _read_header(path)
    depth, height, width = header.shape[2::-1]
    stored = np.frombuffer(_read_voxels(path, header), dtype=header.dtype)
    # The width runs fastest in the file: this is the C order of (depth, height, width).
    array = _scale(stored.reshape(depth, height, width), header)
    geometry = _parse_geometry(path) if header.version == 2 else _read_geometry(path)
    return Volume(array, *geometry)


def check_nifti(path: Path) -> None:
    """Check that a NIfTI file can be read and is whole, in little memory.

    Raises:
        DataError: If the file is damaged or cut, not three-dimensional, or its axes are sheared.
    """
    header = _read_header(path)
    if _is_compressed(path):
        with path.open("rb") as file:
            found = count_gzip(path, file)
    else:
        found = path.stat().st_size
    check_count(path, found=found - header.first_byte, promised=header.num_bytes)


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _read_header(path: Path) -> _Header:
    from nibabel.spatialimages import HeaderDataError

    try:
        header = _parse_header(path)
        shape = tuple(int(size) for size in header.get_data_shape())
        dtype = np.dtype(header.get_data_dtype())
        first_byte = int(header["vox_offset"])
        slope, intercept = header.get_slope_inter()
        steps = np.asarray(header["pixdim"][1:4], dtype=np.float64)
        sform = header.get_sform(coded=True)[0]
    except (HeaderDataError, EOFError, OSError, ValueError, OverflowError, zlib.error) as error:
        raise damaged(path, f"its NIfTI header cannot be read ({error})") from error
    check_size(path, shape)
    if len(shape) < 3 or math.prod(shape[3:]) > 1:
        raise DataError(
            f"{path}: it has {len(shape)} dimensions, of size {shape[::-1]}; expected three "
            "dimensions (depth, height, width). Save one channel or one point in time as a file "
            "of its own, a single slice as (1, height, width)."
        )
    if dtype.kind not in "iuf":
        raise DataError(
            f"{path}: its voxels are of type {dtype}; expected whole or real numbers. "
            "Save each channel as a file of its own."
        )
    if not np.isfinite(steps).all() or (steps <= 0).any():
        raise DataError(
            f"{path}: its header states the voxel spacing {steps[::-1].tolist()} (depth, height, "
            "width); expected positive numbers. Set it right in the file."
        )
    if sform is not None:
        _check_axes(path, np.asarray(sform, dtype=np.float64)[:3, :3])
    return _Header(
        version=1 if int(header["sizeof_hdr"]) == 348 else 2,
        shape=shape,
        dtype=dtype,
        first_byte=max(first_byte, int(header["sizeof_hdr"]) + 4),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _parse_header(path: Path) -> "Nifti1Header":
    """Parse the header as it stands; `nibabel.load` would mend impossible values unasked."""
    from nibabel import Nifti1Header, Nifti2Header

    with path.open("rb") as file:
        block = gzip.GzipFile(fileobj=file).read(540) if _is_compressed(path) else file.read(540)
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")} & {348, 540}
    if not sizes or len(block) < max(sizes):
        raise ValueError("it does not begin with a whole NIfTI header")
    kind = Nifti1Header if 348 in sizes else Nifti2Header
    header = kind(block[: max(sizes)], check=False)
    if not bytes(header["magic"]).startswith(b"n+"):
        raise ValueError("it is Analyze, or NIfTI in two files; save it as one .nii.gz file")
    return cast("Nifti1Header", header)


def _check_axes(path: Path, axes: Float64[np.ndarray, "3 3"]) -> None:
    """Refuse axes that are not at right angles, even where SimpleITK would ignore them."""
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or (lengths <= 0).any():
        raise DataError(
            f"{path}: its sform matrix is {axes.tolist()}, which are no three axes. "
            "Set it right in the file."
        )
    axes = axes / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR_TOLERANCE:
        raise DataError(
            f"{path}: the axes of its sform matrix are not at right angles (it is sheared). "
            "Resample it to a straight grid first, for instance with "
            "`nibabel.processing.resample_to_output`."
        )


def _read_geometry(path: Path) -> _Geometry:
    """Read spacing, origin and direction as SimpleITK understands them."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise DataError(
            f"{path}: its place in the patient cannot be read: {reason} "
            "Set the qform or sform right in the file."
        ) from error
    depth, height, width = reversed(reader.GetSpacing())
    direction = np.array(reader.GetDirection(), dtype=np.float64).reshape(3, 3)
    return (depth, height, width), reader.GetOrigin(), direction


def _parse_geometry(path: Path) -> _Geometry:
    """Work out spacing, origin and direction of NIfTI-2, which SimpleITK does not read.

    The sform is taken, else the qform; without either the axes are those of LPS.
    """
    header = _parse_header(path)
    unit = {"meter": 1e3, "micron": 1e-3}.get(header.get_xyzt_units()[0], 1.0)
    steps = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    affine = np.diag([*steps, 1.0])
    if header["sform_code"] > 0 or header["qform_code"] > 0:
        # NIfTI's x and y grow to the right and to the front: RAS, where ours is LPS.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ header.get_best_affine()
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    width, height, depth = (float(length) * unit for length in lengths)
    x, y, z = (float(place) * unit for place in affine[:3, 3])
    return (depth, height, width), (x, y, z), affine[:3, :3] / lengths


def _read_voxels(path: Path, header: _Header) -> bytearray:
    """Read the bytes of the voxels; a compressed file is read to its end, check sum and all."""
    if not _is_compressed(path):
        # Compared before memory is taken for what the header claims.
        found = path.stat().st_size - header.first_byte
        check_count(path, found=found, promised=header.num_bytes)
        with path.open("rb") as file:
            file.seek(header.first_byte)
            return bytearray(file.read(header.num_bytes))
    voxels = bytearray()
    with path.open("rb") as file, gzip.GzipFile(fileobj=file) as stream:
        try:
            stream.read(header.first_byte)
            while len(voxels) < header.num_bytes and (
                chunk := stream.read(min(2**22, header.num_bytes - len(voxels)))
            ):
                voxels += chunk
            while stream.read(2**20):
                pass
        except (EOFError, OSError, zlib.error) as error:
            raise damaged(path, f"it cannot be decompressed to its end ({error})") from error
    check_count(path, found=len(voxels), promised=header.num_bytes)
    return voxels


def _scale(stored: np.ndarray, header: _Header) -> np.ndarray:
    """Apply slope and intercept, in 32 bits where these hold every stored value."""
    native = stored.dtype.newbyteorder("=")
    if (header.slope, header.intercept) == (1.0, 0.0):
        # Beyond 64 bits no network and no other format goes.
        wide = stored.dtype.kind == "f" and stored.dtype.itemsize > 8
        return stored.astype(np.float64 if wide else native, copy=False)
    narrow = stored.dtype.itemsize <= 2 or native == np.float32
    scaled = stored.astype(np.float64) * header.slope + header.intercept
    return scaled.astype(np.float32 if narrow else np.float64, copy=False)
