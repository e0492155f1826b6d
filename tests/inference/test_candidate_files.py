import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.volume import Volume
from voxlift.inference.candidate_files import (
    COLUMNS,
    CandidateFile,
    CandidateTable,
    ModelIdentity,
    Thresholds,
    describe_candidates,
    read_candidates,
    write_candidates,
)
from voxlift.inference.candidate_places import PlacedCandidate, place_candidates
from voxlift.inference.candidates import Candidate, CandidateSlice

# From head to foot and from left to right, as the file stores it.
STORED = Volume(np.zeros((6, 20, 30)), (3.0, 0.5, 0.5), (40.0, 50.0, 60.0), np.diag([-1, 1, -1.0]))
NAMES = ("lung", "liver")
THRESHOLDS = Thresholds(
    score=0.05,
    nms_iou=0.5,
    max_boxes=100,
    merge_iou=0.3,
    max_gap_mm=5.0,
    min_slices=1,
    max_candidates=2,
    fast_context=True,
)


def placed() -> tuple[PlacedCandidate, ...]:
    parts = (
        CandidateSlice(1.0, (4.0, 5.0, 10.0, 15.0), 0.5),
        CandidateSlice(2.0, (4.0, 5.0, 10.0, 13.0), 0.75),
    )
    first = Candidate(0.75, 1, parts[1].box, 2.0, (1.0, 3.0), parts)
    second = Candidate(0.5, 0, parts[0].box, 1.0, (1.0, 2.0), parts[:1])
    return place_candidates([first, second], volume=STORED, class_names=NAMES)


def content(name: str = "a.nii.gz") -> CandidateFile:
    return describe_candidates(
        placed(),
        input_path=name,
        volume=STORED,
        model=ModelIdentity(name="model.safetensors", sha256="ab"),
        class_names=NAMES,
        thresholds=THRESHOLDS,
        num_found=5,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.candidates.json"
    write_candidates(path, content())
    assert read_candidates(path) == content()
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert raw["format"] == "voxlift candidates"
    assert raw["format_version"] == 1
    assert raw["input"] == "a.nii.gz"
    assert raw["model"] == {"name": "model.safetensors", "sha256": "ab"}
    assert raw["thresholds"]["max_gap_mm"] == 5
    assert raw["thresholds"]["max_candidates"] == 2
    assert raw["thresholds"]["fast_context"] is True
    assert (raw["num_found"], len(raw["candidates"])) == (5, 2)
    assert raw["index_order"] == ["slice", "row", "column"]
    assert raw["size_voxels"] == [6, 20, 30]
    best = raw["candidates"][0]
    assert best["class_name"] == "liver"
    # Canonical slices 1 and 2 of 6, from the other end; columns 4 to 10 of 30 likewise.
    assert (best["first_index"], best["last_index"], best["key_index"]) == (3, 4, 3)
    assert best["low_index"] == [2.5, 4.5, 19.5]
    assert best["high_index"] == [4.5, 12.5, 25.5]
    assert best["slices"][1] == {
        "score": 0.5,
        "low_index": [4, 4.5, 19.5],
        "high_index": [4, 14.5, 25.5],
    }
    # The geometry that is written leads from the indices to the millimetres.
    direction = np.array(raw["direction"])
    steps = np.array(best["centre_index"]) * raw["spacing_mm"]
    np.testing.assert_allclose(
        np.array(raw["origin_mm"]) + direction @ steps[::-1], best["centre_mm"]
    )


def test_what_is_no_such_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.candidates.json"
    with pytest.raises(DataError, match="could not be read"):
        read_candidates(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="holds no candidates in the format"):
        read_candidates(path)
    newer = json.loads(content().model_dump_json())
    newer["format_version"] = 2
    path.write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(DataError, match=r"version 1: format_version: .*Detect them again"):
        read_candidates(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="holds no candidates"):
        read_candidates(path)


def test_a_model_is_known_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    identity = ModelIdentity.of_file(path)
    assert identity.name == "model.safetensors"
    assert identity.sha256 == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(DataError, match=r"none\.safetensors could not be read"):
        ModelIdentity.of_file(tmp_path / "none.safetensors")


def test_the_table_has_a_row_a_candidate(tmp_path: Path) -> None:
    table = CandidateTable(tmp_path / "candidates.csv")
    table.add(Path("scans/a.nii.gz"), placed())
    table.add(Path("scans/none.nii.gz"), ())
    table.add(Path("b, \N{LATIN SMALL LETTER E WITH ACUTE}.nii.gz"), placed()[1:])
    with table.path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"], row["rank"]) for row in rows] == [
        ("scans/a.nii.gz", "1"),
        ("scans/a.nii.gz", "2"),
        ("b, \N{LATIN SMALL LETTER E WITH ACUTE}.nii.gz", "2"),
    ]
    row = rows[0]
    assert (row["class"], row["score"], row["num_slices"]) == ("liver", "0.750000", "2")
    assert (row["slice_axis"], row["key_slice_index"]) == ("slice", "3")
    assert (row["first_slice_index"], row["last_slice_index"]) == ("3", "4")
    assert [row[f"low_{axis}_index"] for axis in ("slice", "row", "column")] == [
        "2.5",
        "4.5",
        "19.5",
    ]
    assert [row[f"centre_{axis}_index"] for axis in ("slice", "row", "column")] == [
        "3.5",
        "8.5",
        "22.5",
    ]
    # Of x = 40 - 0.5 column, y = 50 + 0.5 row, z = 60 - 3 slice.
    assert [row[f"centre_{axis}_mm_lps"] for axis in "xyz"] == ["28.750", "54.250", "49.500"]
    assert [row[f"low_corner_{axis}_mm_lps"] for axis in "xyz"] == ["30.250", "52.250", "52.500"]
    assert [row[f"high_corner_{axis}_mm_lps"] for axis in "xyz"] == ["27.250", "56.250", "46.500"]
    assert [row[f"extent_along_{axis}_mm"] for axis in ("slices", "rows", "columns")] == [
        "6.000",
        "4.000",
        "3.000",
    ]


def test_a_table_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "candidates.csv"
    table = CandidateTable(path)
    table.add(Path("a.nii.gz"), placed())
    table.add(Path("b.nii.gz"), placed())
    again = CandidateTable.read(path)
    assert again.rows == table.rows
    again.add(Path("a.nii.gz"), placed()[:1])
    assert [len(rows) for rows in CandidateTable.read(path).rows.values()] == [1, 2]
    empty = CandidateTable(tmp_path / "empty.csv")
    empty.write()
    assert CandidateTable.read(empty.path).rows == {}


def test_another_table_is_told(tmp_path: Path) -> None:
    path = tmp_path / "candidates.csv"
    for text in ("", "input,mask\n", ",".join(COLUMNS) + "\na,b\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="is not a table of candidates"):
            CandidateTable.read(path)
    with pytest.raises(DataError, match="is not a table of candidates"):
        CandidateTable.read(tmp_path / "none.csv")
