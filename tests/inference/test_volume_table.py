from pathlib import Path

import pytest

from voxlift.core.errors import DataError
from voxlift.inference.volume_table import VolumeTable


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = VolumeTable(tmp_path / "out" / "volumes.csv", ("liver", "tumour, all"))
    volumes = {"liver": 1500.25, "tumour, all": 0.0125}
    table.add(tmp_path / "a.nii.gz", mask="a.seg.nii.gz", volumes_ml=volumes)
    table.add(tmp_path / "Müller.nii", mask="Müller.seg.nii.gz", volumes_ml=volumes)
    text = table.path.read_text(encoding="utf-8").splitlines()
    assert text[0] == 'input,mask,liver_ml,"tumour, all_ml"'
    assert text[1] == f"{tmp_path / 'a.nii.gz'},a.seg.nii.gz,1500.2500,0.0125"
    again = VolumeTable.read(table.path)
    assert again.structures == table.structures
    assert again.rows == table.rows
    row = again.row(tmp_path / "x" / ".." / "a.nii.gz")
    assert row is not None
    assert row.volumes_ml == volumes
    assert again.row(tmp_path / "b.nii.gz") is None


def test_a_row_is_replaced_in_its_place(tmp_path: Path) -> None:
    table = VolumeTable(tmp_path / "volumes.csv", ("liver",))
    for name, ml in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        table.add(tmp_path / name, mask=f"{name}.seg.nii.gz", volumes_ml={"liver": ml})
    rows = [line.split(",")[1:] for line in table.path.read_text().splitlines()[1:]]
    assert rows == [["a.seg.nii.gz", "3.0000"], ["b.seg.nii.gz", "2.0000"]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "case,label\na,1\n",
        "input,mask,liver_ml\na,a.seg.nii.gz\n",
        "input,mask,liver_ml\na,a.seg.nii.gz,much\n",
        'input,mask,liver_ml\n"a',
        "input,mask,liver_ml\na\n",
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "volumes.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"volumes\.csv is not a table of volumes.*--out"):
        VolumeTable.read(path)
