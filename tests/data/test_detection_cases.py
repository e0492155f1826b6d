"""Images with boxes: checks, splits and counts."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.detection_cases import Boxes, DetectionCase, DetectionCases, Slices, Unit


@dataclass(frozen=True)
class Blank:
    """An image of zeros."""

    unit: Unit = "HU"

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        assert interval_mm is None or interval_mm > 0
        return Slices(np.zeros((num_slices, 4, 4), np.float32), self.unit, 0.7)


def case(
    number: int, boxes: Boxes | None = None, *, split: str = "", group: str = ""
) -> DetectionCase:
    return DetectionCase(
        id=f"image-{number}",
        group=group or f"patient-{number}",
        split=split,
        size=(4, 4),
        truth=boxes if boxes is not None else Boxes.of([[0, 0, 2, 3]]),
        source=Blank(),
    )


def test_boxes_have_edges_and_can_be_chosen() -> None:
    boxes = Boxes.of([[0, 1, 2, 4], [1, 1, 2, 2]], labels=[1, 0], crowd=[False, True])
    np.testing.assert_array_equal(boxes.edges, [[2, 3], [1, 1]])
    rest = boxes.chosen(~boxes.crowd)
    assert len(rest) == 1
    assert rest.labels.tolist() == [1]
    assert len(Boxes.of([])) == 0


@pytest.mark.parametrize(
    ("box", "label"),
    [([0, 0, 0, 1], 0), ([2, 0, 1, 1], 0), ([0, 0, np.nan, 1], 0), ([0, 0, 1, 1], -1)],
)
def test_boxes_without_area_are_refused(box: list[float], label: int) -> None:
    with pytest.raises(DataError, match="x1 < x2"):
        Boxes.of([box], labels=[label])


def test_labels_belong_to_boxes() -> None:
    with pytest.raises(DataError, match="do not belong together"):
        Boxes.of([[0, 0, 1, 1]], labels=[0, 0])


def test_reads_and_counts() -> None:
    crowd = Boxes.of([[0, 0, 1, 1]], crowd=[True])
    cases = DetectionCases(
        (case(0), case(1, Boxes.of([])), case(2, crowd, split="val")), ("lesion",), "test"
    )
    assert len(cases) == 3
    assert cases.unit == "HU"
    assert cases.box_counts().tolist() == [1]
    assert cases.read(0, num_slices=5, interval_mm=2.5).array.shape == (5, 4, 4)
    assert cases.indices("").tolist() == [0, 1]
    assert cases.indices("", with_boxes=True).tolist() == [0]
    assert cases.indices("val").tolist() == [2]
    assert cases.describe() == (
        "3 images with 1 boxes (lesion 1) in 3 groups; 1 without boxes; 1 regions to be ignored; "
        "train 0, val 1, test 0"
    )
    with pytest.raises(ConfigError, match="no split 'tset'"):
        cases.indices("tset")


def test_refuses_what_nothing_can_be_learnt_from() -> None:
    with pytest.raises(DataError, match="no images"):
        DetectionCases((), ("lesion",), "test")
    with pytest.raises(DataError, match="none of the 1 images has a box"):
        DetectionCases((case(0, Boxes.of([])),), ("lesion",), "test")
    with pytest.raises(DataError, match="image-0 is there twice"):
        DetectionCases((case(0), case(0)), ("lesion",), "test")
    with pytest.raises(DataError, match="label 1, but there are 1 class names"):
        DetectionCases((case(0, Boxes.of([[0, 0, 1, 1]], labels=[1])),), ("lesion",), "test")


def test_splits_keep_groups_together_and_share_out_empty_images() -> None:
    members = [
        case(n, Boxes.of([]) if n < 40 else None, group=f"patient-{n // 2}") for n in range(100)
    ]
    cases = DetectionCases(tuple(members), ("lesion",), "test").with_splits(seed=1)
    assert {len(cases.indices(split)) for split in ("val", "test")} <= {14, 15, 16}
    for split in ("train", "val", "test"):
        share = len(cases.indices(split, with_boxes=True)) / len(cases.indices(split))
        assert 0.5 < share < 0.7
    of_group: dict[str, set[str]] = {}
    for one in cases.cases:
        of_group.setdefault(one.group, set()).add(one.split)
    assert all(len(splits) == 1 for splits in of_group.values())


def test_few_empty_images_do_not_stop_the_splitting() -> None:
    members = [case(n, Boxes.of([]) if n == 0 else None) for n in range(20)]
    cases = DetectionCases(tuple(members), ("lesion",), "test").with_splits(seed=1)
    assert len(cases.indices("train")) == 14


@pytest.mark.parametrize("split", ["val", "test"])
def test_empty_images_of_other_splits_alone_do_not_stop_the_splitting(split: str) -> None:
    members = [
        case(n, Boxes.of([]) if n < 12 else None, split=split if n < 15 else "train")
        for n in range(60)
    ]
    cases = DetectionCases(tuple(members), ("lesion",), "test").with_splits(seed=1)
    assert cases.indices(split).tolist() == list(range(15))
    assert all(len(cases.indices(name, with_boxes=True)) for name in ("train", "val", "test"))


def test_one_split_alone_is_left_as_it_is_on_request() -> None:
    members = [case(n, split="val") for n in range(3)]
    cases = DetectionCases(tuple(members), ("lesion",), "test")
    assert cases.with_splits(seed=1, need_train=False) is cases
    with pytest.raises(DataError, match="No case is in the split 'train'"):
        cases.with_splits(seed=1)
    members = [case(n, split=("val", "test")[n], group="one") for n in range(2)]
    with pytest.raises(DataError, match="test: A group is in two splits"):
        DetectionCases(tuple(members), ("lesion",), "test").with_splits(seed=1, need_train=False)
    # What has a split for training, or none at all, is completed as ever.
    for given in ("train", ""):
        members = [case(n, split=given) for n in range(20)]
        cases = DetectionCases(tuple(members), ("lesion",), "test")
        assert len(cases.with_splits(seed=1, need_train=False).indices("test")) == 3


def test_a_share_of_no_images_is_none() -> None:
    cases = DetectionCases((case(0, split="val"),), ("lesion",), "test")
    for fraction in (0.1, 1.0):
        share = cases.share(cases.indices("train"), fraction=fraction, seed=0)
        assert share.tolist() == []
        assert share.dtype == np.int64


def test_splits_that_exist_are_kept() -> None:
    members = [replace(case(n), split="test" if n < 5 else "train") for n in range(20)]
    cases = DetectionCases(tuple(members), ("lesion",), "test").with_splits(seed=1)
    assert cases.indices("test").tolist() == [0, 1, 2, 3, 4]
    assert len(cases.indices("val")) > 0
