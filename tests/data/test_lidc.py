"""The LIDC layout: one file a nodule, a table of splits and a table of nodules."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.classification_source import open_classification
from voxlift.data.lidc import check_published_split, is_lidc, read_lidc, read_lidc_masks
from voxlift.data.segmentation_source import open_segmentation

MALIGNANCY = {"n1": 1, "n2": 2, "n3": 3, "n4": 4, "n5": 5, "n6": 1, "n7": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    (tmp_path / "nodule").mkdir()
    for name in MALIGNANCY:
        voxel = generator.integers(0, 256, (6, 6, 6), dtype=np.uint8)
        np.savez_compressed(tmp_path / "nodule" / f"{name}.npz", voxel=voxel, answer1=voxel > 128)
    write_table(tmp_path, "uid", lambda name: f"P{name[1:]}")
    (tmp_path / "train_test_split.csv").write_text(
        ",train,test\n0,n1.npz,n5.npz\n1,n4.npz,n6.npz\n2,n2.npz,\n3,n3.npz,\n4,n7.npz,\n"
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


def test_nodules_that_nobody_rated_are_left_out_and_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        cases = read_lidc(folder, indeterminate="benign")
    assert "n7" not in [case.id for case in cases.cases]
    assert "left out: 0 nodules of malignancy 3, 1 without a rating (0)" in caplog.text
    with caplog.at_level(logging.INFO):
        read_lidc(folder)
    assert "left out: 1 nodules of malignancy 3, 1 without a rating (0)" in caplog.text


@pytest.fixture
def published(folder: Path) -> Path:
    """Two of three test patients are in training, too, and a test nodule is listed twice."""
    patients = {"n1": "Doe", "n5": "Doe", "n2": "Roe", "n3": "Roe", "n6": "Roe"}
    write_table(folder, "uid", lambda name: patients.get(name, name))
    (folder / "train_test_split.csv").write_text(
        ",train,test\n0,n1.npz,n5.npz\n1,n2.npz,n6.npz\n2,n3.npz,n4.npz\n3,n7.npz,n5.npz\n"
    )
    return folder


@pytest.mark.parametrize("open_data", [open_classification, open_segmentation])
def test_a_split_that_divides_patients_is_refused_by_default(
    published: Path, open_data: Callable[..., object]
) -> None:
    message = (
        r"2 of the 3 patients of 'test' are in 'train', too.*"
        r"--published-split ignore.*--published-split keep"
    )
    with pytest.raises(DataError, match=message) as caught:
        open_data(published)
    assert "oe" not in str(caught.value).replace("too", "")


def test_a_split_that_divides_patients_is_kept_as_asked_with_a_warning(
    published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        cases = open_segmentation(published, published_split="keep")
    splits = {case.id: case.split for case in cases.cases}
    assert splits == dict.fromkeys(["n1", "n2", "n3", "n7"], "train") | dict.fromkeys(
        ["n5", "n6", "n4"], "test"
    )
    assert "2 of the 3 patients of 'test' are in 'train', too" in caplog.text
    assert "lists 1 nodules more than once" in caplog.text
    # The validation part is made of training patients, each as a whole.
    made = cases.with_splits(fractions=(0.5, 0.25, 0.25), seed=0)
    assert {case.id for case in made.cases if case.split == "test"} == {"n5", "n6", "n4"}
    by_id = {case.id: case for case in made.cases}
    assert by_id["n2"].split == by_id["n3"].split


def test_a_split_that_divides_patients_is_made_anew_by_patient(published: Path) -> None:
    cases = open_segmentation(published, published_split="ignore")
    assert len(cases) == 7
    made = cases.with_splits(fractions=(0.5, 0.25, 0.25), seed=0)
    split_of_patient = {(case.group, case.split) for case in made.cases}
    assert len(split_of_patient) == len({case.group for case in made.cases}) == 4


def test_a_split_that_divides_nobody_is_kept_by_default(folder: Path) -> None:
    assert {case.split for case in open_segmentation(folder).cases} == {"train", "test"}


def test_only_the_lidc_layout_has_a_published_split(folder: Path, tmp_path: Path) -> None:
    check_published_split(str(folder), "keep")
    check_published_split("other.csv", None)
    for data in ("other.csv", str(tmp_path / "nodule")):
        with pytest.raises(ConfigError, match="not a folder in the LIDC layout"):
            check_published_split(data, "ignore")


def test_masks_are_read_as_a_segmentation_layout(folder: Path) -> None:
    cases = open_segmentation(folder, class_names=("nodule",))
    assert [case.id for case in cases.cases] == ["n1", "n4", "n2", "n3", "n7", "n5", "n6"]
    assert cases.cases[0].group == "P1"
    assert (cases.labels.names, cases.labels.values) == (("background", "nodule"), (0, 1))
    with np.load(folder / "nodule" / "n4.npz") as stored:
        (image,) = cases.read_image(1)
        np.testing.assert_array_equal(image.array, stored["voxel"])
        assert image.spacing_mm == (1.0, 1.0, 1.0)
        np.testing.assert_array_equal(
            cases.read_label(1, like=image).array, stored["answer1"].astype(np.uint8)
        )


def test_masks_that_cannot_be_used_are_refused_or_skipped(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    voxel = np.zeros((6, 6, 6), np.uint8)
    np.savez(folder / "nodule" / "n2.npz", voxel=voxel)
    with pytest.raises(DataError, match=r"n2\.npz holds no array answer1; it has voxel"):
        open_segmentation(folder)
    np.savez(folder / "nodule" / "n2.npz", voxel=voxel, answer1=voxel + 3)
    with pytest.raises(DataError, match="case n2: the mask holds 3, which is no class"):
        open_segmentation(folder)
    np.savez(folder / "nodule" / "n2.npz", voxel=voxel, answer1=voxel[0])
    with pytest.raises(DataError, match=r"n2\.npz, array 'answer1': A volume has three dimensions"):
        open_segmentation(folder)
    np.savez(folder / "nodule" / "n2.npz", voxel=voxel + 0.0, answer1=np.full((6, 6, 6), np.nan))
    with caplog.at_level(logging.WARNING):
        assert len(open_segmentation(folder, skip_bad=True)) == 6
    assert "216 of 216 voxels are NaN" in caplog.text


def test_the_tables_are_read_as_they_were_published(folder: Path) -> None:
    (folder / "nodules.csv").unlink()
    (folder / "info").mkdir()
    columns = (
        "index,uid,scan,name,roi,volume,diameter_mm,coordZ,coordY,coordX,spacingZ,spacingY,"
        "spacingX,nodIDs1,nodIDs2,nodIDs3,nodIDs4,subtlety,internalStructure,calcification,"
        "sphericity,margin,lobulation,spiculation,texture,malignancy,malignancy_mode,subset,remark"
    )
    rows = [
        f"{name},LIDC-IDRI-{name[1:]},3,a,1,6.5,2.1,4,3,3,2.5,0.7,0.7,IL_1,Nodule 001,,,5x,1x,6x,"
        f"4x,5x,5x,5x,5x,{mode}x,{mode},subset2,"
        for name, mode in MALIGNANCY.items()
    ]
    nodules = folder / "info" / "lidc_nodule_info_new_with_subset.csv"
    nodules.write_text("\n".join([columns, *rows]))
    patients = folder / "info" / "lidc_patient_info_new_with_subset.csv"
    patients.write_text('uid,scan,nodNum,direction\nLIDC-IDRI-1,3,1,"1, 0, 0, 0, 1, 0"\n')
    assert [case.group for case in read_lidc(folder).cases][:2] == ["LIDC-IDRI-1", "LIDC-IDRI-4"]
    assert len(read_lidc_masks(folder).cases) == 7


def test_rows_and_files_without_their_partner_are_refused_or_skipped(folder: Path) -> None:
    (folder / "train_test_split.csv").unlink()
    (folder / "nodule" / "n4.npz").rename(folder / "nodule" / "other.npz")
    message = r"without a file \(\.npz\) \(1\): n4; .*without a row in the table \(1\): other"
    for read in (read_lidc, read_lidc_masks):
        with pytest.raises(DataError, match=message):
            read(folder)
    assert len(read_lidc_masks(folder, skip_bad=True).cases) == 6


def test_rows_outside_the_split_table_need_no_file(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (folder / "nodules.csv").open("a") as file:
        file.write("\nn8,2,P8")
    with caplog.at_level(logging.INFO):
        assert len(read_lidc_masks(folder).cases) == 7
    assert "1 nodules are not in train_test_split.csv" in caplog.text


def test_without_patients_there_is_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_table(folder, "texture", lambda name: "5")
    with caplog.at_level(logging.WARNING):
        cases = read_lidc(folder)
    assert len(set(cases.groups)) == 5
    assert "no column 'uid' or 'patient_id'" in caplog.text


def test_missing_file_is_an_error_or_skipped(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "nodule" / "n4.npz").rename(folder / "nodule" / "other.npz")
    with pytest.raises(DataError, match=r"without a file \(\.npz\) \(1\): n4.*--skip-bad"):
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
    with pytest.raises(DataError, match=r"n2\.npz holds no array voxel; it has image"):
        open_classification(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index,malignancy_mode\nn1,6\n", "row 2: malignancy_mode is '6'"),
        ("index,malignancy_mode\nn1,2.5\n", "row 2: malignancy_mode is '2.5'"),
        ("index,malignancy_mode\nn1,1\nn2,nan\n", "row 3: malignancy_mode is 'nan'"),
        ("index,malignancy_mode\nn1,\n", "malignancy_mode is ''"),
        ("index,malignancy_mode\nn1,1\nn1,1\n", "n1 is there already, in row 2"),
        ("index,malignancy_mode,patient_id\nn1,1,\n", "patient_id is empty"),
        ("index,malignancy_mode\nn1,1\n", r"without a row in the table \(6\): n4, n2"),
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
        (
            "train,test\nn1.npz,n5.npz\nn4.npz,n1.npz\n",
            "row 3: the nodule n1 of 'test' is in 'train', too",
        ),
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
