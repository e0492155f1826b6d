"""Simulated scans in DeepLesion's layout."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.deeplesion import read_deeplesion
from voxlift.data.deeplesion_csv import COLUMNS
from voxlift.data.deeplesion_phantoms import write_deeplesion_like


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "like"
    return write_deeplesion_like(folder, num_patients=5, seed=0, reach_mm=5.0)


def test_both_forms_of_annotations_say_the_same(folder: Path) -> None:
    of_table = read_deeplesion(folder, noisy="keep")
    of_json = read_deeplesion(folder / "annotations", noisy="keep")
    assert {case.id for case in of_json.cases} == {case.id for case in of_table.cases}
    by_id = {case.id: case for case in of_json.cases}
    for case in of_table.cases:
        other = by_id[case.id]
        assert (case.split, case.group, case.size) == (other.split, other.group, other.size)
        assert case.facts["spacing_mm"] == pytest.approx(other.facts["spacing_mm"])
        assert case.source == other.source
        np.testing.assert_allclose(case.truth.boxes, other.truth.boxes, atol=1e-3)


def test_has_the_traits_of_the_published_set(folder: Path) -> None:
    with (folder / "DL_info.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    splits = {row["Patient_index"]: row["Train_Val_Test"] for row in rows}
    assert Counter(splits.values()) == {"1": 3, "2": 1, "3": 1}
    assert {row["Coarse_lesion_type"] for row in rows if row["Train_Val_Test"] == "1"} == {"-1"}
    assert "-1" not in {row["Coarse_lesion_type"] for row in rows if row["Train_Val_Test"] != "1"}
    assert len({row["Spacing_mm_px_"].split(", ")[2] for row in rows}) > 1
    for scan in (folder / "Images_png").iterdir():
        numbers = sorted(int(path.stem) for path in scan.iterdir())
        assert numbers != list(range(numbers[0], numbers[-1] + 1)), "no gap"
    content = json.loads((folder / "annotations" / "deeplesion_val.json").read_text("utf-8"))
    assert {"slice_no", "slice_intv", "spacing", "windows"} <= set(content["images"][0])
    assert "noisy" in content["annotations"][0]


def test_lesions_are_where_the_boxes_say(folder: Path) -> None:
    cases = read_deeplesion(folder)
    for index, case in enumerate(cases.cases):
        slices = cases.read(index, num_slices=3, interval_mm=None)
        assert slices.array[1].min() < -900
        for (x1, y1, x2, y2), kind, diameters in zip(
            case.truth.boxes, case.facts["lesion_type"], case.facts["diameters_mm"], strict=True
        ):
            assert kind in (None, "lung", "liver", "mediastinum")
            longest = max(x2 - x1, y2 - y1) * case.facts["spacing_mm"]
            assert 0.7 * longest < diameters[0] < 1.2 * longest
            assert 0 <= x1 < x2 <= 128
            assert 0 <= y1 < y2 <= 128


def test_the_seed_decides(folder: Path, tmp_path: Path) -> None:
    same = write_deeplesion_like(tmp_path / "same", num_patients=5, seed=0, reach_mm=5.0)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(same) for p in same.rglob("*") if p.is_file())
    for path in files:
        assert (folder / path).read_bytes() == (same / path).read_bytes()
    other = write_deeplesion_like(tmp_path / "other", num_patients=3, seed=1, reach_mm=5.0)
    assert (other / "DL_info.csv").read_bytes() != (folder / "DL_info.csv").read_bytes()


def test_refuses_what_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_patients is 2"):
        write_deeplesion_like(tmp_path, num_patients=2, seed=0)
    with pytest.raises(DataError, match="is not empty"):
        write_deeplesion_like(folder, num_patients=3, seed=0)
