import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from voxlift.core.errors import DataError
from voxlift.data.preprocess import PreprocessingWarning, preprocess
from voxlift.data.volumes import Volume, write_volume
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.volumes import find_volumes, predict_volumes

MakeModel = Callable[..., SavedModel]


def ct(seed: int = 0) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return generator.uniform(-1000, 500, (9, 8, 7)).astype(np.float32)


def write(path: Path, array: npt.NDArray[np.float32]) -> Path:
    return write_volume(path, Volume(array, spacing_mm=(1.0, 1.0, 1.0)))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    write(folder / "b.nii.gz", ct(1))
    write(folder / "a.nrrd", ct(2))
    write(folder / "deeper" / "c.mha", ct(3))
    np.save(folder / "deeper" / "d.npy", ct(4))
    (folder / "notes.txt").write_text("not a volume")
    return folder


def test_folders_stand_for_the_volumes_in_them(scans: Path) -> None:
    names = ["a.nrrd", "b.nii.gz", "c.mha", "d.npy"]
    assert [path.name for path in find_volumes([scans])] == names
    assert [path.name for path in find_volumes([scans / "deeper"])] == ["c.mha", "d.npy"]


def test_inputs_keep_their_order_and_count_once(scans: Path) -> None:
    given: list[str | Path] = [scans / "b.nii.gz", str(scans), scans / "a.nrrd"]
    names = [path.name for path in find_volumes(given)]
    assert names == ["b.nii.gz", "a.nrrd", "c.mha", "d.npy"]


def test_a_file_of_any_kind_is_taken_at_its_word(scans: Path) -> None:
    # It fails when it is read, and then does not stop the others.
    assert find_volumes([scans / "notes.txt"]) == [scans / "notes.txt"]


def test_inputs_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nosuch\.nii\.gz"):
        find_volumes([tmp_path / "nosuch.nii.gz"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no volume.*DICOM"):
        find_volumes([tmp_path / "empty"])


def test_predictions_follow_the_contract_of_the_model(
    scans: Path, tmp_path: Path, make_model: MakeModel
) -> None:
    model = make_model(threshold=0.45)
    done: list[Path] = []
    result = predict_volumes(
        model,
        [scans / "b.nii.gz"],
        out=tmp_path / "out",
        on_case=lambda path, *_: done.append(path),
    )
    (answer,) = result.predictions
    volume = torch.from_numpy(preprocess(Volume(ct(1)), model.preprocessing))[None]
    expected = model.networks[0](volume).softmax(1)[0].tolist()
    assert answer.probabilities == pytest.approx(expected, rel=1e-4)
    assert answer.class_name == ("malignant" if expected[1] >= 0.45 else "benign")
    assert answer.probability == answer.probabilities[model.class_names.index(answer.class_name)]
    assert done == [answer.path]
    assert result.failures == {}
    with result.table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == str(scans / "b.nii.gz")
    assert row["prediction"] == answer.class_name
    assert float(row["p_malignant"]) == pytest.approx(expected[1], abs=1e-5)


def broken(folder: Path) -> dict[str, str]:
    """Write volumes that break the contract; return what is said about each."""
    np.save(folder / "flat.npy", ct()[0])
    np.save(folder / "film.npy", np.stack([ct(), ct()]))
    holes = ct()
    holes[0, 0, 0] = np.nan
    np.save(folder / "holes.npy", holes)
    (folder / "cut.nii.gz").write_bytes((folder / "whole.nii.gz").read_bytes()[:-40])
    (folder / "empty.mha").touch()
    return {
        "flat.npy": "dimension",
        "film.npy": "dimension",
        "holes.npy": "NaN",
        "cut.nii.gz": "cut off",
        "empty.mha": "empty",
    }


def test_broken_volumes_are_listed_and_do_not_stop_the_others(
    tmp_path: Path, make_model: MakeModel
) -> None:
    folder = tmp_path / "scans"
    write(folder / "whole.nii.gz", ct())
    expected = broken(folder)
    done: list[Path] = []
    result = predict_volumes(
        make_model(), [folder], out=tmp_path / "out", on_case=lambda path, *_: done.append(path)
    )
    assert [answer.path.name for answer in result.predictions] == ["whole.nii.gz"]
    assert {path.name for path in result.failures} == set(expected)
    for path, reason in result.failures.items():
        assert expected[path.name] in reason
        assert str(path) in reason
    assert len(done) == 6
    assert len(result.table.read_text().splitlines()) == 2


def test_a_table_of_failures_alone_is_empty(tmp_path: Path, make_model: MakeModel) -> None:
    (tmp_path / "empty.mha").touch()
    result = predict_volumes(make_model(), [tmp_path / "empty.mha"], out=tmp_path / "out")
    assert result.predictions == ()
    assert result.table.read_text() == "case,prediction,p_benign,p_malignant\n"


def test_eight_bit_values_for_a_network_of_hounsfield_units_are_warned_about(
    tmp_path: Path, make_model: MakeModel
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (8, 8, 8)).astype(np.float32)
    path = write(tmp_path / "grey.nii.gz", grey)
    with pytest.warns(PreprocessingWarning, match=r"grey\.nii\.gz.*Hounsfield"):
        predict_volumes(make_model(), [path], out=tmp_path / "out")


def test_a_table_is_never_written_over(scans: Path, tmp_path: Path, make_model: MakeModel) -> None:
    out = tmp_path / "out"
    predict_volumes(make_model(seed=1), [scans], out=out)
    before = (out / "predictions.csv").read_bytes()
    with pytest.raises(DataError, match=r"predictions\.csv exists already.*--out"):
        predict_volumes(make_model(seed=2), [scans], out=out)
    assert (out / "predictions.csv").read_bytes() == before
