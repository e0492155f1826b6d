"""Which mask belongs to which image."""

from pathlib import Path

import pytest

from voxlift.data.file_pairs import pair_names, volume_name


def named(*names: str) -> dict[str, Path]:
    return {name: Path(name) for name in names}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("case_1", "case_1"),
        ("case_1", "case_1_seg"),
        ("case_1", "case_1-mask"),
        ("case_1", "case_1.label"),
        ("case_1", "seg_case_1"),
        ("case_1_image", "case_1_segmentation"),
        ("case_1_ct", "case_1_GT"),
        ("img0001", "label0001"),
        ("volume-0", "segmentation-0"),
    ],
)
def test_names_up_to_one_word(image: str, label: str) -> None:
    others = named("other")
    pairs = pair_names(named(image) | others, named(label) | others)
    assert pairs == {image: label, "other": "other"}


@pytest.mark.parametrize(
    ("image", "label"),
    [("a", "b"), ("img1", "label2"), ("case", "caseseg"), ("imgX", "labelX"), ("a", "a_liver")],
)
def test_other_names_belong_to_no_one(image: str, label: str) -> None:
    assert pair_names(named(image), named(label)) == {}


def test_an_equal_name_comes_first() -> None:
    assert pair_names(named("a"), named("a", "a_seg")) == {"a": "a"}


def test_two_masks_that_could_be_meant_are_not_guessed_at() -> None:
    assert pair_names(named("a"), named("a_seg", "a_mask")) == {}


def test_names_of_volumes(tmp_path: Path) -> None:
    folder = tmp_path / "series.1"
    folder.mkdir()
    paths = ("a/x.nii.gz", "X.NII.GZ", "y.1.nrrd", folder)
    assert [volume_name(Path(path)) for path in paths] == ["x", "X", "y.1", "series.1"]
