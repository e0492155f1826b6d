"""Data of detection runs: what is settled, and what is refused before anything is written."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.config import DetectConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import named_geometry
from voxlift.data.detection_source import open_detection
from voxlift.training.detection import detection_loaders, open_detection_data
from voxlift.training.networks import build_detector


def changed(config: DetectConfig, **changes: Any) -> DetectConfig:
    fields = config.model_dump()
    for name, value in changes.items():
        fields[name] = {**fields[name], **value} if isinstance(fields[name], dict) else value
    return DetectConfig.model_validate(fields)


def test_slices_of_ct_are_settled_by_the_data(small_detection: DetectConfig) -> None:
    data = open_detection_data(changed(small_detection, slices={"num_slices": None}))
    assert (data.settings.num_slices, data.settings.slice_interval_mm) == (9, 2.5)
    assert data.settings.class_names == ("lesion",)
    assert data.preprocessing.window == (-1024.0, 1050.0)
    assert data.monitored == "val/sensitivity"
    assert data.geometry == named_geometry("pretrain")
    assert "9 slices 2.5 mm apart" in data.reasons[0]
    assert set(data.train) | set(data.val) | set(data.test) == set(range(len(data.cases)))


def test_thumbnail_strides_of_a_start_are_not_taken_over(small_detection: DetectConfig) -> None:
    network = {"backbone": None, "width": None, "stem": None, "weights": "tiny"}
    data = open_detection_data(changed(small_detection, network=network))
    assert data.geometry == named_geometry("pretrain")
    asked = changed(small_detection, network=network | {"geometry": "thumbnail"})
    assert open_detection_data(asked).geometry == named_geometry("thumbnail")


def test_a_share_of_the_labels_takes_whole_patients(small_detection: DetectConfig) -> None:
    whole = open_detection_data(small_detection)
    half = open_detection_data(changed(small_detection, label_fraction=0.5))
    assert 0 < len(half.train) < len(whole.train)
    kept = {half.cases.cases[index].group for index in half.train}
    left = set(whole.train) - set(half.train)
    assert not kept & {whole.cases.cases[index].group for index in left}
    np.testing.assert_array_equal(half.test, whole.test)


def test_batches_of_a_run(small_detection: DetectConfig) -> None:
    data = open_detection_data(small_detection)
    train_loader, val_loader = detection_loaders(data, small_detection)
    batch = next(iter(train_loader))
    assert [tuple(volume.shape) for volume in batch["volumes"]] == [(1, 5, 64, 64)] * 2
    assert len(val_loader) == -(-len(data.val) // 2)


def test_a_detector_gives_its_pyramid_and_head_to_another(
    small_detection: DetectConfig, detected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = changed(
        small_detection,
        network={
            "backbone": None,
            "width": None,
            "stem": None,
            "weights": str(detected.folder / "model.safetensors"),
        },
        slices={"num_slices": 9},
        slice_start="mean",
    )
    with caplog.at_level(logging.INFO):
        model = build_detector(config, open_detection_data(config))
    assert (
        "a group transform for 5 slices in the file; rebuilt for 9 to take the mean" in caplog.text
    )
    weight = model.state_dict()["backbone.group_transform.1.weight"]
    np.testing.assert_allclose(weight.numpy(), 1 / 9, rtol=1e-6)
    stored = build_detector(
        changed(config, slices={"num_slices": 5}),
        open_detection_data(changed(config, slices={"num_slices": 5})),
    )
    for name, tensor in model.state_dict().items():
        if "group_transform" not in name:
            np.testing.assert_array_equal(tensor.numpy(), stored.state_dict()[name].numpy())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": "nosuch"}, DataError, "nosuch is not there"),
        (
            {"slices": {"max_image_size": 32}},
            ConfigError,
            "max_image_size is 32, but image_size 64",
        ),
        ({"slices": {"window": "heart"}}, ConfigError, "no window 'heart'; known are lesions"),
        ({"network": {"geometry": "volume"}}, ConfigError, "volume strides depth"),
        (
            {"network": {"backbone": "segresnet", "width": None, "stem": None}},
            ConfigError,
            "no group transform",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    small_detection: DetectConfig, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    config = changed(small_detection, **changes)
    with pytest.raises(error, match=message):
        build_detector(config, open_detection_data(config))


def test_without_validation_there_is_no_best(small_detection: DetectConfig, tmp_path: Path) -> None:
    cases = open_detection(small_detection.data)
    alone = dataclasses.replace(
        cases, cases=tuple(dataclasses.replace(case, split="") for case in cases.cases)
    )
    config = changed(small_detection, fractions=(1.0, 0.0, 0.0))
    with pytest.raises(DataError, match=r"no validation cases.*--keep last"):
        open_detection_data(config, alone)
    data = open_detection_data(changed(config, keep="last"), alone)
    assert len(data.train) == len(cases)
    assert detection_loaders(data, config)[1] is None
