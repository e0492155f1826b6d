from pathlib import Path
from typing import Any

import pytest
import torch

from voxlift.config import FinetuneConfig, SegmentConfig
from voxlift.core.geometry import named_geometry
from voxlift.nets.fcn import FCN
from voxlift.nets.layers import GroupNorm
from voxlift.nets.norm import FrozenBatchNorm3d
from voxlift.nets.unet import UNet
from voxlift.training.networks import build_classifier, build_segmenter
from voxlift.training.segmentation import open_segmentation_data

NETWORK = {"backbone": "resnet10", "width": 4, "stem": 3, "geometry": "small"}


def build(ball_folder: Path, **changes: Any) -> torch.nn.Module:
    config = SegmentConfig.model_validate(
        {
            "data": str(ball_folder),
            "network": NETWORK,
            "machine": {"device": "cpu"},
            "scan": {"patch_voxels": (8, 8, 8)},
            **changes,
        }
    )
    return build_segmenter(config, open_segmentation_data(config))


def test_a_seed_gives_the_same_network_whatever_came_before(ball_folder: Path) -> None:
    first, other = (build(ball_folder, seed=seed).state_dict() for seed in (1, 2))
    torch.manual_seed(99)
    torch.testing.assert_close(build(ball_folder, seed=1).state_dict(), first, rtol=0, atol=0)
    assert not torch.equal(first["heads.0.weight"], other["heads.0.weight"])
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({}, UNet), ({"decoder": "fcn"}, FCN), ({"deep_supervision": True}, UNet)],
)
def test_the_decoder_is_that_of_the_config(
    ball_folder: Path, changes: dict[str, Any], kind: type[torch.nn.Module]
) -> None:
    model = build(ball_folder, **changes)
    assert isinstance(model, kind)
    if isinstance(model, UNet):
        assert model.deep_supervision == ("deep_supervision" in changes)
    assert model.eval()(torch.zeros(1, 1, 9, 9, 9)).shape == (1, 3, 9, 9, 9)


@pytest.mark.parametrize(("mode", "kind"), [("group", GroupNorm), ("frozen", FrozenBatchNorm3d)])
def test_norm_modes_change_the_backbone(
    ball_folder: Path, mode: str, kind: type[torch.nn.Module]
) -> None:
    model = build(ball_folder, norm_mode=mode)
    assert isinstance(model.get_submodule("backbone.norm1"), kind)
    # A new decoder learns its own statistics; it takes group norm where the backbone has it.
    in_decoder = isinstance(model.get_submodule("levels.0.0.1"), kind)
    assert in_decoder == (mode == "group")


def test_a_classifier_is_built_likewise() -> None:
    config = FinetuneConfig.model_validate(
        {"data": "x", "network": NETWORK, "machine": {"device": "cpu"}}
    )
    model = build_classifier(config, geometry=named_geometry("small"), num_classes=3, dropout=0.2)
    assert model(torch.zeros(2, 1, 8, 8, 8)).shape == (2, 3)
    assert model.dropout.p == 0.2
