"""Where segmentation reads and writes: odd folders and names, no right or no space to write."""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from voxlift.data.volumes import Volume, read_volume, write_volume

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Snapshot = Callable[[Path], dict[str, bytes]]


def assert_one_clear_error(capsys: Captured, *words: str) -> None:
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.count("error: ") == 1
    for word in words:
        assert word in printed.err.partition("error: ")[2]


@pytest.mark.parametrize("size", [(3, 4, 5), (1, 30, 9)])
def test_scans_smaller_than_the_window_are_segmented(
    size: tuple[int, int, int], segmenter: Path, tmp_path: Path, command: Command
) -> None:
    array = np.random.default_rng(0).integers(-1000, 300, size).astype(np.int16)
    small = Volume(array, spacing_mm=(2.0, 1.0, 1.0), origin_mm=(1.0, 2.0, 3.0))
    path = write_volume(tmp_path / "small.nii.gz", small)
    assert command("predict", segmenter, path, "--out", tmp_path / "out") == 0
    mask = read_volume(tmp_path / "out" / "small.seg.nii.gz")
    assert mask.size_voxels == size
    assert mask.origin_mm == pytest.approx(small.origin_mm)


def test_series_of_two_patients_and_foreign_files_among_slices(
    dicom_classes: Path, segmenter: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    first, second = sorted((dicom_classes / "a").iterdir())[:2]
    shutil.copytree(first, tmp_path / "in" / "with-notes")
    (tmp_path / "in" / "with-notes" / "notes.txt").write_text("no slice")
    (tmp_path / "in" / "with-notes" / "README").write_bytes(b"")
    mixed = Path(shutil.copytree(first, tmp_path / "in" / "two-patients"))
    uid = pydicom.dcmread(mixed / "0.dcm").SeriesInstanceUID
    for path in second.iterdir():
        slice_of_another = pydicom.dcmread(path)
        slice_of_another.PatientID, slice_of_another.SeriesInstanceUID = "Roe-18", uid
        slice_of_another.save_as(mixed / f"other-{path.name}")
    out = tmp_path / "out"
    assert command("predict", segmenter, tmp_path / "in", "--out", out) == 1
    printed = capsys.readouterr()
    failure = printed.err.partition("failed: ")[2]
    assert "two-patients: its files belong to different patients. Give each a folder" in failure
    assert read_volume(out / "with-notes.seg.nii.gz").size_voxels == (9, 8, 8)
    assert not (out / "two-patients.seg.nii.gz").exists()
    for secret in ("Doe", "Roe", "19700101"):
        assert secret not in printed.err + printed.out
        assert not [p for p in out.iterdir() if secret.encode() in p.read_bytes()]


def test_long_paths_of_any_script(
    scan_folder: Path, segmenter: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    data = tmp_path / ("лёгкое" * 12) / ("肝臓" * 20) / ("ä" * 100) / "Müller [2] & 'x'"
    shutil.copytree(scan_folder, data)
    (data / "cases.csv").unlink()
    for kind in ("images", "labels"):
        (data / kind / "scan-4.nii.gz").rename(data / kind / "скан №4.nii.gz")
    run, out = tmp_path / ("ø" * 90), tmp_path / "out" / ("ß" * 90)
    options = ("finetune", "--config", segmenter / "config.yaml", "--data", data)
    assert command(*options, "--out", run) == 0
    assert command("predict", run, data / "images" / "скан №4.nii.gz", "--out", out) == 0
    assert read_volume(out / "скан №4.seg.nii.gz").size_voxels == (9, 12, 11)
    too_long = tmp_path / f"{'a' * 248}.nii.gz"
    shutil.copy(scan_folder / "images" / "scan-3.nii.gz", too_long)
    capsys.readouterr()
    assert command("predict", segmenter, too_long, "--out", out) == 1
    assert_one_clear_error(capsys, str(too_long), "too long for a file system", "shorter name")


def test_folders_that_cannot_be_written_to(
    scan_folder: Path,
    segmenter: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write_to(out: Path) -> Iterator[int]:
        data = ("--data", scan_folder, "--out", out)
        yield command("finetune", "--config", segmenter / "config.yaml", *data)
        yield command("evaluate", segmenter, *data)
        scan = scan_folder / "images" / "scan-0.nii.gz"
        yield command("predict", segmenter, scan, "--out", out)

    (tmp_path / "file").write_text("mine")
    for code in write_to(tmp_path / "file" / "out"):
        assert code == 1
        assert_one_clear_error(capsys, str(tmp_path / "file"), "--out")
    assert (tmp_path / "file").read_text() == "mine"
    # Simulated: the rights of a folder mean nothing to an administrator.
    locked, mkdir = tmp_path / "locked", Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if locked in (path, *path.parents):
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    for code in write_to(locked):
        assert code == 1
        assert_one_clear_error(capsys, str(locked), "Permission denied", "--out")


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more than so much, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("num_bytes", "name"), [(60, "scan-0.seg.nii.gz"), (3000, "scan-0.png")])
def test_no_space_for_predictions(
    num_bytes: int,
    name: str,
    scan_folder: Path,
    segmenter: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    out = tmp_path / "out"
    words = ("predict", segmenter, scan_folder / "images" / "scan-0.nii.gz", "--out", out)
    with file_size_limit(num_bytes):
        assert command(*words) == 1
    assert_one_clear_error(capsys, name, "could not be written", "space", "--out")
    # Nothing half-written under a final name, nor under another.
    left = snapshot(out)
    assert name not in left
    assert not [each for each in left if each.startswith(".")]
    assert command(*words, "--resume") == 0
    assert sorted(snapshot(out)) == ["scan-0.png", "scan-0.seg.nii.gz", "volumes.csv"]


def test_no_space_for_temporary_files(
    scan_folder: Path, segmenter: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    scan, out = scan_folder / "images" / "scan-0.nii.gz", tmp_path / "out"
    words = ("predict", segmenter, scan, "--probabilities", "--out", out)
    assert command(*words, "--scratch", tmp_path / "missing") == 1
    assert f"There is no folder {tmp_path / 'missing'}" in capsys.readouterr().err
    assert not out.exists()
    with file_size_limit(5000):
        assert command(*words, "--scratch", tmp_path) == 1
    failure = capsys.readouterr().err.partition("failed: ")[2]
    assert f"{scan}: Temporary files need" in failure
    assert "--scratch" in failure
    assert [path.name for path in out.iterdir()] == ["volumes.csv"]


@pytest.mark.parametrize(("num_bytes", "file"), [(100, "config.yaml"), (50_000, "last.ckpt")])
def test_no_space_for_a_run(
    num_bytes: int,
    file: str,
    scan_folder: Path,
    segmenter: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    config, out = segmenter / "config.yaml", tmp_path / "run"
    with file_size_limit(num_bytes):
        assert command("finetune", "--config", config, "--data", scan_folder, "--out", out) == 1
    assert_one_clear_error(capsys, file, "could not be written", "Free some space", "--out")
    left = {Path(name).name for name in snapshot(out)}
    assert not {file, "model.safetensors"} & left
    assert not [name for name in left if name.startswith(".")]
