from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data.orientation import to_canonical
from voxlift.data.volume import Volume
from voxlift.inference.candidate_places import PlacedCandidate, place_candidates, to_patient
from voxlift.inference.candidates import Candidate, CandidateSlice

SIZE = (9, 11, 13)
SPACING = (2.5, 0.7, 0.9)
ORIGIN = (-31.5, 12.25, 803.0)
NAMES = ("lung", "liver")


def direction_of(number: int) -> npt.NDArray[np.float64]:
    """One of the 48 ways to lay out axes, aslant by up to some 20 degrees."""
    generator = np.random.default_rng(number)
    x, y, z = np.radians(generator.uniform(-20, 20, 3))
    rotation = (
        np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        @ np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        @ np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    )
    orders = list(product([0, 1, 2], repeat=3))
    orders = [order for order in orders if len(set(order)) == 3]
    signs = list(product([-1, 1], repeat=3))
    order, sign = orders[number % 6], signs[number // 6 % 8]
    turned: npt.NDArray[np.float64] = rotation @ (np.eye(3)[:, order] * np.array(sign))
    return turned


def sitk_point(volume: Volume, index: tuple[float, ...]) -> tuple[float, ...]:
    image = SimpleITK.Image([1, 1, 1], SimpleITK.sitkUInt8)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    point: tuple[float, ...] = image.TransformContinuousIndexToPhysicalPoint(index[::-1])
    return point


def candidate_of(canonical: npt.NDArray[Any], *, label: int = 1) -> Candidate:
    """A candidate whose boxes hold the marked voxels, slice by slice; the fullest is the best."""
    parts = []
    for depth in np.flatnonzero(canonical.any(axis=(1, 2))).tolist():
        rows, columns = (np.flatnonzero(canonical[depth].any(axis=axis)) for axis in (1, 0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        x1, y1, x2, y2 = map(float, box)
        score = float(canonical[depth].sum()) / canonical[depth].size
        parts.append(CandidateSlice(float(depth), (x1, y1, x2, y2), score))
    best = max(parts, key=lambda part: part.score)
    depths = (parts[0].position, parts[-1].position + 1)
    return Candidate(best.score, label, best.box, best.position, depths, tuple(parts))


@pytest.mark.parametrize("number", range(48))
def test_boxes_get_back_to_their_voxels_whatever_the_axes(number: int) -> None:
    generator = np.random.default_rng(number)
    array = np.zeros(SIZE, dtype=np.uint8)
    first = generator.integers(0, 5, 3)
    last = first + generator.integers(1, 4, 3)
    array[tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))] = 1
    stored = Volume(array, SPACING, ORIGIN, direction_of(number))
    candidate = candidate_of(to_canonical(stored).array)
    (placed,) = place_candidates([candidate], volume=stored, class_names=NAMES)

    np.testing.assert_allclose(placed.low_index, first - 0.5)
    np.testing.assert_allclose(placed.high_index, last + 0.5)
    np.testing.assert_allclose(placed.centre_index, (first + last) / 2)
    np.testing.assert_allclose(
        placed.centre_mm, sitk_point(stored, tuple((first + last) / 2)), atol=1e-4
    )
    corners = [
        sitk_point(stored, corner) for corner in product(*zip(first - 0.5, last + 0.5, strict=True))
    ]
    np.testing.assert_allclose(placed.corners_mm, corners, atol=1e-4)
    np.testing.assert_allclose(placed.extent_mm, (last - first + 1) * SPACING, atol=1e-4)
    axis = ("slice", "row", "column").index(placed.slice_axis)
    # The slices of the canonical order lie along the axis nearest to head and foot.
    assert axis == 2 - int(np.abs(stored.direction[2]).argmax())
    assert (placed.first_index, placed.last_index) == (first[axis], last[axis])
    assert [part.low_index[axis] for part in placed.slices] == list(
        range(first[axis], last[axis] + 1)
    )
    lengths = sorted(np.delete((last - first + 1) * SPACING, axis))
    np.testing.assert_allclose(placed.key_size_mm, lengths[::-1], atol=1e-4)


def test_the_best_slice_and_its_box_are_told() -> None:
    array = np.zeros(SIZE, dtype=np.uint8)
    array[2, 4:6, 5:7] = 1
    array[3, 3:7, 4:9] = 1
    # From head to foot.
    stored = Volume(array, SPACING, ORIGIN, np.diag([1.0, 1.0, -1.0]))
    candidate = candidate_of(to_canonical(stored).array, label=0)
    (placed,) = place_candidates([candidate], volume=stored, class_names=NAMES)
    assert (placed.rank, placed.class_name, placed.slice_axis) == (1, "lung", "slice")
    assert (placed.key_index, placed.first_index, placed.last_index) == (3.0, 2.0, 3.0)
    assert placed.key_box == ((3.0, 2.5, 3.5), (3.0, 6.5, 8.5))
    small, large = placed.slices
    assert (small.low_index, small.high_index) == ((2.0, 3.5, 4.5), (2.0, 5.5, 6.5))
    assert (large.low_index, large.high_index) == placed.key_box
    assert small.score < large.score == placed.score


def test_centres_of_candidates_are_the_same_before_and_after() -> None:
    stored = Volume(np.zeros(SIZE), SPACING, ORIGIN, direction_of(17))
    array = np.zeros(to_canonical(stored).size_voxels)
    array[2:4, 3:8, 1:5] = 1
    candidate = candidate_of(array)
    (placed,) = place_candidates([candidate], volume=stored, class_names=NAMES)
    before = to_patient([candidate.centre_voxels], volume=to_canonical(stored))[0]
    np.testing.assert_allclose(placed.centre_mm, before, atol=1e-4)


def test_slices_between_voxels_keep_their_place() -> None:
    part = CandidateSlice(2.5, (1.0, 2.0, 4.0, 6.0), 0.5)
    candidate = Candidate(0.5, 0, part.box, 2.5, (1.75, 4.25), (part,))
    stored = Volume(np.zeros(SIZE), SPACING, ORIGIN, np.diag([1.0, 1.0, -1.0]))
    (placed,) = place_candidates([candidate], volume=stored, class_names=NAMES)
    assert placed.key_index == SIZE[0] - 1 - 2.5
    assert placed.low_index == (SIZE[0] - 4.25 - 0.5, 1.5, 0.5)
    assert placed.high_index[0] == SIZE[0] - 1.75 - 0.5


def test_nothing_reaches_beyond_the_volume() -> None:
    part = CandidateSlice(0.0, (-2.0, 5.0, 4.0, 30.0), 0.5)
    candidate = Candidate(0.5, 0, part.box, 0.0, (-0.75, 1.75), (part,))
    stored = Volume(np.zeros(SIZE), SPACING)
    (placed,) = place_candidates([candidate], volume=stored, class_names=NAMES)
    assert placed.low_index == (-0.5, 4.5, -0.5)
    assert placed.high_index == (1.25, SIZE[1] - 0.5, 3.5)


def test_ranks_follow_the_order_and_labels_need_names() -> None:
    part = CandidateSlice(0.0, (0.0, 0.0, 4.0, 4.0), 0.5)
    candidates = [Candidate(0.5, label, part.box, 0.0, (0.0, 1.0), (part,)) for label in (1, 0, 1)]
    stored = Volume(np.zeros(SIZE), SPACING)
    placed: tuple[PlacedCandidate, ...] = place_candidates(
        candidates, volume=stored, class_names=NAMES
    )
    assert [(each.rank, each.class_name) for each in placed] == [
        (1, "liver"),
        (2, "lung"),
        (3, "liver"),
    ]
    with pytest.raises(DataError, match=r"label 1, but there are names for 1 classes"):
        place_candidates(candidates, volume=stored, class_names=NAMES[:1])
    assert place_candidates([], volume=stored, class_names=()) == ()
