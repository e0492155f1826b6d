"""Searching into a folder that holds candidates already: replaced, resumed or refused."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume
from voxlift.inference.candidate_files import CandidateFile, ModelIdentity, read_candidates
from voxlift.inference.detection_files import CandidateOptions, DetectedFiles, detect_files
from voxlift.inference.saved_model import SavedModel

MODEL = ModelIdentity(name="model.safetensors", sha256="ab" * 32)

pytestmark = pytest.mark.usefixtures("_bright_lesions", "_quick_pictures")


@pytest.fixture
def model(lesion_detector: SavedModel) -> SavedModel:
    return lesion_detector


def scan(*, empty: bool = False) -> Volume:
    """A volume with two lesions."""
    array = np.full((9, 16, 14), -200, np.int16)
    if not empty:
        array[2:5, 3:7, 4:10] = 1000
        array[7:8, 12:15, 10:13] = 700
    return Volume(array, (2.5, 0.8, 0.8))


def search(model: SavedModel, inputs: Sequence[Path], out: Path, **more: Any) -> DetectedFiles:
    return detect_files(model, inputs, identity=MODEL, out=out, **more)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "candidates.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def candidates(out: Path, name: str) -> CandidateFile:
    return read_candidates(out / f"{name}.candidates.json")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    write_volume(folder / "a.nii.gz", scan())
    write_volume(folder / "b.nrrd", scan(empty=True))
    return folder


def test_what_is_there_is_kept_unless_asked(model: SavedModel, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    search(model, [scans / "a.nii.gz"], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match=r"are there already: .*candidates\.csv.*--resume"):
        search(model, [scans], out)
    with pytest.raises(ConfigError, match="exclude each other"):
        search(model, [scans], out, resume=True, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    higher = CandidateOptions(score_threshold=0.6)
    search(model, [scans / "a.nii.gz"], out, overwrite=True, options=higher)
    assert len(candidates(out, "a").candidates) == len(rows_of(out)) == 1


def test_an_unfinished_run_is_gone_on_with(model: SavedModel, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    search(model, [scans / "a.nii.gz"], out)
    rows = rows_of(out)
    # As if it had been stopped between the candidates and their rows.
    (out / "candidates.csv").unlink()
    slices: list[int] = []
    result = search(
        model, [scans], out, resume=True, on_slice=lambda number, _: slices.append(number)
    )
    # Those of the other scan.
    assert slices == list(range(1, 10))
    assert [file.resumed for file in result.files] == [True, False]
    assert len(result.files[0].content.candidates) == 2
    assert rows_of(out) == rows
    # What is not whole is done again.
    (out / "a.candidates.png").unlink()
    result = search(model, [scans], out, resume=True)
    assert [file.resumed for file in result.files] == [False, True]
    assert rows_of(out) == rows


def test_a_run_of_other_things_is_not_gone_on_with(
    model: SavedModel, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    search(model, [scans / "a.nii.gz"], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    elsewhere = tmp_path / "elsewhere" / "a.nii.gz"
    write_volume(elsewhere, scan(empty=True))
    with pytest.raises(DataError, match=rf"is of {scans / 'a.nii.gz'}, not of {elsewhere}"):
        search(model, [elsewhere], out, resume=True)
    with pytest.raises(DataError, match=r"another model: model\.safetensors .* instead of b\.saf"):
        detect_files(
            model,
            [scans / "a.nii.gz"],
            identity=ModelIdentity(name="b.safetensors"),
            out=out,
            resume=True,
        )
    options = CandidateOptions(score_threshold=0.5, min_slices=2)
    with pytest.raises(DataError, match=r"score 0\.05 instead of 0\.5, min_slices 1 instead of 2"):
        search(model, [scans / "a.nii.gz"], out, resume=True, options=options)
    options = CandidateOptions(fast_context=True, max_candidates=7)
    with pytest.raises(DataError, match=r"candidates 100 instead of 7, fast_context off instead"):
        search(model, [scans / "a.nii.gz"], out, resume=True, options=options)
    (out / "a.candidates.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="holds no candidates in the format"):
        search(model, [scans / "a.nii.gz"], out, resume=True)
    del before["a.candidates.json"]
    assert {name: (out / name).read_bytes() for name in before} == before


def test_nothing_old_stays_of_what_fails_now(
    model: SavedModel, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_volume(scans / "c.nii.gz", scan())
    search(model, [scans], out)
    kept = [row for row in rows_of(out) if row["input"] == str(scans / "c.nii.gz")]
    (out / "a.sr.dcm").write_bytes(b"a report")
    (scans / "a.nii.gz").write_bytes(b"no volume")
    result = search(model, [scans / "a.nii.gz", scans / "b.nrrd"], out, overwrite=True)
    assert set(result.failures) == {scans / "a.nii.gz"}
    assert not [name for name in names_in(out) if name.startswith("a.")]
    assert rows_of(out) == kept


def test_outputs_of_another_input_of_the_same_name_are_not_replaced(
    model: SavedModel, scans: Path, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere" / "a.nii.gz"
    search(model, [scans], out)
    write_volume(elsewhere, scan(empty=True))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match=rf"is of {scans / 'a.nii.gz'}, not of {elsewhere}.*--out"):
        search(model, [elsewhere], out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # What cannot be read is nobody's.
    (out / "a.candidates.json").write_text("{}", encoding="utf-8")
    assert len(search(model, [scans / "a.nii.gz"], out, overwrite=True).files) == 1


def test_a_table_is_of_one_model_and_of_one_way_to_search(
    model: SavedModel, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    search(model, [scans / "a.nii.gz"], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = ModelIdentity(name=MODEL.name, sha256="cd" * 32)
    for word in ("resume", "overwrite"):
        more: dict[str, Any] = {word: True}
        with pytest.raises(DataError, match=r"another model: .*abab.*cdcd.*would mix.*--out"):
            detect_files(model, [scans / "b.nrrd"], identity=other, out=out, **more)
        with pytest.raises(DataError, match=r"fast_context off instead of on, and candidates\.csv"):
            search(
                model,
                [scans / "b.nrrd"],
                out,
                options=CandidateOptions(fast_context=True),
                **more,
            )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # All is replaced: there is nothing to be mixed with.
    detect_files(model, [scans], identity=other, out=out, overwrite=True)
    assert candidates(out, "a").model == candidates(out, "b").model == other
