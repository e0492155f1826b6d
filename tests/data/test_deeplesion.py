"""DeepLesion's layout, whole and damaged."""

import csv
import json
import logging
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from voxlift.core.errors import DataError
from voxlift.data.deeplesion import is_deeplesion, read_deeplesion
from voxlift.data.deeplesion_phantoms import write_deeplesion_like
from voxlift.data.deeplesion_pixels import KeySlice, read_hounsfield
from voxlift.data.detection_cases import DetectionCase, DetectionCases
from voxlift.data.detection_source import open_detection


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "like"
    return write_deeplesion_like(folder, num_patients=4, seed=3, reach_mm=6.0, intervals_mm=(2.0,))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "like"))


def key_path(case: DetectionCase) -> Path:
    assert isinstance(case.source, KeySlice)
    return case.source.path


def change_table(folder: Path, row: int, **cells: str) -> None:
    path = folder / "DL_info.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[row] |= cells
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def change_json(folder: Path, split: str, change: Callable[[Any], None]) -> Path:
    path = folder / "annotations" / f"deeplesion_{split}.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_slice(path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(np.full(size, 32768, np.uint16)).save(path)


def claim_size(path: Path, size: tuple[int, int]) -> None:
    """Change the header of a PNG alone."""
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", size[1], size[0]) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def ids(cases: DetectionCases) -> set[str]:
    return {case.id for case in cases.cases}


def test_reads_splits_boxes_and_slices(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        cases = read_deeplesion(whole)
    assert is_deeplesion(whole)
    assert cases.class_names == ("lesion",)
    assert cases.unit == "HU"
    assert all(len(cases.indices(split)) for split in ("train", "val", "test"))
    assert "nothing amiss" in caplog.text or "noisy" in caplog.text
    for index, case in enumerate(cases.cases):
        assert case.size == (128, 128)
        slices = cases.read(index, num_slices=5, interval_mm=1.0)
        np.testing.assert_array_equal(slices.array[2], read_hounsfield(key_path(case)))
        assert slices.spacing_mm == case.facts["spacing_mm"]


def test_the_folder_of_images_may_be_named(folder: Path, tmp_path: Path) -> None:
    (folder / "Images_png").rename(tmp_path / "scans")
    with pytest.raises(DataError, match="found no Images_png with folders of scans"):
        read_deeplesion(folder)
    cases = read_deeplesion(folder / "DL_info.csv", images=tmp_path / "scans")
    assert ids(cases) == ids(read_deeplesion(folder, images=tmp_path / "scans"))


def test_one_annotation_file_has_the_split_in_its_name(whole: Path) -> None:
    cases = read_deeplesion(whole / "annotations" / "deeplesion_val.json")
    assert {case.split for case in cases.cases} == {"val"}


def test_missing_key_slices(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read_deeplesion(folder)
    gone = before.cases[0]
    key_path(gone).unlink()
    with pytest.raises(DataError, match=rf"key slice not in .* \(1\): {gone.id}.*--skip-bad"):
        read_deeplesion(folder)
    with caplog.at_level(logging.WARNING):
        rest = read_deeplesion(folder, skip_bad=True)
    assert ids(rest) == ids(before) - {gone.id}
    assert f"skipped: key slice not in {folder / 'Images_png'}: {gone.id}" in caplog.text


def test_missing_scans(folder: Path) -> None:
    before = read_deeplesion(folder)
    scan = before.cases[0].id.split("/")[0]
    shutil.rmtree(folder / "Images_png" / scan)
    with pytest.raises(DataError, match="key slice not in"):
        read_deeplesion(folder)
    left = {case.id for case in before.cases if not case.id.startswith(scan)}
    assert ids(read_deeplesion(folder, skip_bad=True)) == left


@pytest.mark.parametrize("form", ["DL_info.csv", "annotations"])
def test_missing_neighbours(folder: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        before = read_deeplesion(folder / form)
    assert "lack some of the slices" not in caplog.text or form == "annotations"
    # One with neighbours on both sides.
    index = next(
        n
        for n, case in enumerate(before.cases)
        if isinstance(case.source, KeySlice) and case.source.number - case.source.first >= 2
    )
    key = before.cases[index].source
    assert isinstance(key, KeySlice)
    (key.folder / f"{key.number - 1:03d}.png").unlink()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        cases = read_deeplesion(folder / form)
    assert "lack some of the slices" in caplog.text
    assert ids(cases) == ids(before)
    slices = cases.read(index, num_slices=5, interval_mm=2.0)
    # From foot to head: what lies above the key slice repeats it.
    for number in (2, 3, 4):
        np.testing.assert_array_equal(slices.array[number], read_hounsfield(key.path))
    assert not np.array_equal(slices.array[1], slices.array[2])


def test_8_bit_key_slices(folder: Path) -> None:
    case = read_deeplesion(folder).cases[0]
    Image.new("L", (128, 128)).save(key_path(case))
    with pytest.raises(DataError, match=r"key slice of 8 bits of grey where 16 bits .* \(1\): "):
        read_deeplesion(folder)
    assert case.id not in ids(read_deeplesion(folder, skip_bad=True))


@pytest.mark.parametrize("form", ["DL_info.csv", "annotations"])
@pytest.mark.parametrize("size", [(64, 64), (256, 256), (128, 96)])
def test_key_slices_of_another_size_than_their_boxes(
    folder: Path, form: str, size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    before = read_deeplesion(folder / form)
    case = before.cases[0]
    write_slice(key_path(case), size)
    said = rf"another size .* \(1\): {case.id} \({size[0]} x {size[1]} instead of 128 x 128\)"
    with pytest.raises(DataError, match=said):
        read_deeplesion(folder / form)
    with caplog.at_level(logging.WARNING):
        rest = read_deeplesion(folder / form, skip_bad=True)
    assert ids(rest) == ids(before) - {case.id}
    assert "skipped: key slice of another size" in caplog.text


def test_the_table_may_give_either_edge_first(folder: Path) -> None:
    before = read_deeplesion(folder, noisy="keep")
    write_slice(key_path(before.cases[0]), (128, 96))
    for size in ("96, 128", "128, 96"):
        for row in range(len(before.cases[0].truth)):
            change_table(folder, row, Image_size=size)
        assert read_deeplesion(folder, noisy="keep").cases[0].size == (128, 96)


@pytest.mark.parametrize("spoilt", ["8 bits", "size", "cut", "huge"])
def test_unusable_neighbours_are_taken_for_missing_on_request(
    folder: Path, spoilt: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_deeplesion(folder)
    index, key = next(
        (n, case.source)
        for n, case in enumerate(before.cases)
        if isinstance(case.source, KeySlice) and case.source.number - case.source.first >= 2
    )
    path = key.folder / f"{key.number - 1:03d}.png"
    if spoilt == "8 bits":
        Image.new("L", (128, 128)).save(path)
    elif spoilt == "size":
        write_slice(path, (64, 128))
    elif spoilt == "cut":
        path.write_bytes(path.read_bytes()[:20])
    else:
        claim_size(path, (60000, 60000))
    cases = read_deeplesion(folder)
    with pytest.raises(DataError, match="The context of"):
        cases.read(index, num_slices=5, interval_mm=2.0)
    with caplog.at_level(logging.WARNING):
        rest = read_deeplesion(folder, skip_bad=True)
    assert ids(rest) == ids(before)
    assert f"of its size: {key.folder.name}/{path.name}" in caplog.text
    assert "lack some of the slices" in caplog.text
    slices = rest.read(index, num_slices=5, interval_mm=2.0)
    np.testing.assert_array_equal(slices.array[4], read_hounsfield(key.path))


def test_key_slices_that_claim_to_be_huge(folder: Path) -> None:
    before = read_deeplesion(folder)
    claim_size(key_path(before.cases[0]), (60000, 50000))
    with pytest.raises(DataError, match=r"too large to decode safely \(1\): .*60000 x 50000"):
        read_deeplesion(folder)
    assert before.cases[0].id not in ids(read_deeplesion(folder, skip_bad=True))


def test_damaged_key_slices(folder: Path) -> None:
    case = read_deeplesion(folder).cases[0]
    path = key_path(case)
    path.write_bytes(path.read_bytes()[:500])
    cases = read_deeplesion(folder)
    with pytest.raises(DataError, match="is damaged"):
        cases.read(0, num_slices=3, interval_mm=2.5)
    assert case.id not in ids(read_deeplesion(folder, skip_bad=True))
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"key slice that is damaged \(1\)"):
        read_deeplesion(folder)


def test_boxes_beyond_the_image(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read_deeplesion(folder, noisy="keep")
    change_table(folder, 0, Bounding_boxes="-4, 5, 20, 30", Possibly_noisy="0")
    with caplog.at_level(logging.INFO):
        cases = read_deeplesion(folder, noisy="keep")
    assert "1 boxes clipped to their image" in caplog.text
    np.testing.assert_array_equal(cases.cases[0].truth.boxes[0], [0, 4, 19, 29])
    change_table(folder, 0, Bounding_boxes="300, 300, 320, 330")
    with caplog.at_level(logging.INFO):
        cases = read_deeplesion(folder, noisy="keep")
    assert "1 boxes dropped for lying outside their image" in caplog.text
    assert len(cases.cases[0].truth) == len(before.cases[0].truth) - 1
    assert len(cases.cases[0].facts["lesion_type"]) == len(cases.cases[0].truth)
    assert ids(cases) == ids(before)


def test_noisy_boxes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def mark(content: Any) -> None:
        for one in content["annotations"]:
            one["noisy"] = 0
        content["annotations"][0] |= {"noisy": 1, "image_id": content["images"][0]["id"]}
        content["annotations"][1] |= {"noisy": 0, "image_id": content["images"][0]["id"]}
        # The only one of its image.
        content["annotations"] = [
            one for one in content["annotations"] if one["image_id"] != content["images"][1]["id"]
        ]
        box = {"image_id": content["images"][1]["id"], "noisy": 1, "id": 999}
        content["annotations"].append(content["annotations"][0] | box)

    path = change_json(folder, "train", mark)
    kept = read_deeplesion(path, noisy="keep")
    with caplog.at_level(logging.INFO):
        dropped = read_deeplesion(path)
    assert "2 noisy boxes dropped" in caplog.text
    assert "1 slices left out, for all their boxes are noisy" in caplog.text
    first, second = (case.id for case in kept.cases[:2])
    assert ids(kept) - ids(dropped) == {second}
    counts = {case.id: len(case.truth) for case in kept.cases}
    assert len(dropped.cases[0].truth) == counts[first] - 1
    ignored = read_deeplesion(path, noisy="ignore")
    assert {case.id: len(case.truth) for case in ignored.cases} == counts
    assert [int(case.truth.crowd.sum()) for case in ignored.cases[:2]] == [1, 1]


def test_images_without_boxes_are_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def empty(content: Any) -> None:
        number = content["images"][0]["id"]
        content["annotations"] = [o for o in content["annotations"] if o["image_id"] != number]

    path = change_json(folder, "train", empty)
    with caplog.at_level(logging.INFO):
        cases = read_deeplesion(path, noisy="keep")
    assert len(cases.cases[0].truth) == 0
    assert "1 slices without boxes" in caplog.text


def test_categories_with_gaps(folder: Path) -> None:
    def regroup(content: Any) -> None:
        content["categories"] = [{"id": 40, "name": "cyst"}, {"id": 7, "name": "node"}]
        for number, one in enumerate(content["annotations"]):
            one["category_id"] = (7, 40)[number % 2]

    path = change_json(folder, "train", regroup)
    cases = read_deeplesion(path, noisy="keep")
    assert cases.class_names == ("node", "cyst")
    assert {int(c) for case in cases.cases for c in case.truth.labels} == {0, 1}
    one = read_deeplesion(path, noisy="keep", class_agnostic=True)
    assert one.class_names == ("lesion",)
    with pytest.raises(DataError, match="other categories than the files beside it"):
        read_deeplesion(folder / "annotations")


def test_intervals_of_zero(folder: Path) -> None:
    before = ids(read_deeplesion(folder / "annotations", noisy="keep"))

    def spoil(content: Any) -> None:
        content["images"][0]["slice_intv"] = 0.0
        del content["images"][1]["slice_intv"]

    change_json(folder, "train", spoil)
    with pytest.raises(DataError, match=r"slice_intv missing, zero or no number \(2\)"):
        read_deeplesion(folder / "annotations")
    left = ids(read_deeplesion(folder / "annotations", noisy="keep", skip_bad=True))
    assert len(before - left) == 2


def test_a_patient_in_two_splits_is_refused(folder: Path) -> None:
    with (folder / "DL_info.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    row = next(n for n, one in enumerate(rows) if one["Train_Val_Test"] == "3")
    for number, one in enumerate(rows):
        if one["File_name"] == rows[row]["File_name"]:
            change_table(folder, number, Train_Val_Test="1")
    with pytest.raises(DataError, match="A group is in two splits") as caught:
        read_deeplesion(folder, noisy="keep")
    assert rows[row]["File_name"].split("_")[0] not in str(caught.value)


def test_the_same_slice_in_two_files_is_refused(folder: Path) -> None:
    shutil.copy(
        folder / "annotations" / "deeplesion_train.json",
        folder / "annotations" / "deeplesion_val.json",
    )
    with pytest.raises(DataError, match="two splits"):
        read_deeplesion(folder / "annotations")


@pytest.mark.parametrize("annotations", ["annotation", "annotations"])
@pytest.mark.parametrize("part", [".", "annotations", "file"])
def test_images_one_folder_deeper_are_found(folder: Path, annotations: str, part: str) -> None:
    expected = ids(read_deeplesion(folder / "annotations"))
    (folder / "DL_info.csv").unlink()
    (folder / "Images_png").rename(folder / "scans")
    (folder / "Images_png").mkdir()
    (folder / "scans").rename(folder / "Images_png" / "Images_png")
    (folder / "annotations").rename(folder / annotations)
    parts = {".": folder, "annotations": folder / annotations}
    data = parts.get(part, folder / annotations / "deeplesion_train.json")
    found = open_detection(data)
    assert found.unit == "HU"
    if part == "file":
        assert set(ids(found)) < set(expected)
    else:
        assert ids(found) == expected
