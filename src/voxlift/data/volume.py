"""One scan: its voxels and where in the patient they lie.

Axes and patient space:

- The array is (depth, height, width). For axial CT the depth counts slices, the height rows and the
  width columns. `spacing_mm` is in the same order.
- `origin_mm` is the place of the centre of voxel (0, 0, 0), as (x, y, z) in LPS: x grows to the
  patient's left, y to the back (posterior), z to the head (superior).
- The columns of `direction` are the unit vectors, in the same space, along which the width, the
  height and the depth index grow, in this order: that of SimpleITK, the reverse of the array's.

Hence voxel (d, h, w) lies at `origin_mm + direction @ (w * width_mm, h * height_mm, d * depth_mm)`,
where `depth_mm, height_mm, width_mm = spacing_mm`.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import DataError

Geometry = tuple[tuple[float, float, float], tuple[float, float, float], Float64[np.ndarray, "3 3"]]
"""Spacing, origin and direction of a volume."""

# Directions come out of files with six digits (DICOM) or as 32-bit floats (NIfTI).
_DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Volume:
    """A three-dimensional scan, or a mask, in patient space.

    Attributes:
        array: The voxels, (depth, height, width).
        spacing_mm: Distance of voxel centres along depth, height and width.
        origin_mm: Centre of voxel (0, 0, 0) as LPS x, y, z.
        direction: Unit vectors of the width, height and depth axis, as columns, in LPS x, y, z.

    Raises:
        DataError: If the array is not three-dimensional and numeric, or the geometry is none.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: Float64[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))

    def __post_init__(self) -> None:
        if not isinstance(self.array, np.ndarray) or self.array.dtype.kind not in "biuf":
            found = getattr(self.array, "dtype", type(self.array).__name__)
            raise DataError(f"A volume holds real numbers in a NumPy array; this one is {found}.")
        if self.array.ndim != 3:
            raise DataError(
                f"A volume has three dimensions (depth, height, width); this one has "
                f"{self.array.ndim}, of size {self.array.shape}. {_remedy(self.array.ndim)}"
            )
        if 0 in self.array.shape:
            raise DataError(f"The volume is empty: its size is {self.array.shape}.")
        spacing = tuple(float(value) for value in self.spacing_mm)
        origin = tuple(float(value) for value in self.origin_mm)
        direction = np.array(self.direction, dtype=np.float64)
        if len(spacing) != 3 or not all(np.isfinite(spacing)) or min(spacing) <= 0:
            raise DataError(
                f"spacing_mm is {spacing}; expected three positive numbers (depth, height, width)."
            )
        if len(origin) != 3 or not all(np.isfinite(origin)):
            raise DataError(f"origin_mm is {origin}; expected three finite numbers (x, y, z).")
        if direction.shape != (3, 3) or not _is_orthonormal(direction):
            raise DataError(
                f"direction is {direction.tolist()}; expected a 3 x 3 matrix of unit vectors at "
                "right angles. Resample a sheared volume to a straight grid first."
            )
        direction.setflags(write=False)
        object.__setattr__(self, "spacing_mm", spacing)
        object.__setattr__(self, "origin_mm", origin)
        object.__setattr__(self, "direction", direction)

    @property
    def size_voxels(self) -> tuple[int, int, int]:
        """Number of voxels along depth, height and width."""
        depth, height, width = self.array.shape
        return depth, height, width

    @property
    def affine(self) -> Float64[np.ndarray, "4 4"]:
        """The matrix that takes the index (depth, height, width, 1) to (x, y, z, 1) in mm."""
        affine = np.eye(4)
        affine[:3, :3] = self.direction[:, ::-1] * np.array(self.spacing_mm)
        affine[:3, 3] = self.origin_mm
        return affine

    def check_finite(self) -> None:
        """Refuse NaN and infinity.

        Raises:
            DataError: If there is one, with how many there are and where the first stands.
        """
        if self.array.dtype.kind != "f":
            return
        finite = np.isfinite(self.array)
        if not finite.all():
            first = tuple(int(index) for index in np.argwhere(~finite)[0])
            raise DataError(
                f"{finite.size - int(finite.sum())} of {finite.size} voxels are NaN or infinite, "
                f"the first at {first} (depth, height, width). Replace them in the file, "
                "for instance by the value of air."
            )


def _is_orthonormal(direction: Float64[np.ndarray, "3 3"]) -> bool:
    if not np.isfinite(direction).all():
        return False
    return bool(np.abs(direction.T @ direction - np.eye(3)).max() <= _DIRECTION_TOLERANCE)


def _remedy(ndim: int) -> str:
    if ndim < 3:
        return "A single slice has to be given as (1, height, width)."
    return "Save one channel or one point in time as a file of its own."
