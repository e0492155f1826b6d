import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.inference.candidates import Candidate, merge_slices

SPACING = (2.5, 0.8, 0.8)
Row = tuple[float, int, tuple[float, ...], float]


@dataclass(frozen=True, eq=False)
class Found:
    position: float
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def found(position: float, *rows: tuple[float, float, float, float, float, int]) -> Found:
    """Each row is x1, y1, x2, y2, score, label."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Found(
        position,
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int64),
    )


def random_slices(seed: int, *, num_slices: int = 8, most: int = 7) -> list[Found]:
    generator = np.random.default_rng(seed)
    step = generator.choice([0.5, 1.0, 1.7])
    slices = []
    for number in range(num_slices):
        count = int(generator.integers(0, most + 1))
        corner = generator.integers(0, 12, (count, 2))
        boxes = np.concatenate([corner, corner + generator.integers(3, 9, (count, 2))], axis=1)
        slices.append(
            Found(
                number * float(step),
                boxes.astype(np.float32),
                # Few scores, so that some are equal.
                generator.choice(np.array([0.2, 0.4, 0.5, 0.9], dtype=np.float32), count),
                generator.integers(0, 2, count),
            )
        )
    return slices


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return wide * high / (sum(areas) - wide * high)


def brute_force(
    slices: list[Found], *, step_mm: float, threshold: float, max_gap_mm: float
) -> list[tuple[float, int, list[Row]]]:
    """Merge by the definition: one box after the other, all others looked at each time."""
    places = sorted(each.position for each in slices)
    free: list[Row] = sorted(
        (
            (float(score), int(label), tuple(map(float, box)), each.position)
            for each in slices
            for box, score, label in zip(each.boxes, each.scores, each.labels, strict=True)
        ),
        key=lambda row: (-row[0], row[3], row[1], row[2]),
    )
    merged = []
    while free:
        seed = free.pop(0)
        members = [seed]
        for direction in (-1, 1):
            end: Row | None = seed
            while end is not None:
                at, choices = places.index(end[3]), []
                for rank, row in enumerate(free):
                    steps = (places.index(row[3]) - at) * direction
                    is_near = steps == 1 or (
                        steps > 1 and abs(row[3] - end[3]) * step_mm <= max_gap_mm + 1e-9
                    )
                    overlap = iou(row[2], end[2])
                    if is_near and row[1] == end[1] and overlap >= threshold:
                        choices.append((steps, -overlap, rank))
                end = free.pop(min(choices)[2]) if choices else None
                members += [end] if end is not None else []
        merged.append((seed[0], seed[1], sorted(members, key=lambda row: row[3])))
    return merged


def as_rows(candidates: list[Candidate]) -> list[tuple[float, int, list[Row]]]:
    return [
        (
            each.score,
            each.label,
            [(part.score, each.label, part.box, part.position) for part in each.slices],
        )
        for each in candidates
    ]


@pytest.mark.parametrize("seed", range(40))
def test_it_is_what_brute_force_finds(seed: int) -> None:
    slices = random_slices(seed)
    for threshold, max_gap_mm in ((0.3, 0.0), (0.3, 6.0), (0.5, 9.0), (0.1, 4.0)):
        merged = merge_slices(
            slices, spacing_mm=SPACING, iou_threshold=threshold, max_gap_mm=max_gap_mm
        )
        expected = brute_force(
            slices, step_mm=SPACING[0], threshold=threshold, max_gap_mm=max_gap_mm
        )
        assert as_rows(merged) == expected
        assert sum(each.num_slices for each in merged) == sum(len(each.scores) for each in slices)


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_input_does_not_matter(seed: int) -> None:
    slices = random_slices(seed)
    generator = np.random.default_rng(seed)
    mixed = []
    for number in generator.permutation(len(slices)):
        each = slices[number]
        order = generator.permutation(len(each.scores))
        mixed.append(
            Found(each.position, each.boxes[order], each.scores[order], each.labels[order])
        )
    assert merge_slices(mixed, spacing_mm=SPACING) == merge_slices(slices, spacing_mm=SPACING)


def test_a_lesion_is_what_its_slices_are() -> None:
    (lesion,) = merge_slices(
        [
            found(3, (11, 20, 21, 29, 0.5, 1)),
            found(4, (10, 20, 22, 30, 0.9, 1)),
            found(5, (12, 22, 20, 30, 0.6, 1)),
            found(6),
        ],
        spacing_mm=SPACING,
    )
    assert lesion.score == pytest.approx(0.9)
    assert (lesion.label, lesion.box, lesion.position) == (1, (10.0, 20.0, 22.0, 30.0), 4.0)
    assert (lesion.first_slice, lesion.last_slice, lesion.num_slices) == (3.0, 5.0, 3)
    # Slices 3 to 5 span 3 to 6 in voxels that span i to i + 1.
    assert lesion.depth_range == (3.0, 6.0)
    assert lesion.centre_voxels == (4.0, 24.5, 15.5)
    assert [part.score for part in lesion.slices] == pytest.approx([0.5, 0.9, 0.6])


def test_slices_between_voxels_reach_half_the_way_to_the_next() -> None:
    slices = [found(0.5), found(3.0, (0, 0, 9, 9, 0.5, 0)), found(5.5), found(8.0)]
    (lesion,) = merge_slices(slices, spacing_mm=SPACING)
    assert lesion.depth_range == (2.25, 4.75)
    assert lesion.centre_voxels == (3.0, 4.0, 4.0)
    (alone,) = merge_slices([found(7, (0, 0, 9, 9, 0.5, 0))], spacing_mm=SPACING)
    assert alone.depth_range == (7.0, 8.0)


@pytest.mark.parametrize(("max_gap_mm", "num_candidates"), [(0, 2), (7.4, 2), (7.5, 1), (20, 1)])
def test_gaps_are_bridged_up_to_a_distance(max_gap_mm: float, num_candidates: int) -> None:
    box = (10, 10, 20, 20)
    slices = [found(2, (*box, 0.9, 0)), found(3), found(4), found(5, (*box, 0.8, 0))]
    merged = merge_slices(slices, spacing_mm=SPACING, max_gap_mm=max_gap_mm)
    assert len(merged) == num_candidates


def test_neighbouring_slices_go_together_however_thick_they_are() -> None:
    box = (10, 10, 20, 20)
    slices = [found(0, (*box, 0.9, 0)), found(1, (*box, 0.8, 0))]
    (lesion,) = merge_slices(slices, spacing_mm=(12.0, 1.0, 1.0), max_gap_mm=0)
    assert lesion.num_slices == 2


def test_a_gap_is_not_bridged_where_the_slice_between_has_a_box() -> None:
    slices = [
        found(0, (10, 10, 20, 20, 0.9, 0)),
        found(1, (12, 10, 22, 20, 0.3, 0)),
        found(2, (10, 10, 20, 20, 0.8, 0)),
    ]
    (lesion,) = merge_slices(slices, spacing_mm=SPACING, max_gap_mm=5)
    assert lesion.num_slices == 3


def test_classes_are_kept_apart() -> None:
    box = (10, 10, 20, 20)
    slices = [found(n, (*box, 0.5 + n / 10, 0), (*box, 0.9 - n / 10, 1)) for n in range(3)]
    first, second = merge_slices(slices, spacing_mm=SPACING)
    assert [(each.label, each.num_slices, each.position) for each in (first, second)] == [
        (1, 3, 0.0),
        (0, 3, 2.0),
    ]


def test_lesions_side_by_side_are_two() -> None:
    slices = [
        found(n, (10, 10, 20, 20, 0.9, 0), (18, 10, 28, 20, 0.8 - n / 100, 0)) for n in range(4)
    ]
    left, right = merge_slices(slices, spacing_mm=SPACING, iou_threshold=0.1)
    assert (left.box, left.num_slices) == ((10.0, 10.0, 20.0, 20.0), 4)
    assert (right.box, right.num_slices) == ((18.0, 10.0, 28.0, 20.0), 4)


def test_few_slices_may_be_too_few() -> None:
    slices = [found(0, (0, 0, 9, 9, 0.9, 0), (30, 30, 40, 40, 0.8, 0)), found(1), found(2)]
    slices[1] = found(1, (30, 30, 40, 40, 0.7, 0))
    assert len(merge_slices(slices, spacing_mm=SPACING)) == 2
    (kept,) = merge_slices(slices, spacing_mm=SPACING, min_slices=2)
    assert kept.score == pytest.approx(0.8)


def test_nothing_is_nothing() -> None:
    assert merge_slices([], spacing_mm=SPACING) == []
    assert merge_slices([found(0), found(1), found(2)], spacing_mm=SPACING) == []


def test_boxes_without_area_stay_alone() -> None:
    slices = [found(n, (5, 5, 5, 9, 0.5, 0)) for n in range(2)]
    assert len(merge_slices(slices, spacing_mm=SPACING)) == 2


def test_what_does_not_fit_is_told() -> None:
    one = found(0, (0, 0, 9, 9, 0.9, 0))
    with pytest.raises(ConfigError, match="overlap threshold is 0"):
        merge_slices([one], spacing_mm=SPACING, iou_threshold=0)
    with pytest.raises(ConfigError, match="max_gap_mm is -1"):
        merge_slices([one], spacing_mm=SPACING, max_gap_mm=-1)
    with pytest.raises(ConfigError, match="min_slices 0"):
        merge_slices([one], spacing_mm=SPACING, min_slices=0)
    with pytest.raises(ConfigError, match="has to be positive"):
        merge_slices([one], spacing_mm=(0.0, 1.0, 1.0))
    with pytest.raises(DataError, match="two slices at 0"):
        merge_slices([one, one], spacing_mm=SPACING)
    with pytest.raises(DataError, match="position of a slice is not finite"):
        merge_slices([found(float("nan"))], spacing_mm=SPACING)
    with pytest.raises(DataError, match="not finite"):
        merge_slices([found(0, (0, 0, float("inf"), 9, 0.9, 0))], spacing_mm=SPACING)
    with pytest.raises(DataError, match=r"shapes .* are needed"):
        merge_slices([Found(0, one.boxes, one.scores, one.labels[:0])], spacing_mm=SPACING)


def test_many_boxes_take_little_time() -> None:
    generator = np.random.default_rng(0)
    slices = []
    corner, size = generator.uniform(0, 480, (60, 2)), generator.uniform(8, 60, (60, 2))
    for number in range(300):
        corner = corner + generator.normal(0, 1, corner.shape)
        boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
        scores = generator.random(60, dtype=np.float32)
        slices.append(Found(number, boxes, scores, np.zeros(60, dtype=np.int64)))
    start = time.process_time()
    merged = merge_slices(slices, spacing_mm=SPACING)
    assert time.process_time() - start < 2
    assert len(merged) < 100
