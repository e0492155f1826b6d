import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.prepared_volumes import PreparedVolumes
from voxlift.inference.embedding import (
    Start,
    compute_features,
    gather_on,
    make_start,
    pool_maps,
    read_start,
    scratch_architecture,
)
from voxlift.inference.embedding_file import Embeddings, check_embedding_path, write_embeddings
from voxlift.nets.factory import create_backbone
from voxlift.weights.layouts import write_layout
from voxlift.weights.save import save_weights

SMALL = named_geometry("small")
NARROW = Architecture(name="resnet10", width=4, stem_kernel=3)


def volumes(count: int = 5, *, size: int = 9) -> PreparedVolumes:
    arrays = np.random.default_rng(0).normal(size=(count, size, size, size)).astype(np.float32)
    cases = ClassificationCases.from_arrays(arrays, np.arange(count) % 2)
    return PreparedVolumes(cases, np.arange(count), preprocessing=Preprocessing())


def scratch(**options: Any) -> Start:
    return make_start(
        "scratch", None, geometry=SMALL, **{"architecture": NARROW, "seed": 1, **options}
    )


def test_maps_are_pooled_by_their_means_or_largest_values() -> None:
    maps = [torch.randn(2, 3, 4, 5, 6), torch.randn(2, 7, 2, 2, 3)]
    first, last = (each.numpy().reshape(2, each.shape[1], -1) for each in maps)
    np.testing.assert_allclose(pool_maps(maps, "mean"), last.mean(2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pool_maps(maps, "max"), last.max(2))
    every = np.concatenate([first.mean(2), last.mean(2)], axis=1)
    np.testing.assert_allclose(pool_maps(maps, "all-maps"), every, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="known are mean, max, all-maps"):
        pool_maps(maps, "median")  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["batch", "batch_always"])
def test_features_do_not_depend_on_the_batches(norm: str) -> None:
    start = scratch(architecture=NARROW.model_copy(update={"norm": norm}))
    prepared = volumes(size=17)
    done: list[tuple[int, int]] = []
    found = compute_features(
        start, prepared, batch_size=2, on_volume=lambda *step: done.append(step)
    )
    assert found.dtype == np.float32
    assert found.shape == (5, 32)
    assert done[-1] == (5, 5)
    for row, volume in zip(found, prepared.batches(1), strict=True):
        with torch.no_grad():
            expected = start.backbone(volume)[-1].mean((2, 3, 4))[0]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)


def test_random_weights_follow_from_the_seed_and_disturb_no_others() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, third = scratch(), scratch(), scratch(seed=2)
    assert torch.equal(torch.rand(1), expected)
    weights = [start.backbone.get_submodule("conv1").weight for start in (first, second, third)]
    assert torch.equal(weights[0], weights[1])  # type: ignore[arg-type]
    assert not torch.equal(weights[0], weights[2])  # type: ignore[arg-type]
    assert first.sha256 is None
    assert "resnet10, width 4, geometry small" in first.describe()


def test_statistics_of_the_data_change_the_features() -> None:
    prepared = volumes(size=17)
    start = scratch()
    before = compute_features(start, prepared)
    assert gather_on(start, prepared, batch_size=3) > 0
    after = compute_features(start, prepared)
    assert not np.allclose(before, after)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        gather_on(start, prepared, batch_size=0)


def test_starts_are_read_by_any_name(tmp_path: Path) -> None:
    assert read_start("scratch") is None
    backbone = create_backbone("resnet10", width=4, stem=3)
    run = tmp_path / "run"
    save_weights(backbone, run / "model.safetensors")
    file = read_start(str(run))
    assert file is not None
    assert read_start(file) is file
    start = make_start("mine", file, geometry=SMALL)
    assert start.sha256 == file.sha256
    assert start.backbone.geometry == SMALL
    assert not start.backbone.training
    kept = make_start("mine", file, geometry=None)
    assert kept.backbone.geometry == file.header.geometry
    for name in ("nosuch", str(tmp_path / "no.safetensors")):
        with pytest.raises(WeightsError, match="There are no weights"):
            read_start(name)
    for fold in (0, 1):
        save_weights(backbone, tmp_path / "folds" / f"fold-{fold}" / "model.safetensors")
    with pytest.raises(WeightsError, match="2 folds, which are as many starts"):
        read_start(str(tmp_path / "folds"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["gvsl", "medicalnet"])
def test_a_start_that_brings_its_geometry_keeps_it_unless_another_is_asked_for(
    tmp_path: Path, name: str
) -> None:
    if name == "gvsl":
        path = save_weights(create_backbone("gvsl", width=8), tmp_path / "a.safetensors")
        source = str(path)
    else:
        backbone = create_backbone("resnet10", width=4, geometry="medicalnet")
        path = tmp_path / "resnet_10.pth"
        write_layout(backbone, path, layout="medicalnet")
        source = f"medicalnet:{path}"
    file = read_start(source)
    assert file is not None
    start = make_start("mine", file, geometry=SMALL, proposed=True)
    assert start.backbone.geometry == file.header.geometry != SMALL
    (note,) = start.notes
    assert "geometry is that of" in note


def test_a_geometry_that_was_asked_for_and_cannot_be_is_refused(tmp_path: Path) -> None:
    save_weights(create_backbone("resnet10", width=4, stem=3), tmp_path / "a.safetensors")
    file = read_start(str(tmp_path / "a.safetensors"))
    two_stages = Geometry(stage_strides=((1, 1, 1), (2, 2, 2)))
    with pytest.raises(ConfigError, match="resnet10 has 4 stages"):
        make_start("mine", file, geometry=two_stages)


def test_scratch_is_a_network_like_the_others() -> None:
    assert scratch_architecture(None).name == "resnet18"
    assert scratch_architecture(NARROW) == NARROW
    assert scratch_architecture(NARROW, width=8, stem=5) == NARROW.model_copy(
        update={"width": 8, "stem_kernel": 5}
    )
    grouped = NARROW.model_copy(update={"norm": "group"})
    assert scratch_architecture(grouped, backbone="resnet50") == Architecture(
        name="resnet50", width=4, stem_kernel=3
    )
    with pytest.raises(ConfigError, match="Unknown backbone 'vgg'"):
        scratch_architecture(None, backbone="vgg")


def test_features_that_are_not_finite_are_refused() -> None:
    start = scratch()
    start.backbone.get_submodule("norm1").weight.data.fill_(torch.inf)  # type: ignore[operator]
    with pytest.raises(DataError, match=r"scratch: the features of 5 of 5 volumes are NaN"):
        compute_features(start, volumes())


def embeddings(*, labelled: bool = True) -> Embeddings:
    return Embeddings(
        features=np.arange(6, dtype=np.float32).reshape(3, 2),
        ids=("a", "b", "ü"),
        labels=np.array([0, 1, 1]) if labelled else None,
        class_names=("no", "yes") if labelled else (),
        description={"pool": "mean", "sha256": "abc"},
        failures={"c": "cut off"},
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_npz_files_are_read_without_pickles(labelled: bool, tmp_path: Path) -> None:
    path = write_embeddings(tmp_path / "out" / "a.npz", embeddings(labelled=labelled))
    with np.load(path, allow_pickle=False) as found:
        np.testing.assert_array_equal(found["features"], embeddings().features)
        assert found["features"].dtype == np.float32
        assert found["ids"].tolist() == ["a", "b", "ü"]
        description = json.loads(str(found["description"]))
        assert ("labels" in found) == labelled
        if labelled:
            assert found["labels"].tolist() == [0, 1, 1]
            assert found["class_names"].tolist() == ["no", "yes"]
    assert description == {"pool": "mean", "sha256": "abc", "failures": {"c": "cut off"}}
    again = write_embeddings(tmp_path / "b.npz", embeddings(labelled=labelled))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("labelled", [True, False])
def test_parquet_files_have_a_column_a_feature(labelled: bool, tmp_path: Path) -> None:
    path = write_embeddings(tmp_path / "a.parquet", embeddings(labelled=labelled))
    table = import_module("pyarrow.parquet").read_table(path)
    found = table.to_pydict()
    assert found["id"] == ["a", "b", "ü"]
    assert found["f0"] == [0, 2, 4]
    assert found["f1"] == [1, 3, 5]
    assert list(found) == ["id", *(["label", "class"] if labelled else []), "f0", "f1"]
    if labelled:
        assert found["class"] == ["no", "yes", "yes"]
    assert json.loads(table.schema.metadata[b"voxlift"])["sha256"] == "abc"


def test_files_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"written to \.npz or \.parquet"):
        write_embeddings(tmp_path / "a.csv", embeddings())
    (tmp_path / "a.npz").touch()
    with pytest.raises(ConfigError, match="exists already"):
        check_embedding_path(tmp_path / "a.npz", overwrite=False)
    check_embedding_path(tmp_path / "a.npz", overwrite=True)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"voxlift\[parquet\].*\.npz file"):
        write_embeddings(tmp_path / "a.parquet", embeddings())
    assert [each.name for each in tmp_path.iterdir()] == ["a.npz"]
