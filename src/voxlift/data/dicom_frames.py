"""The images of a DICOM series as an even, straight stack, ordered by their place in the patient.

The order of names and numbers does not count. Whatever would make the grid uneven or slanted
(missing slices, unequal distances, two slices in one place, a tilted gantry) is refused in words.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from voxlift.core.errors import DataError
from voxlift.data.dicom_series import DicomFile
from voxlift.data.dicom_tags import number, numbers
from voxlift.data.volume import Geometry

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

# Positions are often rounded to a tenth of a millimetre.
_DISTANCE_TOLERANCE = 0.05
_SMALLEST_TOLERANCE_MM = 0.011
_ORIENTATION_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a series, without its pixels.

    Attributes:
        file: Where it is.
        index: Which image of its file; 0 in a file of one.
        orientation: Unit vectors along its rows and its columns, in LPS.
        position_mm: The centre of its first pixel, in LPS.
        spacing_mm: Distance of its rows and of its columns.
        thickness_mm: Its depth, if that is stated.
        slope: What stored values are multiplied by, where that is not done in reading.
        intercept: What is added then.
    """

    file: DicomFile
    index: int
    orientation: Float64[np.ndarray, " 6"]
    position_mm: Float64[np.ndarray, " 3"]
    spacing_mm: Float64[np.ndarray, " 2"]
    thickness_mm: float | None
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def name(self) -> str:
        """What errors call it."""
        several = self.file.num_frames > 1
        return f"{self.file.path.name}, frame {self.index + 1}" if several else self.file.path.name

    @property
    def where(self) -> str:
        """The same, with its folder."""
        return str(self.file.path.with_name(self.name))


def single_frame(file: DicomFile) -> Frame:
    """Read the place of the only image of a file.

    Raises:
        DataError: If a tag is missing or no number.
    """
    tags = file.tags
    for name in ("RescaleSlope", "RescaleIntercept"):
        # They are applied in reading, where anything else would count as nothing.
        number(file.path, tags, name)
    return Frame(
        file=file,
        index=0,
        orientation=numbers(file.path, tags, "ImageOrientationPatient", 6),
        position_mm=numbers(file.path, tags, "ImagePositionPatient", 3),
        spacing_mm=numbers(file.path, tags, "PixelSpacing", 2),
        thickness_mm=thickness_mm(file.path, tags),
    )


def thickness_mm(where: object, tags: "Dataset") -> float | None:
    """Read how thick an image is, if that is stated.

    Raises:
        DataError: If the tag is no number.
    """
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = number(where, tags, name)
        if value is not None and value > 0:
            return value
    return None


def stack_frames(folder: Path, frames: Sequence[Frame]) -> tuple[list[Frame], Geometry]:
    """Order the images of a series and work out the grid that they make.

    Args:
        folder: What errors call the series.
        frames: In any order, at least one.

    Returns:
        The images along the cross product of the row and column direction, and their spacing,
        origin and direction as in `Volume`.

    Raises:
        DataError: If they are no even, straight stack.
    """
    _check_alike(folder, frames)
    row, column = frames[0].orientation[:3], frames[0].orientation[3:]
    normal: Float64[np.ndarray, " 3"] = np.cross(row, column)
    along = np.array([float(one.position_mm @ normal) for one in frames])
    ordered = [frames[index] for index in np.argsort(along, kind="stable")]
    distance_mm = _distance(folder, ordered, normal) if len(ordered) > 1 else _depth(ordered[0])
    height, width = frames[0].spacing_mm.tolist()
    x, y, z = ordered[0].position_mm.tolist()
    direction = np.stack([row, column, normal], axis=1)
    return ordered, ((distance_mm, height, width), (x, y, z), direction)


def _check_alike(folder: Path, frames: Sequence[Frame]) -> None:
    """Refuse a series whose images differ in size, spacing or orientation."""
    sizes = Counter(one.file.size for one in frames)
    if len(sizes) > 1:
        raise DataError(
            f"{folder}: its slices differ in size: "
            f"{', '.join(f'{size} in {count}' for size, count in sizes.items())}. "
            "Take out the ones that do not belong to the volume (often a scout view)."
        )
    for one in frames:
        off = np.abs(one.orientation - frames[0].orientation).max()
        if off > _ORIENTATION_TOLERANCE:
            raise DataError(
                f"{one.where}: it is not parallel to the first slice. Take out the slices that do "
                "not belong to the volume (often a scout view), or convert each stack of the "
                "series to a file of its own, for instance with dcm2niix."
            )
        if not np.allclose(one.spacing_mm, frames[0].spacing_mm, rtol=1e-3, atol=0):
            raise DataError(
                f"{one.where}: its PixelSpacing differs from that of the first slice. "
                "Take out the slices that do not belong to the volume."
            )


def _distance(folder: Path, frames: Sequence[Frame], normal: Float64[np.ndarray, " 3"]) -> float:
    """Check that ordered images stand evenly and straight, and say how far apart."""
    positions = np.stack([one.position_mm for one in frames])
    along = positions @ normal
    gaps = np.diff(along)
    typical = float(np.median(gaps))
    tolerance = max(_DISTANCE_TOLERANCE * typical, _SMALLEST_TOLERANCE_MM)
    if (twice := np.flatnonzero(gaps < _SMALLEST_TOLERANCE_MM)).size:
        raise DataError(
            f"{folder}: {twice.size} pairs of slices stand in the same place, the first at "
            f"{along[twice[0]]:.2f} mm ({frames[twice[0]].name} and "
            f"{frames[twice[0] + 1].name}): copies, or several phases, echoes or points in time. "
            "Keep one of each in the folder; if they are in one file, convert it to one NIfTI "
            "file each, for instance with dcm2niix."
        )
    if (odd := np.flatnonzero(np.abs(gaps - typical) > tolerance)).size:
        worst = odd[0]
        steps = gaps[odd] / typical
        missing = (np.abs(steps - np.round(steps)) < _DISTANCE_TOLERANCE * np.round(steps)).all()
        what = "slices are missing" if missing else "the slices do not stand at equal distances"
        raise DataError(
            f"{folder}: {what}: {gaps[worst]:.2f} mm from {frames[worst].name} to "
            f"{frames[worst + 1].name}, {typical:.2f} mm elsewhere ({odd.size} such gaps in "
            f"{len(frames)} slices). Copy the whole series, or resample it to equal distances."
        )
    steps_mm = np.diff(positions, axis=0)
    drift = np.linalg.norm(steps_mm - gaps[:, None] * normal, axis=1)
    if (drift > tolerance).any():
        angle = np.degrees(np.arctan2(np.median(drift), typical))
        raise DataError(
            f"{folder}: the slices are shifted sideways against each other by {angle:.1f} degrees "
            "(a tilted gantry). Resample the series to a straight grid first: dcm2niix, for "
            "instance, writes one beside the slanted one."
        )
    return float(along[-1] - along[0]) / len(gaps)


def _depth(one: Frame) -> float:
    """The depth of a single slice."""
    if one.thickness_mm is None:
        logger.warning("%s: a single slice without thickness; 1 mm is taken.", one.name)
        return 1.0
    return one.thickness_mm
