"""Where candidates lie in the file that they were found in, and in the patient.

Detection runs on the canonical order of axes. Readers of a file count its slices, rows and columns
as it stores them, so indices are turned back to the stored array here: (slice, row, column), from
0, where i is the centre of voxel i; a box reaches from i - 0.5 to i + 0.5 around voxel i.
Millimetres are (x, y, z) in LPS.
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.errors import DataError
from voxlift.data.orientation import canonical_order
from voxlift.data.volume import Volume
from voxlift.inference.candidates import Candidate

StoredAxis = Literal["slice", "row", "column"]
Index = tuple[float, float, float]
Point = tuple[float, float, float]
Floats = npt.NDArray[np.float64]

STORED_AXES: tuple[StoredAxis, StoredAxis, StoredAxis] = ("slice", "row", "column")

# A ten-thousandth of a voxel or of a millimetre is beyond what boxes can tell.
_DECIMALS = 4
_SCORE_DECIMALS = 6


class SliceBox(BaseModel):
    """The box of a candidate in one slice.

    Attributes:
        score: Of this box.
        low_index: Its lower corner, (slice, row, column); flat along the axis of the slices.
        high_index: Its upper corner.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float
    low_index: Index
    high_index: Index


class PlacedCandidate(BaseModel):
    """A candidate with its place in the stored array and in the patient.

    Attributes:
        rank: From 1, the surest first.
        label: The class, from 0.
        class_name: What the class is called.
        score: Of the best slice.
        slice_axis: The stored axis along which the slices lie that the detector looked at.
        key_index: Index of the best slice along that axis.
        first_index: Index of the first slice with a box.
        last_index: Index of the last one.
        centre_index: Centre, (slice, row, column).
        low_index: Lower corner: of the box in the best slice and of all slices together.
        high_index: Upper corner.
        centre_mm: Centre, (x, y, z) in LPS.
        corners_mm: All eight corners, from the lower to the upper one, the last index fastest.
        extent_mm: Length along the slices, rows and columns.
        key_size_mm: Longer and shorter edge of the box in the best slice.
        slices: The box in each slice, by index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int
    label: int
    class_name: str
    score: float
    slice_axis: StoredAxis
    key_index: float
    first_index: float
    last_index: float
    centre_index: Index
    low_index: Index
    high_index: Index
    centre_mm: Point
    corners_mm: tuple[Point, Point, Point, Point, Point, Point, Point, Point]
    extent_mm: Index
    key_size_mm: tuple[float, float]
    slices: tuple[SliceBox, ...]

    @property
    def axis(self) -> int:
        """The number of `slice_axis`."""
        return STORED_AXES.index(self.slice_axis)

    @property
    def key_box(self) -> tuple[Index, Index]:
        """Lower and upper corner of the box in the best slice, flat along `slice_axis`."""
        low, high = list(self.low_index), list(self.high_index)
        low[self.axis] = high[self.axis] = self.key_index
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


class _Turn:
    """From the canonical grid back to the stored array."""

    def __init__(self, volume: Volume) -> None:
        order = canonical_order(volume.direction)
        self.axes = order.axes
        self.turned = np.array(order.turned)
        self.size: Floats = np.array([volume.size_voxels[axis] for axis in order.axes], float)

    def corners(self, low: Sequence[float], high: Sequence[float]) -> tuple[Floats, Floats]:
        """Turn a box from edges on the canonical grid to indices of the stored array."""
        ends = np.array([low, high], dtype=np.float64).clip(0, self.size)
        ends = np.where(self.turned, self.size - ends[::-1], ends) - 0.5
        stored = np.empty((2, 3))
        stored[:, self.axes] = ends
        return stored[0], stored[1]


def place_candidates(
    candidates: Sequence[Candidate], *, volume: Volume, class_names: Sequence[str]
) -> tuple[PlacedCandidate, ...]:
    """Turn candidates back to the grid of the file, and find them in the patient.

    Args:
        candidates: As found on the canonical order of the volume's axes, the surest first.
        volume: As it was read, in the order of axes of its file.
        class_names: What the labels mean.

    Raises:
        DataError: If a label has no name.
    """
    turn = _Turn(volume)
    unnamed = {each.label for each in candidates} - set(range(len(class_names)))
    if unnamed:
        raise DataError(
            f"A candidate has the label {min(unnamed)}, but there are names for "
            f"{len(class_names)} classes. Give the names of the model's classes."
        )
    return tuple(
        _place(each, rank, turn, volume, class_names[each.label])
        for rank, each in enumerate(candidates, start=1)
    )


def to_patient(indices: npt.ArrayLike, *, volume: Volume) -> Floats:
    """Find places in the patient.

    Args:
        indices: On the volume's grid, (slice, row, column).
        volume: The grid.

    Shape:
        `(n, 3)` -> `(n, 3)`: x, y, z in mm, LPS.
    """
    affine = volume.affine
    places: Floats = np.asarray(indices, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]
    return places


def _place(
    candidate: Candidate, rank: int, turn: _Turn, volume: Volume, class_name: str
) -> PlacedCandidate:
    x1, y1, x2, y2 = candidate.box
    depth_low, depth_high = candidate.depth_range
    low, high = turn.corners((depth_low, y1, x1), (depth_high, y2, x2))
    axis = turn.axes[0]
    slices = sorted(
        (_slice_box(part.position, part.box, part.score, turn) for part in candidate.slices),
        key=lambda box: box.low_index[axis],
    )
    key = _slice_box(candidate.position, candidate.box, candidate.score, turn)
    centre = (low + high) / 2
    extent_mm = (high - low) * np.array(volume.spacing_mm)
    edges_mm = sorted(np.delete(extent_mm, axis).tolist())
    corners = to_patient(list(product(*zip(low, high, strict=True))), volume=volume)
    return PlacedCandidate(
        rank=rank,
        label=candidate.label,
        class_name=class_name,
        score=round(candidate.score, _SCORE_DECIMALS),
        slice_axis=STORED_AXES[axis],
        key_index=key.low_index[axis],
        first_index=slices[0].low_index[axis],
        last_index=slices[-1].low_index[axis],
        centre_index=_triple(centre),
        low_index=_triple(low),
        high_index=_triple(high),
        centre_mm=_triple(to_patient(centre[None], volume=volume)[0]),
        corners_mm=_eight(corners),
        extent_mm=_triple(extent_mm),
        key_size_mm=(round(edges_mm[1], _DECIMALS), round(edges_mm[0], _DECIMALS)),
        slices=tuple(slices),
    )


def _slice_box(
    position: float, box: tuple[float, float, float, float], score: float, turn: _Turn
) -> SliceBox:
    x1, y1, x2, y2 = box
    # The plane through the centre of the slice.
    low, high = turn.corners((position + 0.5, y1, x1), (position + 0.5, y2, x2))
    return SliceBox(
        score=round(score, _SCORE_DECIMALS), low_index=_triple(low), high_index=_triple(high)
    )


def _triple(values: Floats) -> tuple[float, float, float]:
    # Adding 0 makes -0 a 0.
    one, two, three = (np.round(values, _DECIMALS) + 0.0).tolist()
    return one, two, three


def _eight(corners: Floats) -> tuple[Point, Point, Point, Point, Point, Point, Point, Point]:
    a, b, c, d, e, f, g, h = (_triple(corner) for corner in corners)
    return a, b, c, d, e, f, g, h
