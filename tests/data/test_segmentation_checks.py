"""Every volume and mask is read once; each defect has its message, or its case is skipped."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data import segmentation_cases, segmentation_checks
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.data.segmentation_checks import absent_classes, check_segmentation
from voxlift.data.segmentation_listing import SegmentationListing
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume

SIZE = (3, 4, 5)
LABELS = LabelScheme(names=("background", "liver", "tumour"), values=(0, 1, 2))


def image(seed: int, **changes: Any) -> Volume:
    array = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    return replace(Volume(array, spacing_mm=(2.0, 1.0, 1.0)), **changes)


def mask(**changes: Any) -> Volume:
    array = np.zeros(SIZE, dtype=np.uint8)
    array[1, 1:3] = 1
    array[2, 2, 2:4] = 2
    return replace(Volume(array, spacing_mm=(2.0, 1.0, 1.0)), **changes)


def case(number: int, **changes: Any) -> SegmentationCase:
    made = SegmentationCase(f"case{number}", (image(number),), mask(), group=f"patient{number}")
    return replace(made, **changes)


def listing(*cases: SegmentationCase, labels: LabelScheme | None = None) -> SegmentationListing:
    return SegmentationListing(cases, labels, origin="the set")


def test_classes_and_facts_are_found_in_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(function: Any) -> Any:
        def reader(path: Path, **options: Any) -> Any:
            read.append(path.name)
            return function(path, **options)

        return reader

    for name in ("read_volume", "read_channels"):
        function = getattr(segmentation_cases, name)
        monkeypatch.setattr(segmentation_cases, name, counted(function))
    for number in range(2):
        write_volume(tmp_path / f"image{number}.mha", image(number))
        write_volume(tmp_path / f"mask{number}.mha", mask())
    checked = check_segmentation(
        listing(
            *(
                case(n, images=(tmp_path / f"image{n}.mha",), label=tmp_path / f"mask{n}.mha")
                for n in range(2)
            )
        )
    )
    assert sorted(read) == ["image0.mha", "image1.mha", "mask0.mha", "mask1.mha"]
    assert checked.labels.names == ("background", "class 1", "class 2")
    assert checked.channel_names == ("image",)
    facts = checked.facts[1]
    voxels = image(1).array
    assert facts.size_voxels == SIZE
    assert facts.spacing_mm == (2.0, 1.0, 1.0)
    assert facts.class_voxels == (48, 10, 2)
    assert facts.ignored_voxels == 0
    assert (facts.lowest, facts.highest) == ((voxels.min(),), (voxels.max(),))
    assert np.array_equal(facts.intensities, voxels.reshape(1, -1))
    assert np.array_equal(facts.structure_intensities, voxels[mask().array > 0][None])


def test_facts_stay_with_the_cases_through_splits() -> None:
    checked = check_segmentation(listing(*map(case, range(4)), labels=LABELS))
    assert checked.with_splits(fractions=(0.5, 0.5, 0.0), seed=0).facts == checked.facts


def test_large_cases_are_sampled_evenly() -> None:
    array = np.arange(20 * 30 * 40, dtype=np.float32).reshape(20, 30, 40)
    label = Volume((array % 2).astype(np.uint8))
    (facts,) = check_segmentation(listing(case(0, images=(Volume(array),), label=label))).facts
    assert facts.intensities.shape == facts.structure_intensities.shape == (1, 2000)
    assert np.abs(np.diff(facts.intensities) - 12.0).max() <= 1.0
    assert (facts.structure_intensities % 2 == 1).all()


def test_cases_that_are_complete_are_checked_as_they_are() -> None:
    cases = SegmentationCases((case(0), case(1)), LABELS, channel_names=("CT",))
    checked = check_segmentation(cases)
    assert (checked.labels, checked.channel_names) == (LABELS, ("CT",))
    assert checked.groups == cases.groups


def test_ignored_voxels_are_no_class_and_no_structure() -> None:
    label = mask()
    label.array[0] = 9
    checked = check_segmentation(listing(case(0, label=label)), ignore_value=9)
    assert checked.labels.values == (0, 1, 2)
    assert checked.facts[0].ignored_voxels == 20
    assert checked.facts[0].structure_intensities.shape == (1, 12)
    assert checked.read_label(0, like=image(0)).array[0].min() == 255


def test_names_and_regions_of_the_user() -> None:
    regions = {"organ": (1, 2), "tumour": (2,)}
    checked = check_segmentation(
        listing(case(0)), class_names=("liver", "metastasis"), regions=regions
    )
    assert checked.labels.names == ("background", "liver", "metastasis")
    assert checked.labels.structures == ("organ", "tumour")


def test_whole_numbers_stored_as_floats_are_fine() -> None:
    label = replace(mask(), array=mask().array.astype(np.float64))
    assert check_segmentation(listing(case(0, label=label))).facts[0].class_voxels == (48, 10, 2)


def _with(value: float) -> Volume:
    label = replace(mask(), array=mask().array.astype(np.float32))
    label.array[0, 0, 0] = value
    return label


BAD = [
    ({"label": replace(mask(), array=np.ones((3, 4, 6)))}, r"its size is \(3, 4, 6\) voxels"),
    ({"label": mask(spacing_mm=(2.0, 1.0, 1.2))}, "its spacing is"),
    ({"label": mask(origin_mm=(0.0, 0.0, 5.0))}, "its first voxel is at"),
    ({"label": mask(direction=np.diag([1.0, -1.0, -1.0]))}, "its direction is"),
    ({"label": _with(7)}, "holds 7, which is no class"),
    ({"label": _with(-1)}, "holds -1, which is no class"),
    ({"label": _with(0.25)}, r"no whole numbers, such as 0\.25"),
    ({"label": _with(np.nan)}, "no whole numbers, such as nan"),
    ({"images": (image(9), image(10))}, r"2 channel\(s\), but the data set has 1"),
    ({"images": (image(9), image(10, spacing_mm=(1.0, 1.0, 1.0)))}, "channel 1 is not on the grid"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_cases_stop_the_run(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"the set: case case1.*{message}") as caught:
        check_segmentation(listing(case(0), case(1, **changes), labels=LABELS))
    assert "patient" not in str(caught.value)


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_cases_are_skipped_on_request(
    changes: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        checked = check_segmentation(
            listing(case(0), case(1, **changes), case(2), labels=LABELS), skip_bad=True
        )
    assert [kept.id for kept in checked.cases] == ["case0", "case2"]
    assert len(checked.facts) == 2
    assert "skipped: the set: case case1" in caplog.text
    assert "1 of 3 cases skipped" in caplog.text


def test_nan_in_an_image_names_the_file_once(tmp_path: Path) -> None:
    array = image(0).array
    array[1, 2, 3] = np.nan
    path = write_volume(tmp_path / "image.nii.gz", image(0, array=array))
    with pytest.raises(DataError, match=r"1 of 60 voxels are NaN.*\(1, 2, 3\)") as caught:
        check_segmentation(replace(listing(case(0, images=(path,))), origin=str(tmp_path)))
    assert str(caught.value).count(str(tmp_path)) == 1


def test_no_usable_case_is_an_error_even_when_skipping() -> None:
    with pytest.raises(DataError, match="the set: None of the 1 cases can be used"):
        check_segmentation(listing(case(0, label=_with(0.5))), skip_bad=True)


def test_unnamed_classes_of_impossible_values() -> None:
    with pytest.raises(DataError, match=r"case0: the mask holds the value -3.*--ignore-value -3"):
        check_segmentation(listing(case(0, label=_with(-3))))
    noise = replace(mask(), array=np.arange(60, dtype=np.int32).reshape(SIZE) * 7000)
    with pytest.raises(DataError, match="expected classes from 0 to 65535"):
        check_segmentation(listing(case(0, label=noise)))
    scan = Volume(np.arange(600, dtype=np.int16).reshape(6, 10, 10))
    with pytest.raises(DataError, match=r"600 different values.*Is it an image"):
        check_segmentation(listing(case(0, images=(scan,), label=scan)))


def test_empty_masks_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    empty = replace(mask(), array=np.zeros(SIZE, dtype=np.uint8))
    with caplog.at_level(logging.WARNING):
        checked = check_segmentation(listing(case(0), case(1, label=empty)))
    assert "the masks of 1 of 2 cases hold background only, such as that of case1" in caplog.text
    assert [facts.is_empty for facts in checked.facts] == [False, True]
    assert checked.facts[1].structure_intensities.shape == (1, 0)
    with pytest.raises(DataError, match="the set: No mask holds anything but background"):
        check_segmentation(listing(case(0, label=empty), case(1, label=empty)))
    unlabelled = replace(mask(), array=np.full(SIZE, 9, dtype=np.uint8))
    with pytest.raises(DataError, match="No mask holds anything but background"):
        check_segmentation(listing(case(0, label=unlabelled)), ignore_value=9)


def test_the_mask_whose_value_no_other_has_is_named() -> None:
    odd = replace(mask(), array=np.where(mask().array == 2, 7, mask().array).astype(np.uint8))
    cases = (case(0), case(1), case(2, label=odd))
    with pytest.raises(DataError, match=r"\(1, 2, 7\).*The value 7 .* mask of case2 alone"):
        check_segmentation(listing(*cases), class_names=("liver", "tumour"))
    with pytest.raises(DataError, match=r"without the background\.$"):
        check_segmentation(listing(case(0)), class_names=("liver",))


def test_a_class_without_training_masks_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    healthy = replace(mask(), array=mask().array % 2)
    cases = (case(0, label=healthy, split="train"), case(1, split="val"))
    with caplog.at_level(logging.WARNING):
        checked = check_segmentation(listing(*cases, labels=LABELS))
    assert "no training mask holds tumour; a network cannot learn it" in caplog.text
    assert absent_classes(checked) == ("tumour",)


def test_channels_are_counted_by_the_first_case() -> None:
    pair = (image(7), image(8))
    checked = check_segmentation(listing(case(0, images=pair)))
    assert checked.channel_names == ("channel 0", "channel 1")
    assert checked.facts[0].intensities.shape == (2, 60)
    with pytest.raises(DataError, match=r"case1 has 1 channel\(s\), but the data set has 2"):
        check_segmentation(listing(case(0, images=pair), case(1)))


def test_the_same_scan_is_not_in_two_splits(caplog: pytest.LogCaptureFixture) -> None:
    cases = (
        case(0, split="train"),
        case(1, split="train"),
        case(2, images=(image(0),), split="test"),
    )
    with pytest.raises(
        DataError, match=r"case0 of split 'train' and case2 of split 'test'.*voxels"
    ):
        check_segmentation(listing(*cases))
    with caplog.at_level(logging.WARNING):
        checked = check_segmentation(listing(*cases), skip_bad=True)
    assert [kept.id for kept in checked.cases] == ["case1", "case2"]
    assert "skipped: case0 is in another split, too" in caplog.text


def test_the_same_scan_without_splits_is_one_group(caplog: pytest.LogCaptureFixture) -> None:
    other = replace(mask(), array=mask().array[::-1].copy())
    with caplog.at_level(logging.WARNING):
        checked = check_segmentation(
            listing(case(0), case(1), case(2, images=(image(0),), label=other))
        )
    assert checked.groups[0] == checked.groups[2] != checked.groups[1]
    assert "case0 and case2 hold the same voxels, but have different masks" in caplog.text


def test_progress_is_reported_while_reading(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation_checks, "_SECONDS_BETWEEN_REPORTS", 10.0)
    seconds = iter(range(0, 100, 6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    with caplog.at_level(logging.INFO):
        check_segmentation(listing(*map(case, range(4))))
    assert "checked 2 of 4 cases" in caplog.text
