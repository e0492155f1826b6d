"""The LIDC layout: one file a nodule, a table of splits and a table of nodules."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.classification_source import open_classification
from voxlift.data.lidc import is_lidc, read_lidc

MALIGNANCY = {"n1": 1, "n2": 2, "n3": 3, "n4": 4, "n5": 5, "n6": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    (tmp_path / "nodule").mkdir()
    for name in MALIGNANCY:
        voxel = generator.integers(0, 256, (6, 6, 6), dtype=np.uint8)
        np.savez_compressed(tmp_path / "nodule" / f"{name}.npz", voxel=voxel, answer1=voxel > 128)
    write_table(tmp_path, "patient_id", lambda name: f"P{name[1:]}")
    (tmp_path / "train_test_split.csv").write_text(
        ",train,test\n0,n1.npz,n5.npz\n1,n4.npz,n6.npz\n2,n2.npz,\n3,n3.npz,\n"
    )
    return tmp_path


def write_table(folder: Path, column: str, group: Callable[[str], str]) -> None:
    lines = [f"{name},{float(mode)},{group(name)}" for name, mode in MALIGNANCY.items()]
    (folder / "nodules.csv").write_text(f"index,malignancy_mode,{column}\n" + "\n".join(lines))


def test_reads_labels_splits_groups_and_masks(folder: Path) -> None:
    assert is_lidc(folder)
    cases = read_lidc(folder)
    assert {case.id: (case.label, case.split) for case in cases.cases} == {
        "n1": (0, "train"),
        "n2": (0, "train"),
        "n4": (1, "train"),
        "n5": (1, "test"),
        "n6": (0, "test"),
    }
    assert cases.class_names == ("benign", "malignant")
    assert cases.cases[0].group == "P1"
    assert cases.has_masks
    index = [case.id for case in cases.cases].index("n4")
    with np.load(folder / "nodule" / "n4.npz") as stored:
        volume = cases.read_volume(index)
        np.testing.assert_array_equal(volume.array, stored["voxel"])
        assert volume.spacing_mm == (1.0, 1.0, 1.0)
        np.testing.assert_array_equal(cases.read_mask(index), stored["answer1"])


@pytest.mark.parametrize(("indeterminate", "label"), [("benign", 0), ("malignant", 1)])
def test_malignancy_3_counts_as_asked(folder: Path, indeterminate: str, label: int) -> None:
    cases = read_lidc(folder, indeterminate=indeterminate)  # type: ignore[arg-type]
    assert {case.id: case.label for case in cases.cases}["n3"] == label


def test_opens_by_itself_and_completes_the_splits(folder: Path) -> None:
    cases = open_classification(str(folder))
    assert len(cases) == 5
    with pytest.raises(DataError, match="'malignant' has 1 group"):
        cases.with_splits(seed=0)


def test_without_a_split_table_all_nodules_are_read(folder: Path) -> None:
    (folder / "train_test_split.csv").unlink()
    cases = open_classification(folder)
    assert len(cases) == 5
    assert set(cases.splits) == {None}


def test_nodules_of_one_patient_in_train_and_test_are_refused(folder: Path) -> None:
    write_table(folder, "patient_id", lambda name: "Doe" if name in ("n1", "n5") else name)
    with pytest.raises(DataError, match=r"n1 of split 'train' and n5 of split 'test'") as caught:
        open_classification(folder)
    assert "Doe" not in str(caught.value)


def test_without_patients_there_is_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_table(folder, "texture", lambda name: "5")
    with caplog.at_level(logging.WARNING):
        cases = read_lidc(folder)
    assert len(set(cases.groups)) == 5
    assert "no column 'patient_id'" in caplog.text


def test_missing_file_is_an_error_or_skipped(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "nodule" / "n4.npz").rename(folder / "nodule" / "other.npz")
    with pytest.raises(DataError, match=r"n4 .*has no file.*--skip-bad"):
        read_lidc(folder)
    with caplog.at_level(logging.WARNING):
        assert len(read_lidc(folder, skip_bad=True)) == 4
    assert "skipped" in caplog.text


def test_damaged_file_is_an_error_or_skipped(folder: Path) -> None:
    (folder / "nodule" / "n2.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"n2\.npz could not be read"):
        read_lidc(folder)
    assert len(read_lidc(folder, skip_bad=True)) == 4
    np.savez(folder / "nodule" / "n2.npz", image=np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match=r"n2\.npz holds no array 'voxel', but image"):
        read_lidc(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index,malignancy_mode\nn1,6\n", "row 2: malignancy_mode is '6'"),
        ("index,malignancy_mode\nn1,2.5\n", "row 2: malignancy_mode is '2.5'"),
        ("index,malignancy_mode\nn1,1\nn2,nan\n", "row 3: malignancy_mode is 'nan'"),
        ("index,malignancy_mode\nn1,\n", "malignancy_mode is ''"),
        ("index,malignancy_mode\nn1,1\nn1,1\n", "n1 is there already, in row 2"),
        ("index,malignancy_mode,patient_id\nn1,1,\n", "patient_id is empty"),
        ("index,malignancy_mode\nn1,1\n", "n4 has no row"),
        ("name,malignancy\nn1,1\n", "expected one table of nodules.*found none"),
    ],
)
def test_bad_nodule_tables(folder: Path, table: str, message: str) -> None:
    (folder / "nodules.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        read_lidc(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("train\nn1.npz\n", "column 'test' is missing"),
        ("train,test\nn1.npz,n5.npz\nn4.npz,n1.npz\n", "row 3: the nodule n1 of 'test'"),
    ],
)
def test_bad_split_tables(folder: Path, table: str, message: str) -> None:
    (folder / "train_test_split.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        read_lidc(folder)


def test_what_cannot_be_read_is_an_error(folder: Path) -> None:
    (folder / "nodules.csv").write_bytes(b"index,malignancy_mode\nn\xff,1\n")
    with pytest.raises(DataError, match=r"nodules\.csv could not be read as CSV"):
        read_lidc(folder)
    for path in (folder / "nodule").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"holds no \.npz file|could not be read"):
        read_lidc(folder)


def test_what_is_not_clear_is_refused(folder: Path) -> None:
    table = folder / "nodules.csv"
    (folder / "copy.csv").write_bytes(table.read_bytes())
    with pytest.raises(DataError, match="expected one table"):
        read_lidc(folder)
    (folder / "copy.csv").unlink()
    (folder / "nodule" / "train_test_split.csv").write_text("train,test\n")
    with pytest.raises(DataError, match="found 2"):
        read_lidc(folder)
    (folder / "nodule" / "train_test_split.csv").unlink()
    (folder / "n1.npz").write_bytes((folder / "nodule" / "n1.npz").read_bytes())
    with pytest.raises(DataError, match="the same name"):
        read_lidc(folder)
