"""Candidates of volumes on disk: their files, their places, and inputs that cannot be searched."""

import csv
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.files import write_text
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume, write_volume
from voxlift.inference import detection_outputs
from voxlift.inference.candidate_files import CandidateFile, ModelIdentity, read_candidates
from voxlift.inference.detection import the_detector
from voxlift.inference.detection_files import CandidateOptions, DetectedFiles, detect_files
from voxlift.inference.saved_model import SavedModel

WriteSeries = Callable[..., npt.NDArray[np.int16]]
MODEL = ModelIdentity(name="model.safetensors", sha256="ab" * 32)
pytestmark = pytest.mark.usefixtures("_bright_lesions")

# First and last voxel of the lesion, (depth, height, width) in canonical order, and of another.
LESION = ((2, 3, 4), (4, 6, 9))
OTHER = ((7, 12, 10), (7, 14, 12))
SPACING_MM, ORIGIN_MM = (2.5, 0.8, 0.8), (-30.0, -12.0, 40.0)


@pytest.fixture
def model(lesion_detector: SavedModel) -> SavedModel:
    return lesion_detector


def scan(*, empty: bool = False) -> Volume:
    """A volume with two lesions, in canonical order."""
    array = np.full((9, 16, 14), -200, np.int16)
    for (first, last), value in ((LESION, 1000), (OTHER, 700)) if not empty else ():
        array[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))] = value
    return Volume(array, SPACING_MM, ORIGIN_MM)


def turned(volume: Volume, *, axes: Sequence[int], flips: Sequence[int]) -> Volume:
    """The same in space, with its axes exchanged and then some of them reversed."""
    array = np.flip(volume.array.transpose(axes), tuple(flips))
    # Directions are of x, y, z, which is the order of axes from the last to the first.
    columns = volume.direction[:, ::-1] * np.array(volume.spacing_mm)
    steps = columns[:, list(axes)]
    origin = np.array(volume.origin_mm)
    for axis in flips:
        origin = origin + steps[:, axis] * (array.shape[axis] - 1)
        steps[:, axis] *= -1
    spacing = np.linalg.norm(steps, axis=0)
    direction = (steps / spacing)[:, ::-1]
    return Volume(np.ascontiguousarray(array), tuple(spacing), tuple(origin), direction)


def search(model: SavedModel, inputs: Sequence[Path], out: Path, **more: Any) -> DetectedFiles:
    return detect_files(model, inputs, identity=MODEL, out=out, **more)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "candidates.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def candidates(out: Path, name: str) -> CandidateFile:
    return read_candidates(out / f"{name}.candidates.json")


ORIENTATIONS = {
    "canonical": ((0, 1, 2), ()),
    "from the head": ((0, 1, 2), (0,)),
    "seen from behind": ((0, 1, 2), (0, 2)),
    "coronal": ((1, 0, 2), (1,)),
    "sagittal": ((2, 0, 1), (1,)),
    "all turned": ((1, 2, 0), (0, 1, 2)),
}


@pytest.mark.usefixtures("_quick_pictures")
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_places_are_told_on_the_grid_of_the_file_and_in_the_patient(
    name: str, model: SavedModel, tmp_path: Path
) -> None:
    axes, flips = ORIENTATIONS[name]
    path = tmp_path / "a.nii.gz"
    write_volume(path, turned(scan(), axes=axes, flips=flips))
    search(model, [path], tmp_path / "out")
    stored = read_volume(path)
    found = candidates(tmp_path / "out", "a").candidates
    for each, value, (first, last), row in zip(
        found, (1000, 700), (LESION, OTHER), rows_of(tmp_path / "out"), strict=True
    ):
        voxels = np.argwhere(stored.array == value)
        np.testing.assert_allclose(each.low_index, voxels.min(axis=0) - 0.5)
        np.testing.assert_allclose(each.high_index, voxels.max(axis=0) + 0.5)
        np.testing.assert_allclose(each.centre_index, voxels.mean(axis=0))
        assert each.axis == list(axes).index(0)
        # In mm the same for all orientations: x of the columns, y of the rows, z of the slices.
        centre = (np.array(first) + last)[::-1] / 2
        expected = np.array(ORIGIN_MM) + centre * SPACING_MM[::-1]
        np.testing.assert_allclose(each.centre_mm, expected, atol=1e-3)
        written = [float(row[f"centre_{axis}_mm_lps"]) for axis in "xyz"]
        np.testing.assert_allclose(written, expected, atol=2e-3)
        for stored_axis, index in zip(("slice", "row", "column"), each.low_index, strict=True):
            assert float(row[f"low_{stored_axis}_index"]) == pytest.approx(index)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    write_volume(folder / "a.nii.gz", scan())
    write_volume(folder / "b.nrrd", scan(empty=True))
    return folder


def test_each_input_gets_its_files(model: SavedModel, scans: Path, tmp_path: Path) -> None:
    done: list[tuple[str, int, int]] = []
    slices: list[tuple[int, int]] = []
    out = tmp_path / "out"
    result = search(
        model,
        [scans],
        out,
        on_case=lambda path, *counts: done.append((path.name, *counts)),
        on_slice=lambda *counts: slices.append(counts),
    )
    assert names_in(out) == [
        "a.candidates.json",
        "a.candidates.png",
        "b.candidates.json",
        "b.candidates.png",
        "candidates.csv",
    ]
    assert done == [("a.nii.gz", 1, 2), ("b.nrrd", 2, 2)]
    assert slices[-1] == (9, 9)
    assert result.failures == {}
    assert [len(file.content.candidates) for file in result.files] == [2, 0]
    assert result.files[0].content == candidates(out, "a")
    # One without candidates has files, but no row.
    assert [row["input"] for row in rows_of(out)] == [str(scans / "a.nii.gz")] * 2
    for name in ("a", "b"):
        with Image.open(out / f"{name}.candidates.png") as image:
            assert image.width > 100


@pytest.mark.usefixtures("_quick_pictures")
def test_options_decide_on_candidates(model: SavedModel, scans: Path, tmp_path: Path) -> None:
    def count(**options: Any) -> int:
        out = tmp_path / f"{options}"
        made = CandidateOptions.model_validate(options)
        (file,) = search(model, [scans / "a.nii.gz"], out, options=made).files
        return len(file.content.candidates)

    assert count() == 2
    assert count(score_threshold=0.6) == 1
    # The model keeps its own threshold.
    assert the_detector(model).score_threshold == 0.05
    assert count(min_slices=2) == 1


def test_candidates_that_are_left_out_are_counted(
    model: SavedModel,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    drawn: list[tuple[int, object]] = []

    def draw(path: Path, shown: Sequence[object], *_: object, **more: object) -> None:
        drawn.append((len(shown), more["num_found"]))
        write_text(path, "a picture")

    monkeypatch.setattr(detection_outputs, "write_candidate_overview", draw)
    out = tmp_path / "out"
    search(model, [scans / "a.nii.gz"], out, options=CandidateOptions(max_candidates=1))
    found = candidates(out, "a")
    assert (found.num_found, len(found.candidates)) == (2, 1)
    assert drawn == [(1, 2)]
    assert f"{scans / 'a.nii.gz'}: the surest 1 of 2 candidates are kept" in caplog.text


@pytest.mark.usefixtures("_quick_pictures")
def test_a_broken_input_is_listed_and_does_not_stop_the_others(
    model: SavedModel, scans: Path, tmp_path: Path
) -> None:
    (scans / "aa.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:-40])
    (scans / "empty.mha").touch()
    holes = scan().array.astype(np.float32)
    holes[0, 0, 0] = np.nan
    np.save(scans / "holes.npy", holes)
    done: list[int] = []
    result = search(
        model, [scans], tmp_path / "out", on_case=lambda _, number, __: done.append(number)
    )
    assert [file.path.name for file in result.files] == ["a.nii.gz", "b.nrrd"]
    said = {"aa.nii.gz": "cut off", "empty.mha": "empty", "holes.npy": "NaN"}
    assert {path.name for path in result.failures} == set(said)
    for path, reason in result.failures.items():
        assert said[path.name] in reason
        assert str(path) in reason
    assert done == [1, 2, 3, 4, 5]
    assert not list((tmp_path / "out").glob("empty*"))


@pytest.mark.usefixtures("_quick_pictures")
def test_equal_names_are_told_apart(model: SavedModel, tmp_path: Path) -> None:
    paths = [tmp_path / place / "scan.nii.gz" for place in ("one", "two")]
    for path in paths:
        write_volume(path, scan())
    search(model, paths, tmp_path / "out")
    assert [name for name in names_in(tmp_path / "out") if name.endswith(".json")] == [
        "one_scan.candidates.json",
        "two_scan.candidates.json",
    ]
    assert {row["input"] for row in rows_of(tmp_path / "out")} == set(map(str, paths))


@pytest.mark.usefixtures("_quick_pictures")
def test_an_output_folder_that_cannot_be_written_is_told_beforehand(
    model: SavedModel, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    slices: list[int] = []
    with pytest.raises(DataError, match=r"file.*cannot be written.*--out"):
        search(
            model,
            [scans],
            tmp_path / "file" / "out",
            on_slice=lambda number, _: slices.append(number),
        )
    path = write_volume(tmp_path / "long" / f"{'ä' * 118}.nii", scan())
    with pytest.raises(DataError, match=r"bytes too long.*shorter name"):
        search(model, [path], tmp_path / "out", on_slice=lambda number, _: slices.append(number))
    assert slices == []
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_search_scans_are_refused(
    model: SavedModel,
    make_model: Callable[..., SavedModel],
    scans: Path,
    tmp_path: Path,
) -> None:
    settings = model.head.settings | {"num_slices": 3, "slice_interval_mm": None}
    photographs = dataclasses.replace(
        model, head=model.head.model_copy(update={"settings": settings})
    )
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"boxes in photographs.*voxlift finetune --task detect"):
        search(photographs, [scans], out)
    with pytest.raises(ConfigError, match="trained to classify and finds no boxes"):
        search(make_model(), [scans], out)
    with pytest.raises(ConfigError, match="2 detectors"):
        search(dataclasses.replace(model, networks=model.networks * 2), [scans], out)
    with pytest.raises(ConfigError, match=r"no input is one.*--dicom-sr"):
        search(model, [scans], out, dicom_sr=True)
    assert not out.exists()


def test_files_do_not_say_whose_scan_it_is(
    model: SavedModel, write_dicom_series: WriteSeries, tmp_path: Path
) -> None:
    values = np.full((6, 12, 14), -200, np.int16)
    values[2:4, 3:7, 4:9] = 1000
    write_dicom_series(
        tmp_path / "ct",
        values=values,
        PatientBirthDate="19700102",
        StudyDate="20200304",
        AccessionNumber="acc-99",
    )
    (tmp_path / "broken").mkdir()
    write_dicom_series(tmp_path / "broken", values=values)
    next((tmp_path / "broken").glob("*3.dcm")).unlink()
    result = search(model, [tmp_path / "ct", tmp_path / "broken"], tmp_path / "out")
    (file,) = result.files
    assert len(file.content.candidates) == 1
    with Image.open(tmp_path / "out" / "ct.candidates.png") as image:
        told = repr(image.info)
    told += repr(result.failures)
    for path in (tmp_path / "out").iterdir():
        told += path.read_bytes().decode("latin-1")
    assert "ct" in told
    for secret in ("Doe", "Jane", "secret-7", "19700102", "20200304", "acc-99"):
        assert secret not in told
