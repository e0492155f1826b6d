import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from voxlift.config import SegmentConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import named_geometry
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.data.volume import Volume
from voxlift.inference.saved_model import load_model
from voxlift.training.networks import build_segmenter
from voxlift.training.run_folder import RunFolder
from voxlift.training.segmentation import (
    SegmentationData,
    describe_segmenter,
    judge_segmentation,
    open_segmentation_data,
    segmentation_loaders,
)
from voxlift.weights.file import read_header
from voxlift.weights.save import save_model

SIZE = (10, 11, 12)


def make_cases(
    *,
    count: int = 12,
    names: tuple[str, ...] = ("ball", "bead"),
    num_channels: int = 1,
    splits: tuple[str | None, ...] = (),
) -> SegmentationCases:
    """Noise in HU with two boxes; two cases of each patient."""
    generator = np.random.default_rng(0)
    cases = []
    for number in range(count):
        mask = np.zeros(SIZE, np.uint8)
        mask[2:5, 2:6, 2:6], mask[6:9, 5:9, 5:9] = 1, 2
        channels = tuple(
            Volume(generator.normal(-500 + 200.0 * mask, 50).astype(np.float32), (2.0, 1.0, 1.0))
            for _ in range(num_channels)
        )
        label = replace(channels[0], array=mask)
        split = splits[number] if splits else None
        cases.append(
            SegmentationCase(f"case-{number}", channels, label, f"person-{number // 2}", split)
        )
    return SegmentationCases(
        tuple(cases),
        LabelScheme(names=("background", *names), values=(0, 1, 2)),
        channel_names=tuple(f"channel {i}" for i in range(num_channels)),
        origin="the set",
    )


def make_config(out: Path = Path("unused"), **changes: Any) -> SegmentConfig:
    return SegmentConfig.model_validate(
        {
            "data": "memory",
            "out": out,
            "seed": 2,
            "fractions": (0.5, 0.25, 0.25),
            "network": {"backbone": "resnet10", "width": 4, "stem": 3, "geometry": "small"},
            "scan": {"patch_voxels": (8, 8, 8)},
            "machine": {"device": "cpu", "precision": "fp32"},
            **changes,
        }
    )


def open_data(cases: SegmentationCases | None = None, **changes: Any) -> SegmentationData:
    return open_segmentation_data(make_config(**changes), cases or make_cases())


def save(
    model: nn.Module,
    data: SegmentationData,
    config: SegmentConfig,
    metrics: Mapping[str, float] | None = None,
) -> None:
    header = describe_segmenter(model, data, config, metrics or {})
    save_model(model, RunFolder(config.out).model, header)


def patients(data: SegmentationData, indices: Any) -> set[str]:
    return {data.cases.groups[index] for index in indices}


def test_splits_divide_no_patient() -> None:
    data = open_data()
    parts = [data.train, data.val, data.test]
    assert sorted(np.concatenate(parts)) == list(range(12))
    found = [patients(data, part) for part in parts]
    assert sum(map(len, found)) == len(set().union(*found)) == 6
    assert all(found)
    words = f"learning from {len(data.train)}, watching {len(data.val)}, testing on"
    assert words in data.describe()
    assert "person" not in data.describe()


def test_patches_are_fitted_to_a_network_with_strides_of_its_own() -> None:
    for name, patch in (("swinunetr", (64, 32, 32)), ("genesis", (16, 16, 16))):
        network = {"backbone": name, "width": 12}
        data = open_data(network=network, scan={})
        assert data.patch_voxels == patch
        assert "whose strides total" in data.reasons[0]
    data = open_data(network={"backbone": "genesis", "width": 12, "geometry": "unet"}, scan={})
    assert "whose strides" not in data.reasons[0]


def test_label_fractions_are_nested_and_touch_the_training_cases_only() -> None:
    full, half, some = (open_data(label_fraction=share) for share in (1.0, 0.7, 0.4))
    assert set(some.train) < set(half.train) < set(full.train)
    for data in (half, some):
        assert np.array_equal(data.val, full.val)
        assert np.array_equal(data.test, full.test)


def test_all_is_proposed_from_the_cases_that_are_learnt_from() -> None:
    cases = make_cases()
    full = open_data(cases)
    assert full.preprocessing.unit == "HU"
    assert full.preprocessing.spacing_mm == (2.0, 1.0, 1.0)
    for index in [*full.val, *full.test]:
        image = cases.cases[index].images[0]
        assert isinstance(image, Volume)
        image.array[...] += 5000
    assert open_data(cases).preprocessing == full.preprocessing


def test_what_the_user_says_stands() -> None:
    said: dict[str, Any] = {
        "spacing_mm": (1.0, 1.0, 2.0),
        "window_width_centre": (400, -500),
        "orientation": "stored",
        "patch_voxels": (8, 9, 10),
    }
    data = open_data(scan=said)
    assert data.preprocessing.window == (-700.0, -300.0)
    assert data.preprocessing.orientation == "stored"
    assert data.preprocessing.spacing_mm == (1.0, 1.0, 2.0)
    assert data.spacing_mm == (1.0, 1.0, 2.0)
    assert data.patch_voxels == (8, 9, 10)
    assert data.window(overlap=0.3).size_voxels == (8, 9, 10)
    assert data.window(overlap=0.3).steps == (5, 6, 7)
    assert data.window(overlap=0.3, steps=(1, 2, 3)).steps == (1, 2, 3)


def test_geometry_is_proposed_or_taken() -> None:
    proposed = open_data(network={"geometry": "auto"})
    assert any("For segment on (8, 8, 8)" in reason for reason in proposed.reasons)
    assert proposed.geometry.stem_stride == (1, 1, 1)
    assert open_data().geometry == named_geometry("small")
    with pytest.raises(DataError, match="too small for this geometry"):
        open_data(network={"geometry": "volume"})
    with pytest.raises(ConfigError, match="known are pretrain"):
        open_data(network={"geometry": "cubist"})


def test_sides_in_names_switch_flips_off_and_the_log_says_so() -> None:
    data = open_data(make_cases(names=("left lung", "right lung")))
    assert data.augmentation.flip_axes == ("depth", "height")
    assert "flipping patches along depth, height" in data.reasons
    assert "flipping patches along no axis" in open_data(augmentation={"flip_axes": ()}).reasons


def test_validation_cases_are_needed_to_choose_by() -> None:
    nobody: dict[str, Any] = {"fractions": (0.7, 0.0, 0.3)}
    with pytest.raises(DataError, match=r"the set: there are no validation cases.*--keep last"):
        open_data(**nobody)
    with pytest.raises(DataError, match="--patience 0"):
        open_data(**nobody, keep="last", patience=3)
    data = open_data(**nobody, keep="last")
    assert not len(data.val)
    _, val_loader = segmentation_loaders(data, make_config())
    assert val_loader is None


def test_loaders_give_patches_and_whole_cases() -> None:
    config = make_config(patches_per_case=3, batch_size=4)
    data = open_segmentation_data(config, make_cases())
    train_loader, val_loader = segmentation_loaders(data, config)
    batches = list(train_loader)
    assert len(batches) == len(data.train) * 3 // 4
    assert batches[0]["image"].shape == (4, 1, 8, 8, 8)
    assert {int(i) for batch in batches for i in batch["index"]} <= set(data.train.tolist())
    whole = list(val_loader)
    assert [int(batch["index"][0]) for batch in whole] == data.val.tolist()
    assert {tuple(batch["image"].shape[2:]) for batch in whole} == {SIZE}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decoder": "fcn", "network": {"geometry": "nodule"}},
        {"decoder": "cspr-fcn", "network": {"geometry": "nodule"}},
        {"decoder": "cspr-unet", "network": {"norm": "group"}},
        {"deep_supervision": True},
        {"norm_mode": "group"},
        {"norm_mode": "frozen"},
        {"network": {"backbone": "resnet50", "geometry": "thumbnail"}},
        {"network": {"norm": "group"}},
    ],
    ids=[
        "unet",
        "fcn",
        "cspr-fcn",
        "cspr-unet",
        "deep",
        "grouped",
        "frozen",
        "bottleneck",
        "group",
    ],
)
def test_a_saved_segmenter_gives_the_same_logits(tmp_path: Path, changes: dict[str, Any]) -> None:
    network: dict[str, Any] = {
        "backbone": "resnet10",
        "width": 4,
        "stem": 3,
        "geometry": "small",
    }
    network |= changes.get("network", {})
    config = make_config(tmp_path, **{**changes, "network": network})
    data = open_segmentation_data(config, make_cases(num_channels=2))
    model = build_segmenter(config, data)
    volume = torch.randn(2, 2, 9, 10, 11)
    with torch.no_grad():
        # Running statistics other than those of a new network.
        model.train()(volume)
        expected = model.eval()(volume)
    save(model, data, config, {"val/dice": 0.5})
    loaded = load_model(tmp_path)
    with torch.no_grad():
        # Kernels that are laid out otherwise are added up in another order.
        torch.testing.assert_close(loaded.networks[0](volume), expected, rtol=1e-4, atol=5e-5)
    header = read_header(RunFolder(tmp_path).model)
    assert header.geometry == named_geometry(network["geometry"])
    assert header.preprocessing == data.preprocessing
    assert header.provenance["metrics"] == {"val/dice": 0.5}
    assert "person" not in header.to_json()
    settings = loaded.segmentation
    assert settings.labels == data.cases.labels
    assert settings.channel_names == ("channel 0", "channel 1")
    assert settings.window_voxels == (8, 8, 8)
    assert settings.window_steps is None
    assert settings.mirror_axes == (0, 1, 2)
    assert (settings.seed, settings.fractions) == (2, (0.5, 0.25, 0.25))
    assert loaded.class_names == ("background", "ball", "bead")


def test_regions_have_an_output_each(tmp_path: Path) -> None:
    cases = make_cases()
    labels = cases.labels.with_regions({"whole": (1, 2), "core": (2,)})
    config = make_config(tmp_path)
    data = open_segmentation_data(config, replace(cases, labels=labels))
    model = build_segmenter(config, data)
    save(model, data, config)
    loaded = load_model(tmp_path)
    assert loaded.class_names == ("whole", "core")
    assert loaded.networks[0](torch.randn(1, 1, 8, 8, 8)).shape[1] == 2
    report = judge_segmentation(data, config, RunFolder(tmp_path))
    assert set(report.metrics.structures) == {"whole", "core"}


def test_the_test_cases_are_judged(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    data = open_segmentation_data(config, make_cases())
    save(build_segmenter(config, data), data, config)
    report = judge_segmentation(data, config, RunFolder(tmp_path))
    assert report.split == "test"
    rows = (tmp_path / "cases.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {f"case-{index}" for index in data.test}


@pytest.mark.parametrize("keep", ["best", "last"])
def test_without_test_cases_the_validation_cases_are_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keep: str
) -> None:
    config = make_config(tmp_path, fractions=(0.5, 0.5, 0.0), keep=keep)
    data = open_segmentation_data(config, make_cases())
    save(build_segmenter(config, data), data, config)
    with caplog.at_level(logging.WARNING):
        report = judge_segmentation(data, config, RunFolder(tmp_path))
    assert report.split == "val"
    # Where nothing was chosen by them, they are as good as test cases.
    assert ("no test cases" in caplog.text) == (keep == "best")


def test_data_on_disk_are_read_by_their_options(ball_folder: Path) -> None:
    config = make_config(
        data=str(ball_folder), class_names=("one", "two"), regions=("all=1+2", "small=2")
    )
    data = open_segmentation_data(config)
    assert data.cases.labels.names == ("background", "one", "two")
    assert data.cases.labels.structures == ("all", "small")
    ignoring = open_segmentation_data(
        make_config(data=str(ball_folder), class_names=("one",), ignore_value=2)
    )
    assert ignoring.cases.labels.ignore_value == 2
