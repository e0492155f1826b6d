"""Volumes and manifests that cannot be learnt from: one clear error, nothing is written over."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from voxlift.data.preprocess import PreprocessingWarning
from voxlift.data.volumes import Volume, write_volume
from voxlift.training.run import Run

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Snapshot = Callable[[Path], dict[str, bytes]]
Words = tuple[str, ...]
Row = dict[str, str]


@pytest.fixture
def nodules(nodule_folder: Path, tmp_path: Path) -> Path:
    """A copy of the good nodules, to be spoilt."""
    return Path(shutil.copytree(nodule_folder, tmp_path / "nodules"))


@pytest.fixture
def run_folder(finetuned: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, to be kept."""
    return Path(shutil.copytree(finetuned.folder, tmp_path / "run"))


def rewrite(folder: Path, change: Callable[[int, Row], Row]) -> None:
    """Change each row of the manifest."""
    path = folder / "nodules.csv"
    with path.open(newline="") as file:
        rows = [change(number, row) for number, row in enumerate(csv.DictReader(file))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def change_row(number: int, **cells: str) -> Callable[[int, Row], Row]:
    return lambda n, row: {**row, **cells} if n == number else row


def missing_column(folder: Path) -> None:
    rewrite(folder, lambda _, row: {"path": row["path"], "group": row["group"]})


def unknown_file(folder: Path) -> None:
    rewrite(folder, change_row(4, path="volumes/gone.nii.gz"))


def duplicate_path(folder: Path) -> None:
    rewrite(folder, change_row(4, path="volumes/../volumes/03.nii.gz"))


def nan_label(folder: Path) -> None:
    rewrite(folder, change_row(4, label="nan"))


def one_class_only(folder: Path) -> None:
    rewrite(folder, lambda _, row: {**row, "label": "smooth"})


def group_in_two_splits(folder: Path) -> None:
    # Rows 4 and 24 are of the same patient.
    rewrite(folder, lambda n, row: {**row, "split": ("train", "test")[n == 24]})


def unknown_split(folder: Path) -> None:
    rewrite(folder, lambda n, row: {**row, "split": ("train", "maybe")[n == 4]})


def empty_manifest(folder: Path) -> None:
    (folder / "nodules.csv").write_text("")


def no_csv(folder: Path) -> None:
    (folder / "nodules.csv").write_bytes(b"\xff\xfe\x00\x01")


MANIFESTS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "missing column": (missing_column, ("'label' is missing", "Expected a first line path,label")),
    "unknown file": (unknown_file, ("row 6", "gone.nii.gz", "--skip-bad")),
    "duplicate path": (duplicate_path, ("row 6", "same file as in row 5", "once")),
    "NaN label": (nan_label, ("row 6", "label is missing ('nan')", "leave the row out")),
    "one class only": (one_class_only, ("all 30 rows have the label 'smooth'", "two or more")),
    "group in two splits": (group_in_two_splits, ("row 26", "row 6", "one split")),
    "unknown split": (unknown_split, ("row 6", "'maybe'", "train, val, test")),
    "empty": (empty_manifest, ("is empty", "Expected a header")),
    "not text": (no_csv, ("could not be read as CSV", "UTF-8")),
}


def spoil(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change the voxels of one of the volumes."""

    def rewrite_volume(folder: Path) -> None:
        path = folder / "volumes" / "04.nii.gz"
        array = np.asanyarray(nibabel.load(path).dataobj)
        nibabel.save(nibabel.Nifti1Image(change(array), np.eye(4)), path)

    return rewrite_volume


def with_hole(value: float) -> Callable[[Any], Any]:
    def poke(array: Any) -> Any:
        changed = array.copy()
        changed[3, 4, 5] = value
        return changed

    return poke


def cut_off(folder: Path) -> None:
    path = folder / "volumes" / "04.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])


def zero_bytes(folder: Path) -> None:
    (folder / "volumes" / "04.nii.gz").write_bytes(b"")


def text(folder: Path) -> None:
    (folder / "volumes" / "04.nii.gz").write_text("no volume")


VOLUMES: dict[str, tuple[Callable[[Path], None], str]] = {
    "NaN": (spoil(with_hole(np.nan)), "NaN"),
    "Inf": (spoil(with_hole(np.inf)), "infinite"),
    "2 dimensions": (spoil(lambda array: array[:, :, 0]), "dimension"),
    "4 dimensions": (spoil(lambda array: np.stack([array] * 2, -1)), "dimension"),
    "5 dimensions": (spoil(lambda array: np.stack([array[..., None]] * 2, -1)), "dimension"),
    "cut off": (cut_off, "cut off"),
    "zero bytes": (zero_bytes, "empty (0 bytes)"),
    "text": (text, "04.nii.gz"),
}


def assert_one_clear_error(capsys: Captured, *words: str) -> None:
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.count("error: ") == 1
    message = printed.err.partition("error: ")[2]
    for word in words:
        assert word in message
    assert "person" not in printed.err + printed.out


@pytest.mark.parametrize("case", [*MANIFESTS, *VOLUMES])
def test_bad_data_are_one_clear_error(
    case: str,
    nodules: Path,
    run_folder: Path,
    finetuned: Run,
    finetune_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    if case in MANIFESTS:
        change, words = MANIFESTS[case]
        words = ("nodules.csv", *words)
    else:
        change, word = VOLUMES[case]
        words = ("04.nii.gz", word)
    change(nodules)
    data = nodules / "nodules.csv"
    options = ("--data", data, "--weights", run_folder / "model.safetensors", *finetune_words)
    assert command("finetune", *options, "--out", tmp_path / "new") == 1
    assert_one_clear_error(capsys, *words)
    assert not (tmp_path / "new").exists()
    # Not even with leave to replace an earlier run.
    before = snapshot(run_folder)
    assert command("finetune", *options, "--out", run_folder, "--overwrite") == 1
    assert_one_clear_error(capsys, *words)
    assert snapshot(run_folder) == before
    # The other commands that read such data say the same.
    assert command("evaluate", finetuned.folder, "--data", data, "--out", tmp_path / "new") == 1
    assert_one_clear_error(capsys, *words)
    assert command("quickstart", "--data", data, "--out", tmp_path / "new") == 1
    assert_one_clear_error(capsys, *words)
    assert not (tmp_path / "new").exists()


def test_unreadable_volumes_are_listed_and_skipped_on_request(
    nodules: Path,
    pretrained: Run,
    finetune_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    cut_off(nodules)
    (nodules / "volumes" / "05.nii.gz").unlink()
    data = ("--data", nodules / "nodules.csv")
    options = (*data, "--weights", pretrained.model_path, *finetune_words)
    assert command("finetune", *options, "--skip-bad", "--out", tmp_path / "run") == 0
    printed = capsys.readouterr().err.replace("\n", "")
    log = (tmp_path / "run" / "log.txt").read_text()
    for name in ("04.nii.gz", "05.nii.gz"):
        assert name in printed
        assert name in log
    assert "28 cases" in log
    assert command("evaluate", tmp_path / "run", *data, "--out", tmp_path / "again") == 1
    skipping = (*data, "--skip-bad", "--out", tmp_path / "again")
    assert command("evaluate", tmp_path / "run", *skipping) == 0
    first, again = (tmp_path / name / "metrics.json" for name in ("run", "again"))
    assert first.read_text() == again.read_text()


@pytest.mark.parametrize("case", VOLUMES)
def test_prediction_lists_bad_volumes_and_goes_on(
    case: str, nodules: Path, finetuned: Run, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    change, word = VOLUMES[case]
    change(nodules)
    scans = [nodules / "volumes" / f"{number:02d}.nii.gz" for number in (3, 4, 5)]
    assert command("predict", finetuned.folder, *scans, "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.count("failed: ") == 1
    failure = printed.err.partition("failed: ")[2]
    assert "04.nii.gz" in failure
    assert word in failure
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        assert [Path(row["case"]).name[:2] for row in csv.DictReader(file)] == ["03", "05"]


def test_prediction_is_not_written_over(
    nodule_folder: Path, finetuned: Run, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    (tmp_path / "predictions.csv").write_text("mine")
    words = (nodule_folder / "volumes" / "03.nii.gz", "--out", tmp_path)
    assert command("predict", finetuned.folder, *words) == 1
    assert_one_clear_error(capsys, "predictions.csv", "--out")
    assert (tmp_path / "predictions.csv").read_text() == "mine"


@pytest.mark.filterwarnings("default::voxlift.data.preprocess.PreprocessingWarning")
def test_eight_bit_volumes_for_a_model_of_ct_are_a_loud_warning(
    finetuned: Run, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (12, 12, 12)).astype(np.uint8)
    path = write_volume(tmp_path / "grey.nii.gz", Volume(grey, spacing_mm=(1.0, 1.0, 1.0)))
    assert issubclass(PreprocessingWarning, UserWarning)
    assert command("predict", finetuned.folder, path, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().err
    assert "warning: " in printed
    assert "grey.nii.gz" in printed
    assert "Hounsfield" in printed


def test_weights_that_cannot_be_trusted_are_one_clear_error(
    nodule_folder: Path,
    finetuned: Run,
    run_folder: Path,
    finetune_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((finetuned.folder / "model.safetensors").read_bytes()[:-1000])
    (tmp_path / "text.safetensors").write_text("no weights")
    before = snapshot(run_folder)
    for name in ("cut.safetensors", "text.safetensors", "missing.safetensors"):
        options = ("--data", nodule_folder / "nodules.csv", *finetune_words)
        words = (*options, "--weights", tmp_path / name, "--out", run_folder, "--overwrite")
        assert command("finetune", *words) == 1
        assert_one_clear_error(capsys, name)
        assert snapshot(run_folder) == before
        assert command("predict", tmp_path / name, nodule_folder, "--out", tmp_path / "out") == 1
        assert_one_clear_error(capsys, name)
        assert command("inspect", tmp_path / name) == 1
        assert_one_clear_error(capsys, name)
    assert not (tmp_path / "out").exists()
