"""From boxes in the slices of a volume to lesion candidates in 3D.

A detector looks at one key slice at a time, and so finds a lesion once in each slice that it
reaches. Boxes of one class that lie over each other in neighbouring slices are one candidate.

Two ways of counting meet here. Edges of boxes are in voxels, where voxel i spans i to i + 1;
positions of slices and centres are indices, where i is the centre of voxel i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.box_matching import check_threshold

# Low, for the caps of a round lesion are much smaller than the sections beside them.
IOU_THRESHOLD = 0.2
MAX_GAP_MM = 5.0

Box = tuple[float, float, float, float]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

# Positions and spacings of many digits; a gap of just so many mm counts.
_ROUNDING = 1e-6


class KeySliceBoxes(Protocol):
    """Boxes that were found with one slice as the key slice."""

    @property
    def position(self) -> float:
        """Index of the slice along depth; between two voxels it is no whole number."""

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """Edges x1, y1, x2, y2 of each box, `(boxes, 4)`."""

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Score of each box."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of each box, from 0."""


class CandidateSlice(NamedTuple):
    """What a candidate is in one slice.

    Attributes:
        position: Index of the slice along depth.
        box: Edges x1, y1, x2, y2.
        score: Of this box.
    """

    position: float
    box: Box
    score: float


@dataclass(frozen=True)
class Candidate:
    """What may be a lesion: boxes of one class in neighbouring slices.

    Attributes:
        score: Of the best slice.
        label: The class, from 0.
        box: Edges x1, y1, x2, y2 in the best slice.
        position: Index of the best slice along depth.
        depth_range: Lower and upper edge along depth: each slice reaches half the way to the next
            one that was looked at.
        slices: All boxes, by depth.
    """

    score: float
    label: int
    box: Box
    position: float
    depth_range: tuple[float, float]
    slices: tuple[CandidateSlice, ...]

    @property
    def first_slice(self) -> float:
        """Index of the lowest slice."""
        return self.slices[0].position

    @property
    def last_slice(self) -> float:
        """Index of the highest slice."""
        return self.slices[-1].position

    @property
    def num_slices(self) -> int:
        """Number of slices with a box."""
        return len(self.slices)

    @property
    def centre_voxels(self) -> tuple[float, float, float]:
        """Index of the centre, (depth, height, width): of the depth range and of the best box."""
        x1, y1, x2, y2 = self.box
        low, high = self.depth_range
        return (low + high) / 2 - 0.5, (y1 + y2) / 2 - 0.5, (x1 + x2) / 2 - 0.5


class _Boxes(NamedTuple):
    """All boxes, the surest first, whatever the order they were given in."""

    slices: Numbers
    edges: Floats
    scores: Floats
    labels: Numbers


class _Links(NamedTuple):
    """Of each box the boxes it may go on with in one direction, the best first."""

    starts: list[int]
    targets: list[int]


def merge_slices(
    found: Sequence[KeySliceBoxes],
    *,
    spacing_mm: tuple[float, float, float],
    iou_threshold: float = IOU_THRESHOLD,
    max_gap_mm: float = MAX_GAP_MM,
    min_slices: int = 1,
) -> list[Candidate]:
    """Merge boxes of neighbouring slices to candidates, the surest first.

    The surest box that is not taken yet starts a candidate. From it the candidate grows up and
    down: from its last box on to the nearest slice that has a free box of the same class which
    overlaps the last one enough, and there to the box that overlaps it most. The next slice is
    always tried, farther ones up to a distance. Each box belongs to one candidate.

    Args:
        found: The boxes of each slice that was looked at, in any order; slices without boxes too.
        spacing_mm: Distance between voxels, (depth, height, width).
        iou_threshold: The least intersection over union of two boxes that go together.
        max_gap_mm: The greatest distance of two slices whose boxes go together although those in
            between have none.
        min_slices: Candidates in fewer slices are left out.

    Raises:
        ConfigError: If a threshold is out of its range.
        DataError: If positions are not finite or come twice, or arrays do not fit each other.
    """
    check_threshold(iou_threshold)
    if not max_gap_mm >= 0 or min_slices < 1:
        raise ConfigError(
            f"max_gap_mm is {max_gap_mm} and min_slices {min_slices}, but they have to be at least "
            "0 and 1."
        )
    step_mm = spacing_mm[0]
    if not (math.isfinite(step_mm) and step_mm > 0):
        raise ConfigError(f"spacing_mm is {spacing_mm}, but has to be positive.")
    slices = sorted(found, key=lambda each: each.position)
    positions = np.array([each.position for each in slices], dtype=np.float64)
    _check_slices(slices, positions)
    boxes = _sort(slices)
    below, above = _link(
        boxes, positions * step_mm, iou_threshold=iou_threshold, max_gap_mm=max_gap_mm
    )
    chains = [chain for chain in _chains(below, above) if len(chain) >= min_slices]
    return _candidates(chains, boxes, positions)


def _check_slices(slices: Sequence[KeySliceBoxes], positions: Floats) -> None:
    if not np.isfinite(positions).all():
        raise DataError("The position of a slice is not finite. Give its index along depth.")
    twice = positions[1:][np.diff(positions) == 0]
    if twice.size:
        raise DataError(f"There are two slices at {twice[0]:g}. Give the boxes of a slice once.")
    for each in slices:
        shapes = (np.shape(each.boxes), np.shape(each.scores), np.shape(each.labels))
        number = len(each.scores)
        if shapes != ((number, 4), (number,), (number,)):
            raise DataError(
                f"The slice at {each.position:g} has boxes, scores and labels of the shapes "
                f"{shapes}, but (n, 4), (n,) and (n,) are needed."
            )
        if not (np.isfinite(each.boxes).all() and np.isfinite(each.scores).all()):
            raise DataError(
                f"The slice at {each.position:g} has boxes or scores that are not finite."
            )


def _sort(slices: Sequence[KeySliceBoxes]) -> _Boxes:
    counts = [len(each.scores) for each in slices]
    numbers = np.repeat(np.arange(len(slices)), counts)
    edges = np.concatenate([np.zeros((0, 4)), *(each.boxes for each in slices)], dtype=np.float64)
    scores = np.concatenate([np.zeros(0), *(each.scores for each in slices)], dtype=np.float64)
    labels = np.concatenate(
        [np.zeros(0, dtype=np.int64), *(np.asarray(each.labels, dtype=np.int64) for each in slices)]
    )
    order = np.lexsort((*edges.T[::-1], labels, numbers, -scores))
    return _Boxes(numbers[order], edges[order], scores[order], labels[order])


def _link(
    boxes: _Boxes, places_mm: Floats, *, iou_threshold: float, max_gap_mm: float
) -> tuple[_Links, _Links]:
    """List with which boxes each may go on below and above it."""
    by_slice = np.argsort(boxes.slices, kind="stable")
    ends = np.searchsorted(boxes.slices[by_slice], np.arange(len(places_mm) + 1))
    members = [by_slice[start:end] for start, end in pairwise(ends)]
    lower: list[Numbers] = []
    upper: list[Numbers] = []
    ious: list[Floats] = []
    steps: list[int] = []
    for step in range(1, len(places_mm)):
        gaps_mm = places_mm[step:] - places_mm[:-step]
        near = (
            np.flatnonzero(gaps_mm <= max_gap_mm + _ROUNDING) if step > 1 else range(len(gaps_mm))
        )
        if not len(near):
            break
        for number in near:
            one, other = members[number], members[number + step]
            if one.size and other.size:
                rows, columns, overlap = _overlapping(boxes, one, other, iou_threshold)
                lower.append(one[rows])
                upper.append(other[columns])
                ious.append(overlap)
                steps.append(step)
    counts = [len(each) for each in ious]
    distance = np.repeat(np.array(steps, dtype=np.int64), counts)
    low, high = (np.concatenate([np.zeros(0, np.int64), *each]) for each in (lower, upper))
    iou = np.concatenate([np.zeros(0), *ious])
    return (
        _group(high, low, distance, iou, len(boxes.scores)),
        _group(low, high, distance, iou, len(boxes.scores)),
    )


def _overlapping(
    boxes: _Boxes, one: Numbers, other: Numbers, iou_threshold: float
) -> tuple[Numbers, Numbers, Floats]:
    """Find the pairs of boxes of one class that overlap enough, and how much."""
    x1, y1, x2, y2 = boxes.edges[one].T[:, :, None]
    u1, v1, u2, v2 = boxes.edges[other].T[:, None, :]
    wide = np.minimum(x2, u2)
    wide -= np.maximum(x1, u1)
    high = np.minimum(y2, v2)
    high -= np.maximum(y1, v1)
    # Boxes that lie apart on both axes have two negative lengths.
    meet = (wide > 0) & (high > 0) & (boxes.labels[one][:, None] == boxes.labels[other][None, :])
    rows, columns = np.nonzero(meet)
    common = wide[rows, columns] * high[rows, columns]
    areas, other_areas = ((x2 - x1) * (y2 - y1))[:, 0], ((u2 - u1) * (v2 - v1))[0]
    iou = common / (areas[rows] + other_areas[columns] - common)
    enough = iou >= iou_threshold
    return rows[enough], columns[enough], iou[enough]


def _group(
    sources: Numbers, targets: Numbers, distance: Numbers, iou: Floats, num_boxes: int
) -> _Links:
    order = np.lexsort((targets, -iou, sources * (distance.max(initial=0) + 1) + distance))
    starts = np.searchsorted(sources[order], np.arange(num_boxes + 1))
    return _Links(starts.tolist(), targets[order].tolist())


def _chains(below: _Links, above: _Links) -> list[list[int]]:
    """Let candidates grow from the surest boxes on; each is a list of boxes, the surest first."""
    num_boxes = len(below.starts) - 1
    taken = bytearray(num_boxes)
    chains = []
    for seed in range(num_boxes):
        if taken[seed]:
            continue
        taken[seed] = 1
        chain = [seed]
        for starts, targets in (below, above):
            end, is_growing = seed, True
            while is_growing:
                is_growing = False
                for box in targets[starts[end] : starts[end + 1]]:
                    if not taken[box]:
                        taken[box] = 1
                        chain.append(box)
                        end, is_growing = box, True
                        break
        chains.append(chain)
    return chains


def _candidates(
    chains: Sequence[Sequence[int]], boxes: _Boxes, positions: Floats
) -> list[Candidate]:
    low, high = (edge.tolist() for edge in _slice_edges(positions))
    places, numbers = positions.tolist(), boxes.slices.tolist()
    edges: list[Box] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.edges.tolist()]
    scores, labels = boxes.scores.tolist(), boxes.labels.tolist()
    candidates = []
    for chain in chains:
        best = chain[0]
        by_depth = sorted(chain, key=numbers.__getitem__)
        candidates.append(
            Candidate(
                score=scores[best],
                label=labels[best],
                box=edges[best],
                position=places[numbers[best]],
                depth_range=(low[numbers[by_depth[0]]], high[numbers[by_depth[-1]]]),
                slices=tuple(
                    CandidateSlice(places[numbers[box]], edges[box], scores[box])
                    for box in by_depth
                ),
            )
        )
    return candidates


def _slice_edges(positions: Floats) -> tuple[Floats, Floats]:
    """Give the lower and the upper edge of each slice, as voxels have them."""
    if len(positions) < 2:
        return positions, positions + 1
    middles = (positions[:-1] + positions[1:]) / 2
    first, last = 2 * positions[0] - middles[0], 2 * positions[-1] - middles[-1]
    return np.append(first, middles) + 0.5, np.append(middles, last) + 0.5
