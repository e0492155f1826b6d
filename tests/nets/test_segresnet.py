import math
from typing import Any

import pytest
import torch

from voxlift.core.architecture import Architecture, Stage
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import ALL, Geometry
from voxlift.nets.classifier import Classifier
from voxlift.nets.segresnet import SegResNetEncoder
from voxlift.nets.unet import UNet


def describe(**fields: Any) -> Architecture:
    described = {**SegResNetEncoder.defaults, "name": "segresnet", "width": 8, **fields}
    return Architecture.model_validate(described)


def build(*, checkpointing: bool = False, **fields: Any) -> SegResNetEncoder:
    architecture = describe(**fields)
    own = SegResNetEncoder.default_geometry(architecture)
    return SegResNetEncoder(architecture, own, checkpointing=checkpointing)


@pytest.mark.parametrize("blocks", [(1, 2, 2, 4), (2, 1, 1)])
def test_computes_what_monai_hands_to_its_decoder(blocks: tuple[int, ...]) -> None:
    from monai.networks.nets import SegResNet

    stages = tuple(Stage(channels=8 * 2**i, blocks=count) for i, count in enumerate(blocks))
    ours = build(stages=None if len(blocks) == 4 else stages).double().eval()
    theirs = SegResNet(
        init_filters=8, blocks_down=blocks, blocks_up=(1,) * (len(blocks) - 1)
    ).double()
    theirs.load_state_dict({**theirs.state_dict(), **ours.state_dict()})
    volume = torch.randn(2, 1, 9, 16, 13, dtype=torch.float64)
    with torch.no_grad():
        _, expected = theirs.encode(volume.permute(0, 1, 4, 3, 2))
        found = ours(volume)
    assert tuple(m.shape[1] for m in found) == ours.out_channels
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other.permute(0, 1, 4, 3, 2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(5, 6, 7), (9, 16, 13)])
def test_maps_have_the_promised_sizes(size: tuple[int, ...]) -> None:
    backbone = build().eval()
    for feature_map, stride in zip(
        backbone(torch.randn(1, 1, *size)), backbone.strides, strict=True
    ):
        assert tuple(feature_map.shape[2:]) == tuple(
            math.ceil(length / step) for length, step in zip(size, stride, strict=True)
        )


def test_trains_below_a_unet_and_a_classifier() -> None:
    torch.manual_seed(1)
    plain = build()
    torch.manual_seed(1)
    saving = build(checkpointing=True)
    volume = torch.randn(1, 1, 5, 12, 9)
    for backbone in (plain, saving):
        torch.manual_seed(2)
        logits = UNet(backbone, num_classes=2).train()(volume)
        scores = Classifier(backbone, num_classes=3).train()(volume)
        assert logits.shape == (1, 2, 5, 12, 9)
        (logits.square().mean() + scores.square().mean()).backward()
    for (key, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert one.grad is not None, key
        assert torch.isfinite(one.grad).all(), key
        torch.testing.assert_close(one.grad, other.grad)


def test_other_geometries_are_refused() -> None:
    with pytest.raises(ConfigError, match="segresnet has strides of its own"):
        build().geometry = Geometry(stage_strides=(ALL,) * 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "segresnet2"}, "is none of segresnet"),
        ({"width": 12}, "multiple of 8; found 12"),
        ({"norm": "instance"}, "cannot have the norm 'instance'"),
        ({"stages": (Stage(channels=16, blocks=1),)}, "Level 0 of segresnet has 8 channels"),
        ({"stages": (Stage(channels=8, blocks=1, kernel=(1, 3, 3)),)}, "kernels of 3"),
    ],
)
def test_other_architectures_are_refused(fields: Any, message: str) -> None:
    own = Geometry(stage_strides=(ALL,) * 3)
    with pytest.raises(ConfigError, match=message):
        SegResNetEncoder(describe().model_copy(update=fields), own)
    with pytest.raises(ConfigError, match="leave zero_init_residual out"):
        SegResNetEncoder(describe(), own, zero_init_residual=True)
