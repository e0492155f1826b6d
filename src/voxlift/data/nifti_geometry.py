"""Where the voxels of a NIfTI file lie in the patient.

A header can state it twice: as a rotation (qform) and as any affine matrix (sform). The choice is
that of SimpleITK: the sform if it says that it is the scanner's own (code 1), else the qform, else
the sform; an sform that is not straight stands back behind a qform. Both are in RAS, where a
`Volume` is in LPS.
"""

import logging
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import DataError
from voxlift.core.types import Triple
from voxlift.data.nifti_header import NiftiHeader, is_step
from voxlift.data.volume import Geometry

if TYPE_CHECKING:
    from nibabel import Nifti1Header

logger = logging.getLogger(__name__)

Affine = Float64[np.ndarray, "4 4"]
_SCANNER = 1
# Cosines between axes. SimpleITK refuses more than the first; rounded matrices reach the second.
_STRAIGHT = 2e-4
_SHEAR_TOLERANCE = 1e-3
_LENGTH_TOLERANCE = 1e-4
# What is put right is worth a word from here on, in voxels.
_NOTICEABLE_SHEAR = 0.01
_NOTICEABLE_DIFFERENCE = 0.05


def nifti_geometry(path: Path, header: NiftiHeader) -> Geometry:
    """Work out spacing, origin and direction from a header.

    Axes that are nearly at right angles are straightened (the nearest rotation is taken), and the
    log says by how much the farthest corner moves.

    Args:
        path: What errors and the log call the file.
        header: Its header.

    Raises:
        DataError: If the axes are sheared, or there are none.
    """
    raw = header.raw
    unit = {1: 1e3, 3: 1e-3}.get(int(raw["xyzt_units"]) & 7, 1.0)
    sform = _sform(path, raw)
    qform = _qform(path, raw, needed=sform is None)
    if sform is None and qform is None:
        # Its axes are taken to be those of LPS, as SimpleITK does.
        logger.info("%s states no place in the patient: axes in LPS order are taken.", path.name)
        affine, name = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([*_steps(raw), 1.0]), "qform"
    elif qform is None or (sform is not None and _is_preferred(raw, sform)):
        assert sform is not None
        affine, name = sform, "sform"
    else:
        affine, name = qform, "qform"
    if sform is not None and qform is not None:
        _compare(path, sform, qform, header.size_voxels, taken=name)

    axes = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    direction = _nearest_rotation(axes / lengths)
    if np.allclose(lengths, _steps(raw), rtol=_LENGTH_TOLERANCE, atol=0):
        # The same numbers, less the rounding of the matrix.
        lengths = _steps(raw)
    straight = np.eye(4)
    straight[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ direction * lengths
    straight[:3, 3] = affine[:3, 3]
    if (off := farthest_voxels(affine, straight, header.size_voxels[::-1])) > _NOTICEABLE_SHEAR:
        logger.warning(
            "%s: the axes of its %s are not quite at right angles; they were straightened, which "
            "moves the farthest corner by %.2f voxels.",
            path.name,
            name,
            off,
        )
    width, height, depth = (float(length) * unit for length in lengths)
    x, y, z = (float(place) * unit for place in np.array([-1.0, -1.0, 1.0]) * affine[:3, 3])
    return (depth, height, width), (x, y, z), direction


def _steps(raw: "Nifti1Header") -> Float64[np.ndarray, " 3"]:
    return np.asarray(raw["pixdim"][1:4], dtype=np.float64)


def _sform(path: Path, raw: "Nifti1Header") -> Affine | None:
    """Read the sform, refusing axes that are sheared even where they would not be used."""
    if int(raw["sform_code"]) <= 0:
        return None
    affine = np.asarray(raw.get_sform(), dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not is_step(lengths):
        raise DataError(
            f"{path}: its sform matrix is {affine[:3].tolist()}, which are no three axes and an "
            "origin. Set it right in the file."
        )
    if (shear := _shear(affine)) > _SHEAR_TOLERANCE:
        angle = np.degrees(np.arcsin(min(shear, 1.0)))
        raise DataError(
            f"{path}: the axes of its sform matrix are not at right angles (it is sheared, by "
            f"{angle:.2f} degrees). Resample it to a straight grid first, for instance with "
            "`nibabel.processing.resample_to_output`."
        )
    return affine


def _qform(path: Path, raw: "Nifti1Header", *, needed: bool) -> Affine | None:
    """Read the qform; one that cannot be read matters only where there is nothing else."""
    from nibabel.quaternions import fillpositive, quat2mat

    if int(raw["qform_code"]) <= 0:
        return None
    numbers = np.array([float(raw[f"quatern_{axis}"]) for axis in "bcd"])
    offset = np.array([float(raw[f"qoffset_{axis}"]) for axis in "xyz"])
    length = float(numbers @ numbers)
    if not np.isfinite(offset).all() or not length <= 1 + 1e-5:
        if not needed:
            return None
        raise DataError(
            f"{path}: its qform has the quaternion {numbers.tolist()} and the offset "
            f"{offset.tolist()}; expected finite numbers, the squares of the quaternion's adding "
            "up to 1 at most. Set the qform or sform right in the file."
        )
    steps = _steps(raw)
    # The third axis is turned round where the header says so; 0 stands for 1.
    handed = np.array([1.0, 1.0, -1.0 if float(raw["pixdim"][0]) < 0 else 1.0])
    affine = np.eye(4)
    affine[:3, :3] = quat2mat(fillpositive(numbers / max(1.0, np.sqrt(length)))) * steps * handed
    affine[:3, 3] = offset
    return affine


def _is_preferred(raw: "Nifti1Header", sform: Affine) -> bool:
    """Tell whether an sform goes before the qform beside it."""
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    return bool(
        int(raw["sform_code"]) == _SCANNER
        and _shear(sform) <= _STRAIGHT
        and np.allclose(lengths, _steps(raw), rtol=_LENGTH_TOLERANCE, atol=0)
    )


def _shear(affine: Affine) -> float:
    """The largest cosine between two axes."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def _nearest_rotation(axes: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """The orthogonal factor of the polar decomposition."""
    left, _, right = np.linalg.svd(axes)
    rotation: Float64[np.ndarray, "3 3"] = left @ right
    return rotation


def farthest_voxels(one: Affine, other: Affine, size: Triple) -> float:
    """Say how far apart two affines put a corner of the volume at most, in voxels of the second.

    Args:
        one: From an index to mm.
        other: The same, with the axes in the same order.
        size: Number of voxels along the axes, in that order.
    """
    first, second, third = (number - 1 for number in size)
    corners = np.array([[*corner, 1] for corner in product((0, first), (0, second), (0, third))])
    apart_mm = (corners @ (one - other).T)[:, :3]
    apart = np.linalg.solve(other[:3, :3], apart_mm.T)
    return float(np.linalg.norm(apart, axis=0).max())


def _compare(path: Path, sform: Affine, qform: Affine, size_voxels: Triple, *, taken: str) -> None:
    off = farthest_voxels(sform, qform, size_voxels[::-1])
    if off > _NOTICEABLE_DIFFERENCE:
        logger.warning(
            "%s: its qform and sform disagree, by up to %.2f voxels. The %s is taken, as "
            "SimpleITK does; if that is the wrong one, remove it from the header.",
            path.name,
            off,
            taken,
        )
