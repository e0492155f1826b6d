import json
from pathlib import Path

import numpy as np
import pytest

from voxlift.config import VolumeConfig
from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.data.preprocess import preprocess
from voxlift.data.volumes import Volume, read_volume, write_volume
from voxlift.embedding import FeatureOptions, embed
from voxlift.training.run import Run
from voxlift.weights.file import read_header

CPU = FeatureOptions(device="cpu", batch_size=8)


def changed(**options: object) -> FeatureOptions:
    return FeatureOptions.model_validate({**CPU.model_dump(), **options})


def test_labelled_volumes(pretrained: Run, nodule_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npz"
    done: list[tuple[int, int]] = []
    found = embed(
        str(pretrained.model_path),
        data=str(nodule_folder / "nodules.csv"),
        out=out,
        options=CPU,
        on_volume=lambda *step: done.append(step),
    )
    assert found.features.shape == (30, 32)
    assert done[-1] == (30, 30)
    assert found.class_names == ("smooth", "spiculated")
    with np.load(out) as file:
        np.testing.assert_array_equal(file["features"], found.features)
        assert file["ids"].tolist() == list(found.ids)
        np.testing.assert_array_equal(file["labels"], found.labels)
        description = json.loads(str(file["description"]))
    assert description["batch_norms_with_statistics_of_the_data"] > 0
    assert description["preprocessing"]["size_voxels"] == [12, 12, 12]
    assert description["geometry"]["stage_strides"][-1] != [1, 2, 2]
    assert b"person" not in out.read_bytes()
    assert "person" not in json.dumps(description)
    again = embed(
        str(pretrained.model_path), data=str(nodule_folder / "nodules.csv"), out=None, options=CPU
    )
    np.testing.assert_array_equal(again.features, found.features)
    assert again.path is None


def test_options_change_the_features(pretrained: Run, nodule_folder: Path) -> None:
    data, model = str(nodule_folder / "nodules.csv"), str(pretrained.model_path)
    default = embed(model, data=data, out=None, options=CPU).features
    of_file = embed(model, data=data, out=None, options=changed(statistics="file"))
    assert of_file.description["batch_norms_with_statistics_of_the_data"] == 0
    assert not np.allclose(of_file.features, default)
    every = embed(model, data=data, out=None, options=changed(pool="all-maps")).features
    assert every.shape == (30, 4 + 4 + 8 + 16 + 32)
    np.testing.assert_allclose(every[:, -32:], default, rtol=1e-4, atol=1e-5)
    cropped = embed(model, data=data, out=None, options=changed(volume={"size_voxels": (8, 8, 8)}))
    assert cropped.description["preprocessing"]["size_voxels"] == [8, 8, 8]  # type: ignore[index, call-overload]
    assert not np.allclose(cropped.features, default)


def test_a_model_of_volumes_sees_them_as_in_training(finetuned: Run, nodule_folder: Path) -> None:
    files = sorted((nodule_folder / "volumes").glob("*.nii.gz"))[:3]
    found = embed(str(finetuned.folder), inputs=files, out=None, options=CPU)
    assert finetuned.model_path is not None
    header = read_header(finetuned.model_path)
    assert header.preprocessing is not None
    assert found.ids == tuple(str(file) for file in files)
    assert found.labels is None
    assert found.description["reasons"] == ["as the model was trained"]
    assert found.description["geometry"] == header.geometry.model_dump(mode="json")
    assert found.description["batch_norms_with_statistics_of_the_data"] == 0
    # A size of one's own is asked for: then it is as with any other start.
    own = VolumeConfig(size_voxels=(12, 12, 12))
    proposed = embed(str(finetuned.folder), inputs=files, out=None, options=changed(volume=own))
    assert proposed.description["preprocessing"] != header.preprocessing.model_dump(mode="json")
    assert preprocess(read_volume(files[0]), header.preprocessing).shape == (1, 12, 12, 12)


def test_few_volumes_keep_the_statistics_of_the_file(
    pretrained: Run, nodule_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = sorted((nodule_folder / "volumes").glob("*.nii.gz"))[:7]
    with caplog.at_level("INFO", logger="voxlift"):
        few = embed(str(pretrained.model_path), inputs=files, out=None, options=CPU)
    assert few.description["batch_norms_with_statistics_of_the_data"] == 0
    assert "7 volumes are too few" in caplog.text
    forced = embed(
        str(pretrained.model_path), inputs=files, out=None, options=changed(statistics="data")
    )
    assert not np.allclose(few.features, forced.features)


def test_bad_volumes_are_refused_or_listed(nodule_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    good = read_volume(nodule_folder / "volumes" / "00.nii.gz")
    write_volume(folder / "good.nii.gz", good)
    (folder / "cut.nii.gz").write_bytes((folder / "good.nii.gz").read_bytes()[:-40])
    holes = np.array(good.array, np.float32)
    holes[0, 0, 0] = np.nan
    np.save(folder / "holes.npy", holes)
    np.save(folder / "film.npy", np.stack([good.array, good.array]))
    out = tmp_path / "a.npz"
    with pytest.raises(DataError, match=r"cut\.nii\.gz"):
        embed("tiny", inputs=[folder], out=out, options=CPU)
    assert not out.exists()
    found = embed("tiny", inputs=[folder], out=out, options=changed(skip_bad=True))
    assert found.ids == (str(folder / "good.nii.gz"),)
    assert {Path(name).name for name in found.failures} == {"cut.nii.gz", "holes.npy", "film.npy"}
    (folder / "good.nii.gz").unlink()
    with pytest.raises(DataError, match="None of the 3 volumes"):
        embed("tiny", inputs=[folder], options=changed(skip_bad=True), out=None)


def test_scratch_has_random_features_that_follow_from_the_seed(nodule_folder: Path) -> None:
    files = sorted((nodule_folder / "volumes").glob("*.nii.gz"))[:2]

    def features(seed: int) -> object:
        options = changed(seed=seed, geometry="small")
        return embed("scratch", inputs=files, out=None, options=options).features.tolist()

    assert features(0) == features(0)
    assert features(0) != features(1)


def test_what_cannot_work(nodule_folder: Path, tmp_path: Path) -> None:
    data = str(nodule_folder / "nodules.csv")
    with pytest.raises(ConfigError, match="either labelled volumes"):
        embed("tiny", out=None)
    with pytest.raises(ConfigError, match="either labelled volumes"):
        embed("tiny", data=data, inputs=[nodule_folder], out=None)
    (tmp_path / "a.npz").touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        embed("tiny", data=data, out=tmp_path / "a.npz")
    with pytest.raises(WeightsError, match="nosuch"):
        embed("nosuch", data=data, out=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no volume"):
        embed("tiny", inputs=[tmp_path / "empty"], out=None)
    flat = write_volume(tmp_path / "flat.nii.gz", Volume(np.zeros((1, 1, 1), np.float32)))
    with pytest.raises(DataError, match="too small for this geometry"):
        embed("tiny", inputs=[flat], out=None, options=changed(geometry="volume"))
