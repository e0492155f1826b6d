"""Scans and masks that cannot be used: one clear error, nothing is written over."""

import csv
import gzip
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from voxlift.data.volumes import Volume, read_volume, write_volume

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Snapshot = Callable[[Path], dict[str, bytes]]
Array = npt.NDArray[Any]

SPACING_MM = (2.0, 1.0, 1.0)


@pytest.fixture
def scans(scan_folder: Path, tmp_path: Path) -> Path:
    """A copy of the good scans, to be spoilt."""
    return Path(shutil.copytree(scan_folder, tmp_path / "scans"))


@pytest.fixture
def run_folder(segmenter: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be kept."""
    return Path(shutil.copytree(segmenter, tmp_path / "run"))


def change(kind: str, how: Callable[[Array], Array], **place: Any) -> Callable[[Path], None]:
    """Rewrite the image or the mask of the fourth scan."""

    def spoil(folder: Path) -> None:
        path = folder / kind / "scan-4.nii.gz"
        array = how(read_volume(path).array)
        path.unlink()
        write_volume(path, Volume(array, **{"spacing_mm": SPACING_MM, **place}))

    return spoil


def with_value(value: float, dtype: type[np.generic] = np.uint8) -> Callable[[Array], Array]:
    def poke(array: Array) -> Array:
        changed = array.astype(dtype)
        changed[4, 5, 5] = value
        return changed

    return poke


def patched(kind: str, start: int, data: bytes) -> Callable[[Path], None]:
    """Write into the header of a NIfTI file."""

    def spoil(folder: Path) -> None:
        path = folder / kind / "scan-4.nii.gz"
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[start : start + len(data)] = data
        path.write_bytes(gzip.compress(bytes(content)))

    return spoil


def cut(kind: str, end: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / kind / "scan-4.nii.gz"
        path.write_bytes(path.read_bytes()[:end])

    return spoil


def wrong_check_sum(folder: Path) -> None:
    path = folder / "images" / "scan-4.nii.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(bytes(content))


def four_dimensions(kind: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / kind / "scan-4.nii.gz"
        image = nibabel.load(path)
        array = np.stack([np.asanyarray(image.dataobj)] * 2, -1)
        nibabel.save(nibabel.Nifti1Image(array, image.affine), path)

    return spoil


def as_nrrd(change: Callable[[str], str]) -> Callable[[Path], None]:
    """Replace the image by a NRRD file with a changed header."""

    def spoil(folder: Path) -> None:
        path = folder / "images" / "scan-4.nii.gz"
        volume = read_volume(path)
        path.unlink()
        path = write_volume(path.with_name("scan-4.nrrd"), volume)
        header, end, data = path.read_bytes().partition(b"\n\n")
        path.write_bytes(change(header.decode()).encode() + end + data)

    return spoil


def as_huge_nifti2(folder: Path) -> None:
    path = folder / "images" / "scan-4.nii.gz"
    volume = nibabel.load(path)
    array = np.asanyarray(volume.dataobj)
    nibabel.save(nibabel.Nifti2Image(array, volume.affine), path)
    patched("images", 24, np.array([60_000] * 3, "<i8").tobytes())(folder)


PIXDIM = 80

SPOILT_IMAGES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "cut in the header": (cut("images", 40), ("damaged or cut off", "Copy it again")),
    "cut in the middle": (cut("images", 600), ("damaged or cut off", "Copy it again")),
    "cut by a byte": (cut("images", -1), ("damaged or cut off", "Copy it again")),
    "empty": (cut("images", 0), ("empty (0 bytes)", "Copy it again")),
    "wrong check sum": (wrong_check_sum, ("damaged or cut off", "Copy it again")),
    "two channels": (four_dimensions("images"), ("2 channel(s)", "one")),
    "huge NIfTI-2": (as_huge_nifti2, ("60000 x 60000 x 60000", "damaged")),
    "huge NRRD": (
        as_nrrd(lambda text: text.replace("sizes: 11 12 9", "sizes: 60000 60000 60000")),
        ("60000 x 60000 x 60000", "damaged"),
    ),
    "zero spacing": (
        patched("images", PIXDIM, np.array([1, 0, 2], "<f4").tobytes()),
        ("spacing [2.0, 0.0, 1.0]", "Set it right"),
    ),
    "negative spacing": (
        patched("images", PIXDIM, np.array([1, 1, -2], "<f4").tobytes()),
        ("spacing [-2.0, 1.0, 1.0]", "Set it right"),
    ),
    "NRRD of zero spacing": (
        as_nrrd(lambda text: text.replace("(0,0,2)", "(0,0,0)")),
        ("spac",),
    ),
    "NaN": (change("images", with_value(np.nan, np.float32)), ("NaN",)),
}
SPOILT_MASKS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "shifted": (
        change("labels", lambda mask: mask, origin_mm=(0.0, 0.0, 5.0)),
        ("not on the grid of its image", "its first voxel is at", "resample"),
    ),
    "of another spacing": (
        change("labels", lambda mask: mask, spacing_mm=(2.0, 1.0, 1.5)),
        ("not on the grid of its image", "its spacing is (2.0, 1.0, 1.5) mm", "resample"),
    ),
    "larger than its image": (
        change("labels", lambda mask: np.pad(mask, 3)),
        ("not on the grid of its image", "its size is (15, 18, 17) voxels, not (9, 12, 11)"),
    ),
    "turned": (
        change("labels", lambda mask: mask, direction=np.diag([1.0, -1.0, 1.0])),
        ("not on the grid of its image", "its direction is", "resample"),
    ),
    "of an unknown class": (change("labels", with_value(7)), ("7", "lesion")),
    "of broken numbers": (
        change("labels", with_value(0.5, np.float32)),
        ("no whole numbers, such as 0.5", "Round it"),
    ),
    "of two channels": (four_dimensions("labels"), ("four dimensions", "file of its own")),
    "cut": (cut("labels", -30), ("damaged or cut off", "Copy it again")),
}


def empty_mask(path: Path) -> None:
    mask = read_volume(path)
    write_volume(path, replace(mask, array=mask.array * 0), overwrite=True)


def assert_one_clear_error(capsys: Captured, *words: str) -> None:
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.count("error: ") == 1
    message = printed.err.partition("error: ")[2]
    for word in words:
        assert word in message
    assert "person" not in printed.err + printed.out


@pytest.mark.parametrize("case", [*SPOILT_IMAGES, *SPOILT_MASKS])
def test_bad_cases_are_one_clear_error(
    case: str,
    scans: Path,
    run_folder: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    spoil, words = {**SPOILT_IMAGES, **SPOILT_MASKS}[case]
    spoil(scans)
    new = tmp_path / "new"
    options = ("finetune", "--config", run_folder / "config.yaml", "--data", scans)
    began = time.monotonic()
    assert command(*options, "--out", new) == 1
    assert time.monotonic() - began < 20, "nothing is read for a size that no scan has"
    assert_one_clear_error(capsys, "scan-4", *words)
    # Not even with leave to replace an earlier run.
    before = snapshot(run_folder)
    assert command(*options, "--out", run_folder, "--overwrite") == 1
    assert_one_clear_error(capsys, "scan-4", *words)
    assert snapshot(run_folder) == before
    assert command("evaluate", run_folder, "--data", scans, "--out", new) == 1
    assert_one_clear_error(capsys, "scan-4", *words)
    assert not new.exists()


def test_values_of_no_class_are_named(
    scans: Path, segmenter: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    change("labels", with_value(7))(scans)
    options = ("finetune", "--config", segmenter / "config.yaml", "--data", scans)
    assert command(*options, "--out", tmp_path / "new") == 1
    assert_one_clear_error(capsys, "3 values besides the background (1, 2, 7)", "of scan-4 alone")
    description = {"labels": {"0": "background", "1": "liver", "2": "lesion"}}
    (scans / "dataset.json").write_text(json.dumps(description))
    assert command(*options, "--out", tmp_path / "new") == 1
    assert_one_clear_error(capsys, "scan-4", "holds 7", "1 liver, 2 lesion", "Correct the mask")


def test_unusable_cases_are_skipped_on_request_and_empty_masks_are_counted(
    scans: Path, segmenter: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    cut("images", 600)(scans)
    (scans / "labels" / "scan-5.nii.gz").unlink()
    empty_mask(scans / "labels" / "scan-3.nii.gz")
    out = tmp_path / "run"
    options = ("finetune", "--config", segmenter / "config.yaml", "--data", scans)
    assert command(*options, "--out", out) == 1
    assert_one_clear_error(capsys, "image without mask (1): scan-5", "--skip-bad")
    assert command(*options, "--out", out, "--skip-bad") == 0
    printed = capsys.readouterr().err.replace("\n", "")
    log = (out / "log.txt").read_text()
    for name in ("scan-4", "scan-5"):
        assert name in printed
        assert name in log
    assert "6 cases" in log
    assert "masks of 1 of 6 cases hold background only, such as that of scan-3" in log
    # Patients are named nowhere.
    for path in out.rglob("*"):
        if path.is_file() and path.suffix != ".ckpt":
            assert b"person" not in path.read_bytes(), path


def test_masks_of_background_only_are_one_clear_error(
    scans: Path, segmenter: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    for path in (scans / "labels").iterdir():
        empty_mask(path)
    options = ("finetune", "--config", segmenter / "config.yaml", "--data", scans)
    assert command(*options, "--out", tmp_path / "new") == 1
    assert_one_clear_error(capsys, str(scans), "No mask holds anything but background", "Check")
    assert not (tmp_path / "new").exists()


def test_prediction_goes_on_after_broken_scans_and_is_finished_later(
    scans: Path,
    scan_folder: Path,
    segmenter: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    inputs.mkdir()
    for number, (spoil, _) in enumerate(SPOILT_IMAGES.values()):
        shutil.rmtree(scans)
        shutil.copytree(scan_folder, scans)
        spoil(scans)
        (spoilt,) = (scans / "images").glob("scan-4.*")
        spoilt.rename(inputs / spoilt.name.replace("scan-4", f"broken-{number:02d}"))
    for name in ("a", "z"):
        shutil.copy(scan_folder / "images" / "scan-3.nii.gz", inputs / f"{name}.nii.gz")

    assert command("predict", segmenter, inputs, "--out", out) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    failures = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    assert len(failures) == len(SPOILT_IMAGES)
    for number, (line, (_, words)) in enumerate(zip(failures, SPOILT_IMAGES.values(), strict=True)):
        for word in (f"broken-{number:02d}", *words):
            assert word in line
    before = snapshot(out)
    assert sorted(before) == ["a.png", "a.seg.nii.gz", "volumes.csv", "z.png", "z.seg.nii.gz"]
    # Once they are whole, only they are left to do; what is there is not touched unasked.
    for path in inputs.glob("broken-*"):
        path.unlink()
    shutil.copy(scan_folder / "images" / "scan-4.nii.gz", inputs / "broken-00.nii.gz")
    assert command("predict", segmenter, inputs, "--out", out) == 1
    assert_one_clear_error(capsys, "a.seg.nii.gz", "there already", "--resume", "--overwrite")
    assert snapshot(out) == before
    assert command("predict", segmenter, inputs, "--out", out, "--resume") == 0
    after = snapshot(out)
    assert {*after} - {*before} == {"broken-00.png", "broken-00.seg.nii.gz"}
    assert all(after[name] == before[name] for name in before if name != "volumes.csv")
    with (out / "volumes.csv").open(newline="") as file:
        assert [row["mask"][0] for row in csv.DictReader(file)] == ["a", "z", "b"]
