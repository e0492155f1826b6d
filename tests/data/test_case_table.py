"""Patients and splits from a table beside the folders."""

import logging
from pathlib import Path

import pytest

from voxlift.core.errors import DataError
from voxlift.data.case_table import apply_case_table
from voxlift.data.segmentation_cases import SegmentationCase
from voxlift.data.segmentation_listing import SegmentationListing

LISTING = SegmentationListing(
    tuple(SegmentationCase(n, (Path(n),), Path(n), group=n) for n in ("a", "b", "c.1")),
    origin="the set",
)


def write(folder: Path, *lines: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_groups_and_splits_are_taken_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(
        tmp_path,
        "name,split,patient_id,diameter_mm",
        "b.nii.gz,train,Jane,4",
        "a,train,Jane,5",
        "d,val,Mary,6",
        "c.1,test,Joan,6",
    )
    with caplog.at_level(logging.INFO):
        listing = apply_case_table(LISTING, folder)
    assert [case.group for case in listing.cases] == ["Jane", "Jane", "Joan"]
    assert [case.split for case in listing.cases] == ["train", "train", "test"]
    assert "patient_id and split of 3 cases taken from there, in 2 groups" in caplog.text
    assert "1 rows are of no case" in caplog.text
    assert "Jane" not in caplog.text


def test_one_of_group_and_split_will_do(tmp_path: Path) -> None:
    folder = write(tmp_path, "id,group", "a,x", "b,x", "c.1,y")
    write(tmp_path, "name,patient_id", name="labels.csv")
    write(tmp_path, "Case,Split", "a,train", "b,train", "c.1,val", name="cases.csv")
    listing = apply_case_table(LISTING, folder)
    assert [case.split for case in listing.cases] == ["train", "train", "val"]
    assert [case.group for case in listing.cases] == ["a", "b", "c.1"]


def test_no_table_and_other_tables_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert apply_case_table(LISTING, tmp_path) is LISTING
    with caplog.at_level(logging.WARNING):
        assert apply_case_table(LISTING, write(tmp_path, "value,name", "1,liver")) is LISTING
    assert "is not used: it has no columns name and patient_id or split, but value" in caplog.text


def test_cases_without_a_row_are_named_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path, "name,patient_id", "b,x")
    with pytest.raises(DataError, match=r"labels\.csv: case without a row \(2\): a, c\.1\."):
        apply_case_table(LISTING, folder)
    with caplog.at_level(logging.WARNING):
        assert len(apply_case_table(LISTING, folder, skip_bad=True).cases) == 1
    assert "skipped: case without a row: a" in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name,patient_id", "a,x", "a.nii.gz,x"], "row 3: a.nii.gz is the same case as in row 2"),
        (["name,patient_id", "a,x", "b,", "c.1,x"], "row 3: the patient id is empty"),
        (["name,split", "a,train", "b,later", "c.1,val"], "row 3: the split is 'later'"),
        (["name,split", "a,train", "b,", "c.1,val"], "row 3: the split is empty"),
        (
            ["name,split,patient", "a,train,Jane", "b,val,Mary", "c.1,val,Jane"],
            "row 4: this row's group is in two splits, 'val' here and 'train' in row 2",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        apply_case_table(LISTING, write(tmp_path, *lines))
    assert "Jane" not in str(caught.value)
