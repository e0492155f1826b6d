"""What a NIfTI header states, checked before anything is read for it."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from voxlift.core.errors import DataError
from voxlift.core.types import Triple
from voxlift.data.volume_integrity import check_size, damaged

if TYPE_CHECKING:
    from nibabel import Nifti1Header

_STEP_BOUNDS = (1e-20, 1e20)
# Far more than any extension of a header takes.
_MAX_OFFSET_BYTES = 2**31


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """A checked NIfTI header, of version 1 or 2.

    Attributes:
        raw: As it stands in the file.
        size_voxels: Size in space.
        num_channels: Channels or points in time; 1 for a plain volume.
        dtype: Type and byte order of the stored values.
        first_byte: Where the voxels begin.
        slope: What the stored values are multiplied by.
        intercept: What is added then.
    """

    raw: "Nifti1Header"
    size_voxels: Triple
    num_channels: int
    dtype: np.dtype[Any]
    first_byte: int
    slope: float
    intercept: float

    @property
    def num_bytes(self) -> int:
        """How many bytes the voxels take."""
        return math.prod(self.size_voxels) * self.num_channels * self.dtype.itemsize


def is_step(lengths: np.ndarray) -> bool:
    """Tell whether lengths can be distances of voxels; far beyond, 64 bits cannot hold a volume."""
    return bool(((lengths > _STEP_BOUNDS[0]) & (lengths < _STEP_BOUNDS[1])).all())


def is_compressed(path: Path) -> bool:
    """Tell by its name whether a NIfTI file is compressed."""
    return path.name.lower().endswith(".gz")


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read and check the header of a NIfTI file.

    Raises:
        DataError: If it is damaged, or states a size, type or spacing that no scan has.
    """
    from nibabel.spatialimages import HeaderDataError

    try:
        raw = _parse(path)
        shape = tuple(int(size) for size in raw.get_data_shape())
        dtype = np.dtype(raw.get_data_dtype())
        first_byte = int(raw["vox_offset"])
        slope, intercept = raw.get_slope_inter()
        steps = np.asarray(raw["pixdim"][1:4], dtype=np.float64)
    except (
        HeaderDataError,
        EOFError,
        KeyError,
        gzip.BadGzipFile,
        ValueError,
        OverflowError,
        zlib.error,
    ) as error:
        raise damaged(path, f"its NIfTI header cannot be read ({error})") from error
    check_size(path, shape)
    if first_byte > _MAX_OFFSET_BYTES:
        raise damaged(path, f"its header states that the voxels begin at byte {first_byte}")
    if len(shape) < 3 or sum(size > 1 for size in shape[3:]) > 1:
        raise DataError(
            f"{path}: it has {len(shape)} dimensions, of size {shape[::-1]}; expected three "
            "dimensions (depth, height, width), or four with the channels. Save one channel or "
            "one point in time as a file of its own, a single slice as (1, height, width)."
        )
    if dtype.kind not in "iuf":
        raise DataError(
            f"{path}: its voxels are of type {dtype}; expected whole or real numbers. "
            "Save each channel as a file of its own."
        )
    if not is_step(steps):
        raise DataError(
            f"{path}: its header states the voxel spacing {steps[::-1].tolist()} (depth, height, "
            "width); expected positive numbers. Set it right in the file."
        )
    return NiftiHeader(
        raw=raw,
        size_voxels=(shape[2], shape[1], shape[0]),
        num_channels=math.prod(shape[3:]),
        dtype=dtype,
        first_byte=max(first_byte, int(raw["sizeof_hdr"]) + 4),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _parse(path: Path) -> "Nifti1Header":
    """Parse the header as it stands; `nibabel.load` would mend impossible values unasked."""
    from nibabel import Nifti1Header, Nifti2Header

    with path.open("rb") as file:
        block = gzip.GzipFile(fileobj=file).read(540) if is_compressed(path) else file.read(540)
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")} & {348, 540}
    if not sizes or len(block) < max(sizes):
        raise ValueError("it does not begin with a whole NIfTI header")
    kind = Nifti1Header if 348 in sizes else Nifti2Header
    header = kind(block[: max(sizes)], check=False)
    if not bytes(header["magic"]).startswith(b"n+"):
        raise ValueError("it is Analyze, or NIfTI in two files; save it as one .nii.gz file")
    return cast("Nifti1Header", header)
