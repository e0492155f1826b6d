"""Cases with masks: read on one grid, split by patient."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases, grid_difference
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume

GRID = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), (3.0, 0.5, 0.5), (10.0, -20.0, 30.0))
LABELS = LabelScheme(names=("background", "liver"), values=(0, 7))


def mask(**changes: Any) -> Volume:
    array = np.zeros((3, 4, 5), dtype=np.uint8)
    array[1] = 7
    return replace(GRID, array=array, **changes)


def cases(
    *images: Volume | Path, label: Volume | Path | None = None, channels: tuple[str, ...] = ("CT",)
) -> SegmentationCases:
    case = SegmentationCase("one", images or (GRID,), label or mask(), group="secret")
    return SegmentationCases((case,), LABELS, channel_names=channels, origin="the set")


def many(count: int, **splits: str) -> SegmentationCases:
    return SegmentationCases(
        tuple(
            SegmentationCase(str(i), (GRID,), mask(), f"g{i // 2}", splits.get(f"g{i // 2}"))
            for i in range(count)
        ),
        LABELS,
    )


def test_image_and_mask_are_read_from_files(tmp_path: Path) -> None:
    image = write_volume(tmp_path / "image.nii.gz", GRID)
    label = write_volume(tmp_path / "label.mha", mask())
    read = cases(image, label=label)
    (channel,) = read.read_image(0)
    assert np.array_equal(channel.array, GRID.array)
    classes = read.read_label(0, like=channel)
    assert classes.array.dtype == np.uint8
    assert np.array_equal(classes.array, mask().array // 7)
    assert grid_difference(classes, GRID) is None


def test_channels_come_in_their_order() -> None:
    other = replace(GRID, array=-GRID.array)
    first, second = cases(GRID, other, channels=("T1", "T2")).read_image(0)
    assert (first.array[0, 0, 1], second.array[0, 0, 1]) == (1, -1)


def test_the_number_of_channels_has_to_be_that_of_the_data_set() -> None:
    with pytest.raises(DataError, match=r"the set: case one has 2 channel\(s\), but.*1 \(CT\)"):
        cases(GRID, GRID).read_image(0)


def test_channels_on_different_grids_are_refused() -> None:
    moved = replace(GRID, origin_mm=(10.0, -20.0, 31.0))
    with pytest.raises(DataError, match="the set: case one: channel 1 is not on the grid"):
        cases(GRID, moved, channels=("a", "b")).read_image(0)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (Volume(np.zeros((3, 4, 6)), (3.0, 0.5, 0.5)), r"size is \(3, 4, 6\).*not \(3, 4, 5\)"),
        (mask(spacing_mm=(3.0, 0.5, 0.6)), r"spacing is \(3\.0, 0\.5, 0\.6\) mm"),
        (mask(origin_mm=(10.0, -20.0, 30.1)), "first voxel is at"),
        (mask(direction=np.diag([-1.0, -1.0, 1.0])), "direction is"),
        (replace(mask(), array=mask().array + 1), r"holds 1, 8, which.*0 background, 7 liver"),
        (replace(mask(), array=mask().array * 0.5), "no whole numbers, such as 3.5"),
    ],
)
def test_masks_that_do_not_fit(label: Volume, message: str) -> None:
    with pytest.raises(DataError, match=f"the set: case one: .*{message}") as caught:
        cases(label=label).read_label(0, like=GRID)
    assert "secret" not in str(caught.value)


def test_rounding_in_the_geometry_is_no_difference() -> None:
    near = mask(spacing_mm=(3.0001, 0.5, 0.5), origin_mm=(10.01, -20.0, 30.01))
    assert grid_difference(near, GRID) is None


def test_splits_keep_patients_together_and_what_exists() -> None:
    made = many(20).with_splits(fractions=(0.6, 0.2, 0.2), seed=1)
    assert [len(made.indices(name)) for name in ("train", "val", "test")] == [12, 4, 4]
    split_of_group = set(zip(made.groups, made.splits, strict=True))
    assert len(split_of_group) == 10
    assert made.splits == many(20).with_splits(fractions=(0.6, 0.2, 0.2), seed=1).splits
    given = many(8, g0="train", g1="train", g2="train", g3="test")
    completed = given.with_splits(fractions=(0.8, 0.2, 0.0), seed=1)
    assert completed.splits[6:] == ("test", "test")
    assert completed.splits.count("val") == 2
    with pytest.raises(ConfigError, match="no split 'training'"):
        made.indices("training")


def test_too_few_groups_name_the_data_set() -> None:
    with pytest.raises(DataError, match="cases: "):
        many(2).with_splits(fractions=(0.6, 0.2, 0.2), seed=1)


def test_shares_are_nested_and_do_not_divide_patients() -> None:
    data = many(20)
    everything = np.arange(20)
    shares = [
        set(data.share(everything, fraction=fraction, seed=3).tolist())
        for fraction in (0.1, 0.3, 0.5, 1.0)
    ]
    assert [len(share) for share in shares] == [2, 6, 10, 20]
    assert all(small < large for small, large in pairwise(shares))
    assert all((i ^ 1) in share for share in shares for i in share)


def test_no_case_and_two_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="the set: there is no volume"):
        SegmentationCases((), LABELS, origin="the set")
    (case,) = cases().cases
    with pytest.raises(DataError, match="the case one is there twice"):
        SegmentationCases((case, case), LABELS)


def test_description_and_representation_do_not_show_patients() -> None:
    data = cases()
    assert data.describe() == (
        "1 cases in 1 groups; channels CT; classes background (0), liver (7)"
    )
    assert (
        "train 1, val 0" in replace(data, cases=(replace(data.cases[0], split="train"),)).describe()
    )
    assert "secret" not in repr(data)
