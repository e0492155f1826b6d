import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from voxlift.config import (
    FinetuneConfig,
    MachineConfig,
    NetworkConfig,
    PretrainConfig,
    RunConfig,
    ScanConfig,
    SegmentConfig,
    VolumeConfig,
)
from voxlift.data.classification_batches import VolumeAugmentation
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.patch_augmentation import PatchAugmentation
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.tasks.segmentation_loss import LossConfig
from voxlift.training.run_folder import to_yaml

CONFIGS: list[type[BaseModel]] = [
    NetworkConfig,
    MachineConfig,
    RunConfig,
    PretrainConfig,
    VolumeConfig,
    FinetuneConfig,
    ScanConfig,
    SegmentConfig,
    LossConfig,
    PatchAugmentation,
    OptimizationConfig,
    ImageAugmentation,
    VolumeAugmentation,
]
PARTS = {"network", "machine", "optimization", "volume", "augmentation", "task"}


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_every_option_is_documented(kind: type[BaseModel]) -> None:
    documentation = " ".join(base.__doc__ or "" for base in kind.__mro__)
    told = set(re.findall(r"^\s+(\w+):", documentation, flags=re.MULTILINE))
    assert set(kind.model_fields) - PARTS <= told


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_config_is_frozen_and_closed(kind: type[BaseModel]) -> None:
    config = kind.model_validate({"data": "here"} if "data" in kind.model_fields else {})
    name = next(iter(kind.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, name, "changed")
    with pytest.raises(ValidationError, match="no_such_option"):
        kind.model_validate({**config.model_dump(), "no_such_option": 1})


REFUSED: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (PretrainConfig, {"epochs": 0}),
    (PretrainConfig, {"steps": 0}),
    (PretrainConfig, {"batch_size": 0}),
    (PretrainConfig, {"val_fraction": 1.0}),
    (PretrainConfig, {"image_size": 4}),
    (PretrainConfig, {"network": {"width": 0}}),
    (PretrainConfig, {"network": {"stem": 4}}),
    (PretrainConfig, {"network": {"norm": "layer"}}),
    (PretrainConfig, {"machine": {"device": "abacus"}}),
    (PretrainConfig, {"machine": {"workers": -1}}),
    (PretrainConfig, {"optimization": {"lr": 0}}),
    (FinetuneConfig, {"data": "x", "label_fraction": 0}),
    (FinetuneConfig, {"data": "x", "label_fraction": 1.1}),
    (FinetuneConfig, {"data": "x", "folds": -1}),
    (FinetuneConfig, {"data": "x", "norm_mode": "melted"}),
    (FinetuneConfig, {"data": "x", "layer_decay": 0}),
    (FinetuneConfig, {"data": "x", "augmentation": {"rotation": "free"}}),
    (FinetuneConfig, {}),
    (SegmentConfig, {"data": "x", "foreground_share": 1.1}),
    (SegmentConfig, {"data": "x", "patches_per_case": 0}),
    (SegmentConfig, {"data": "x", "val_overlap": 1.0}),
    (SegmentConfig, {"data": "x", "decoder": "fpn"}),
    (SegmentConfig, {"data": "x", "keep": "first"}),
    (SegmentConfig, {"data": "x", "regions": ("core",)}),
    (SegmentConfig, {"data": "x", "regions": ("core=1+",)}),
    (SegmentConfig, {"data": "x", "regions": ("=1",)}),
    (SegmentConfig, {"data": "x", "folds": 3}),
    (ScanConfig, {"window": (0, 1), "window_width_centre": (1, 0)}),
    (ScanConfig, {"window": (1, 0)}),
    (ScanConfig, {"window_width_centre": (0, 40)}),
    (ScanConfig, {"window": (0, 1), "intensity": "zscore"}),
    (ScanConfig, {"intensity": "guess"}),
    (ScanConfig, {"max_patch_voxels": 0}),
]


@pytest.mark.parametrize(("kind", "changes"), REFUSED)
def test_values_out_of_range_are_refused(kind: type[BaseModel], changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(changes)


def test_yaml_says_it_all() -> None:
    config = FinetuneConfig.model_validate(
        {
            "data": "a b/ü.csv",
            "out": "runs/é",
            "fractions": (0.5, 0.25, 0.25),
            "volume": {"size_voxels": (8, 9, 10), "window": (-100, 300.5)},
            "network": {"weights": "tiny", "norm": "group"},
            "optimization": {"lr": 1e-5, "milestones": (0.3, 0.6)},
        }
    )
    read = yaml.safe_load(to_yaml(config))
    assert FinetuneConfig.model_validate(read) == config


def test_yaml_of_a_segmentation_says_it_all() -> None:
    config = SegmentConfig.model_validate(
        {
            "data": "Task04_Hippocampus",
            "class_names": ("anterior", "posterior"),
            "regions": ("whole=1+2", "front=1"),
            "scan": {"window_width_centre": (450, 25), "patch_voxels": (8, 16, 24)},
            "augmentation": {"flip_axes": ("depth",), "scaling": (0.9, 1.1)},
            "loss_function": {"loss": "dice-focal", "ce_weight": 0.3},
        }
    )
    assert SegmentConfig.model_validate(yaml.safe_load(to_yaml(config))) == config


def test_regions_and_windows_are_read_from_what_was_typed() -> None:
    config = SegmentConfig(data="x", regions=("whole=1+2+4", "core=4"))
    assert config.region_members == {"whole": (1, 2, 4), "core": (4,)}
    assert SegmentConfig(data="x").region_members is None
    assert ScanConfig(window_width_centre=(450, 25)).bounds == (-200, 250)
    assert ScanConfig(window=(-160, 240)).bounds == (-160, 240)
    assert ScanConfig().bounds is None


def test_progressive_sizes_grow_with_the_epochs() -> None:
    config = PretrainConfig(epochs=10, image_size=32, progressive_sizes=((0.3, 16), (0.6, 24)))
    assert [config.size_at(epoch) for epoch in range(10)] == [16] * 3 + [24] * 3 + [32] * 4
    assert PretrainConfig(image_size=48).size_at(0) == 48
