"""A detector to candidates in scans: by commands alone."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from voxlift.data.volumes import Volume, write_volume
from voxlift.inference.candidate_files import CandidateFile, read_candidates
from voxlift.training.run import Run

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Snapshot = Callable[[Path], dict[str, bytes]]
Words = tuple[object, ...]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan of six slices in HU, in a folder of its own."""
    array = np.random.default_rng(0).normal(0, 150, (6, 32, 40)).astype(np.int16)
    volume = Volume(array, spacing_mm=(2.5, 1.5, 1.5), origin_mm=(-20.0, 5.0, 60.0))
    return write_volume(tmp_path / "scans" / "scan.nii.gz", volume)


@pytest.fixture
def _few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time of so small a run."""
    for name in ("plot_froc", "plot_detections"):
        monkeypatch.setattr(f"voxlift.inference.detection_report.{name}", lambda *_, **__: None)
    monkeypatch.setattr("voxlift.experiment.draw_learning_curves", lambda *_, **__: None)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def found_in(folder: Path, name: str) -> CandidateFile:
    return read_candidates(folder / f"{name}.candidates.json")


def test_candidates_in_scans(
    detected: Run,
    scan: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    (scan.parent / "broken.nii.gz").write_bytes(b"no volume")
    out = tmp_path / "out"
    words = ("--out", out, "--score-threshold", 0, "--max-candidates", 3)
    assert command("predict", detected.folder, scan.parent, *words) == 1
    printed = capsys.readouterr()
    (failure,) = (line for line in printed.err.splitlines() if line.startswith("failed: "))
    assert "broken.nii.gz" in failure
    assert "scan.nii.gz" in printed.out.replace("\n", "")
    assert sorted(snapshot(out)) == [
        "candidates.csv",
        "scan.candidates.json",
        "scan.candidates.png",
    ]
    found = found_in(out, "scan")
    assert found.class_names == ("lesion",)
    assert found.size_voxels == (6, 32, 40)
    assert found.thresholds.score == 0
    assert found.model.name == "model.safetensors"
    rows = rows_of(out / "candidates.csv")
    assert len(rows) == len(found.candidates) == 3
    for row, each in zip(rows, found.candidates, strict=True):
        centre = [float(row[f"centre_{axis}_mm_lps"]) for axis in "xyz"]
        np.testing.assert_allclose(centre, each.centre_mm, atol=1e-3)
        # Axes as in the file: slices along z, rows along y, columns along x.
        index = [float(row[f"centre_{axis}_index"]) for axis in ("column", "row", "slice")]
        place = np.array([-20.0, 5.0, 60.0]) + np.array(index) * [1.5, 1.5, 2.5]
        np.testing.assert_allclose(centre, place, atol=1e-3)
    # Once it is whole, only the broken one is left to do.
    whole = Volume(np.full((3, 32, 40), -500, np.int16), (2.5, 1.5, 1.5))
    write_volume(scan.parent / "broken.nii.gz", whole, overwrite=True)
    before = snapshot(out)
    assert command("predict", detected.folder, scan.parent, *words) == 1
    assert "--resume" in capsys.readouterr().err
    assert snapshot(out) == before
    assert command("predict", detected.folder, scan.parent, *words, "--resume") == 0
    after = snapshot(out)
    assert {*after} - {*before} == {"broken.candidates.json", "broken.candidates.png"}
    assert all(after[name] == before[name] for name in before if name != "candidates.csv")
    assert [row for row in rows_of(out / "candidates.csv") if row["input"] == str(scan)] == rows


def test_fast_context_is_an_option_of_prediction(
    detected: Run, scan: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    words = ("--score-threshold", 0, "--max-candidates", 1, "--fast-context", "--out", out)
    assert command("predict", detected.folder, scan, *words) == 0
    assert len(found_in(out, "scan").candidates) == 1


def test_candidates_in_a_dicom_series(
    detected: Run, dicom_classes: Path, tmp_path: Path, command: Command
) -> None:
    pytest.importorskip("highdicom")
    series = tmp_path / "ct-1"
    series.mkdir()
    for path in (dicom_classes / "a" / "series-0").iterdir():
        image = pydicom.dcmread(path)
        image.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.5"
        image.save_as(series / path.name)
    out = tmp_path / "out"
    words = ("--score-threshold", 0, "--max-candidates", 2, "--dicom-sr", "--out", out)
    assert command("predict", detected.folder, series, *words) == 0
    found = found_in(out, "ct-1")
    assert found.size_voxels == (9, 8, 8)
    report = pydicom.dcmread(out / "ct-1.sr.dcm")
    assert report.Modality == "SR"
    # It belongs to the patient; the other files do not say whose they are.
    assert report.PatientID == "Doe-17"
    for name in ("ct-1.candidates.json", "ct-1.candidates.png", "candidates.csv"):
        content = (out / name).read_bytes()
        for secret in (b"Doe", b"19700101", b"Jane"):
            assert secret not in content


@pytest.mark.usefixtures("_few_figures")
@pytest.mark.parametrize("head", ["fcos", "retinanet"])
def test_heads_of_one_stage(
    head: str, detected: Run, scan: Path, tmp_path: Path, command: Command
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    words: Words = ("--head", head, "--steps", 2, "--val-steps", 2, "--out", run)
    assert command("finetune", "--config", detected.folder / "config.yaml", *words) == 0
    words = ("--score-threshold", 0, "--max-candidates", 1, "--out", out)
    assert command("predict", run, scan, *words) == 0
    assert len(found_in(out, "scan").candidates) == 1
