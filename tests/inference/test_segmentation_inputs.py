import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume
from voxlift.inference.segmentation_inputs import SegmentationInput, find_segmentation_inputs


def write(path: Path, *, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Path:
    return write_volume(path, Volume(np.zeros((2, 3, 4), np.float32), spacing_mm=spacing_mm))


def find(*inputs: Path, num_channels: int = 1, out: Path = Path("nowhere")) -> dict[str, list[str]]:
    cases = find_segmentation_inputs(inputs, num_channels=num_channels, out=out)
    return {case.name: [path.name for path in case.paths] for case in cases}


def test_cases_are_named_by_their_files(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.scan.nii", "c.nrrd", "d_0000.mha"):
        write(tmp_path / name)
    np.save(tmp_path / "e.npy", np.zeros((2, 3, 4)))
    assert find(tmp_path) == {
        "a.scan": ["a.scan.nii"],
        "b": ["b.nii.gz"],
        "c": ["c.nrrd"],
        "d_0000": ["d_0000.mha"],
        "e": ["e.npy"],
    }


def test_files_of_channels_are_one_case(tmp_path: Path) -> None:
    for name in ("b_0000", "b_0001", "a_0001", "a_0000", "four", "c_0007", "d_0000"):
        write(tmp_path / f"{name}.nii.gz")
    assert find(tmp_path, num_channels=2) == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
        "c_0007": ["c_0007.nii.gz"],
        "d_0000": ["d_0000.nii.gz"],
        "four": ["four.nii.gz"],
    }


def test_one_channel_more_or_less_is_told_when_it_is_read(tmp_path: Path) -> None:
    paths = tuple(write(tmp_path / f"a_000{number}.nii.gz") for number in (0, 2))
    case = SegmentationInput("a", paths)
    with pytest.raises(DataError, match=r"found 2 .*trained on 3 \(T1, T2, FLAIR\).*NAME_0001"):
        case.read(("T1", "T2", "FLAIR"))
    with pytest.raises(DataError, match=r"found 2 .*trained on 1 \(CT\). Give one channel"):
        case.read(("CT",))
    assert len(case.read(("T1", "T2"))) == 2


def test_channels_of_different_grids_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a_0000.nii.gz")
    second = write(tmp_path / "a_0001.nii.gz", spacing_mm=(1.0, 1.0, 2.0))
    with pytest.raises(DataError, match=r"'T2' is not on the grid of 'T1': its spacing"):
        SegmentationInput("a", (first, second)).read(("T1", "T2"))


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("p1/ct/scan", "p2/ct/scan", "p2/other", "p3/mr/SCAN"):
        write(tmp_path / f"{name}.nii.gz")
    assert list(find(tmp_path)) == ["p1_ct_scan", "p2_ct_scan", "other", "mr_SCAN"]


def test_a_file_given_twice_is_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert list(find(path, Path("a.nii.gz"), tmp_path)) == ["a"]


def test_equal_names_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.nrrd"):
        write(tmp_path / name)
    with pytest.raises(DataError, match=r"same name.*a\.nii\.gz, .*a\.nrrd.*Rename one"):
        find(tmp_path)


def test_outputs_of_an_earlier_run_are_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.nii.gz")
    mask = write(tmp_path / "a.seg.nii.gz")
    write(tmp_path / "a.liver.prob.nii.gz")
    write(tmp_path / "out" / "b.nii.gz")
    with caplog.at_level(logging.INFO):
        assert list(find(tmp_path, out=tmp_path / "out")) == ["a"]
    assert "3 outputs are passed over" in caplog.text
    # Outputs beside the inputs; and what is named is taken.
    (tmp_path / "out" / "b.nii.gz").unlink()
    assert list(find(tmp_path, out=tmp_path)) == ["a"]
    assert list(find(mask, out=tmp_path)) == ["a.seg"]
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(DataError, match=r"only masks .* no scan to predict on"):
        find(tmp_path)


def test_inputs_in_the_output_folder_are_segmented_if_they_are_given(tmp_path: Path) -> None:
    write(tmp_path / "out" / "deep" / "b.nii.gz")
    assert list(find(tmp_path / "out" / "deep", out=tmp_path / "out")) == ["b"]
    assert list(find(tmp_path / "out", out=tmp_path / "out")) == ["b"]


def test_nothing_and_missing_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to predict on"):
        find()
    with pytest.raises(DataError, match=r"no .*nowhere"):
        find(tmp_path / "nowhere.nii.gz")
