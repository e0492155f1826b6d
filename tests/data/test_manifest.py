"""Manifests: what is read, and each bad input with its row and remedy."""

import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.manifest import read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcdef":
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 2, 2)))
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_reads_paths_labels_groups_splits_and_masks(folder: Path) -> None:
    path = write(
        folder,
        "path,label,group,split,mask",
        "a.npy,malignant,P1,train,b.npy",
        "",
        f"{folder / 'c.npy'},benign,P2,test,",
        '"d.npy", benign ,P1,Train,',
    )
    cases = read_manifest(path)
    assert cases.class_names == ("benign", "malignant")
    assert cases.labels.tolist() == [1, 0, 0]
    assert cases.groups == ("P1", "P2", "P1")
    assert cases.splits == ("train", "test", "train")
    assert [case.path for case in cases.cases] == [folder / f"{name}.npy" for name in "acd"]
    assert cases.cases[0].id == "a.npy"
    assert cases.cases[0].mask == folder / "b.npy"
    assert not cases.has_masks


def test_without_group_each_volume_stands_for_itself_and_a_warning_is_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        cases = read_manifest(write(folder, "path,label,patient", "a.npy,0,P1", "b.npy,1,P1"))
    assert len(set(cases.groups)) == 2
    assert "no column 'group'" in caplog.text
    assert "no meaning here: patient" in caplog.text
    assert cases.splits == (None, None)


def test_numbers_are_classes_in_numerical_order(folder: Path) -> None:
    lines = ("a.npy,10", "b.npy,2.0", "c.npy,2", "d.npy,-1")
    cases = read_manifest(write(folder, "path,label", *lines))
    assert cases.class_names == ("-1", "2", "10")
    assert cases.labels.tolist() == [2, 1, 1, 0]


def test_byte_order_mark_of_spreadsheets_is_no_part_of_the_header(folder: Path) -> None:
    path = folder / "manifest.csv"
    path.write_text("path,label\na.npy,x\nb.npy,y\n", encoding="utf-8-sig")
    assert len(read_manifest(path)) == 2


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (["path,klass", "a.npy,0"], ["column 'label' is missing", "path, klass", "path,label"]),
        (["file,label", "a.npy,0"], ["column 'path' is missing"]),
        (["path;label", "a.npy;0"], ["column 'path' is missing", "separated by commas"]),
        (["path,label,label", "a.npy,0,1"], ["'label' is there twice"]),
        (["path,label", "a.npy,0", "gone.npy,1"], ["row 3", "gone.npy", "--skip-bad"]),
        (["path,label", "a.npy,0", ",1"], ["row 3", "path is empty"]),
        (["path,label,mask", "a.npy,0,gone.npy"], ["row 2", "gone.npy", "column 'mask'"]),
        (["path,label", "a.npy,0", "b.npy,1", "./a.npy,0"], ["row 4", "same file", "row 2"]),
        (["path,label", "a.npy,0", "b.npy,NaN"], ["row 3", "label is missing ('NaN')"]),
        (["path,label", "a.npy,0", "b.npy,"], ["row 3", "label is missing", "leave the row out"]),
        (["path,label", "a.npy,0", "b.npy,0.37"], ["row 3", "0.37", "class name"]),
        (["path,label", "a.npy,0", "b.npy,inf"], ["row 3", "inf"]),
        (["path,label", "a.npy,0", "b.npy,0.0"], ["all 2 rows have the label '0'"]),
        (["path,label", "a.npy,0", "b.npy"], ["row 3", "1 cells", "header has 2"]),
        (["path,label,group", "a.npy,0,P1", "b.npy,1,"], ["row 3", "group is empty"]),
        (["path,label,split", "a.npy,0,train", "b.npy,1,"], ["row 3", "split is empty"]),
        (["path,label,split", "a.npy,0,train", "b.npy,1,x"], ["row 3", "'x'", "train, val, test"]),
        (["path,label"], ["no rows"]),
        ([""], ["empty"]),
        (["path,label", '"a.npy,0'], ["could not be read as CSV"]),
    ],
)
def test_bad_input_names_the_row_and_the_remedy(
    folder: Path, lines: list[str], messages: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        read_manifest(write(folder, *lines))
    for message in [str(folder / "manifest.csv"), *messages]:
        assert message in str(caught.value)


def test_group_in_two_splits_names_rows_but_not_the_patient(folder: Path) -> None:
    path = write(
        folder,
        "path,label,group,split",
        "a.npy,0,Doe^Jane,train",
        "b.npy,1,P2,train",
        "c.npy,1,Doe^Jane,test",
    )
    with pytest.raises(DataError, match=r"row 4.*two splits.*row 2") as caught:
        read_manifest(path)
    assert "Doe" not in str(caught.value)


def test_skip_bad_lists_and_skips_missing_files(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(folder, "path,label", "a.npy,0", "gone.npy,1", "b.npy,1")
    with caplog.at_level(logging.WARNING):
        cases = read_manifest(path, skip_bad=True)
    assert [case.id for case in cases.cases] == ["a.npy", "b.npy"]
    assert "row 3" in caplog.text
    assert "gone.npy" in caplog.text
    path = write(folder, "path,label", "gone.npy,1", "gone2.npy,0")
    with pytest.raises(DataError, match="none of its 2 files"):
        read_manifest(path, skip_bad=True)


def test_what_is_no_csv_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be read"):
        read_manifest(tmp_path / "gone.csv")
    path = tmp_path / "binary.csv"
    path.write_bytes(b"path,label\n\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.csv could not be read as CSV"):
        read_manifest(path)


def test_a_name_longer_than_any_file_is_a_missing_file(folder: Path) -> None:
    with pytest.raises(DataError, match="row 2"):
        read_manifest(write(folder, "path,label", "x" * 5000 + ",0"))
