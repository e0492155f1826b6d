"""What all lists of cases have in common; their errors are tested with each kind of manifest."""

from pathlib import Path

import pytest

from voxlift.core.errors import DataError
from voxlift.data.manifest_rows import (
    Row,
    check_splits,
    group_of_row,
    is_there,
    read_rows,
    split_of_row,
)


def test_rows_bear_the_numbers_of_the_lines_they_end_on(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('\ufeffName , SPLIT\n\n a,train\n"b\nb",\n', encoding="utf-8")
    columns, rows = read_rows(path, header="name")
    assert columns == ("name", "split")
    assert rows == [
        Row(3, {"name": "a", "split": "train"}),
        Row(5, {"name": "b\nb", "split": ""}),
    ]


def test_splits_and_groups_of_rows() -> None:
    path = Path("list.csv")
    names = {"Training": "train", "valid": "val", "TEST": "test", "": None}
    for text, split in names.items():
        assert split_of_row(path, Row(2, {"split": text})) == split
    assert split_of_row(path, Row(2, {})) is None
    assert group_of_row(path, Row(2, {"patient_id": "7"}), column="patient_id") == "7"
    with pytest.raises(DataError, match="row 2: the patient id is empty"):
        group_of_row(path, Row(2, {"patient_id": "N/A"}), column="patient_id")


def test_splits_are_complete_and_do_not_divide_groups() -> None:
    rows = [Row(number, {}) for number in (2, 3, 5)]
    check_splits(Path("x"), rows, [None] * 3, ["a", "a", "b"])
    check_splits(Path("x"), rows, ["train", "train", "val"], ["a", "a", "b"])
    with pytest.raises(DataError, match="row 3: the split is empty"):
        check_splits(Path("x"), rows, ["train", None, "val"], ["a", "b", "c"])
    with pytest.raises(DataError, match=r"row 5: .* 'val' here and 'train' in row 2"):
        check_splits(Path("x"), rows, ["train", "train", "val"], ["a", "b", "a"])


def test_names_that_no_file_can_have_are_not_there() -> None:
    assert not is_there(Path("x" * 5000))
