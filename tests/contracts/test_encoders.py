"""What every backbone in `list_backbones()` keeps to, whatever geometry it has."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from voxlift.core.backbone import Backbone
from voxlift.core.errors import DataError
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import BACKBONES, create_backbone, create_model, list_backbones
from voxlift.nets.slice_encoder import MP3DS
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

NARROW = {"swin": 12, "swin_v2": 12, "swinunetr": 12, "swinunetr_v2": 12, "segresnet": 8, "gvsl": 8}
SLICES = dict.fromkeys(MP3DS, 3)
DEEP = ("resnet101", "resnet152", "resnet200")
"""As `resnet50`, but slower."""

NAMES = [name for name in list_backbones() if name not in DEEP]

pytestmark = pytest.mark.parametrize("name", NAMES)


def build(name: str, in_channels: int = 1) -> Encoder:
    torch.manual_seed(0)
    return create_backbone(
        name,
        width=NARROW.get(name, 4),
        num_slices=SLICES.get(name),
        in_channels=in_channels,
    ).eval()


def size_of(name: str) -> tuple[int, int, int]:
    """A size that the family takes; not the same on each axis."""
    smallest = build(name).geometry.smallest_size()
    depth = SLICES.get(name, max(smallest[0], 17))
    return (depth, max(smallest[1], 33), max(smallest[2], 40))


def test_the_maps_are_as_promised(name: str) -> None:
    backbone = build(name)
    assert isinstance(backbone, Backbone)
    assert backbone.architecture.name == name
    assert len(backbone.out_channels) == len(backbone.strides) >= 4
    size = size_of(name)
    with torch.no_grad():
        maps = backbone(torch.randn(1, 1, *size))
    assert tuple(m.shape[1] for m in maps) == backbone.out_channels
    for feature_map, stride in zip(maps, backbone.strides, strict=True):
        axes = size[3 - len(stride) :]
        expected = tuple(math.ceil(n / step) for n, step in zip(axes, stride, strict=True))
        assert tuple(feature_map.shape[2:]) == expected
        assert torch.isfinite(feature_map).all()


def test_a_file_brings_back_the_same_function(name: str, tmp_path: Path) -> None:
    backbone = build(name)
    path = save_weights(backbone, tmp_path / "a.safetensors")
    torch.manual_seed(1)
    again = create_backbone(weights=path).eval()
    assert again.architecture == backbone.architecture
    assert again.geometry == backbone.geometry
    report = load_weights(again, path)
    assert report.coverage == 1
    assert report.is_complete
    volume = torch.randn(1, 1, *size_of(name))
    with torch.no_grad():
        for found, expected in zip(again(volume), backbone(volume), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_layers_that_take_the_input_are_named(name: str) -> None:
    """So that a file for one channel serves several, and answers equal channels as before."""
    one, two = build(name), build(name, in_channels=2)
    known = dict(two.named_modules())
    assert set(one.input_layers) <= set(known)
    grown = {
        key.rpartition(".")[0]
        for key, tensor in two.state_dict().items()
        if tensor.shape != one.state_dict()[key].shape
    }
    assert grown == set(two.input_layers)


def test_its_own_geometry_can_be_set_again(name: str) -> None:
    backbone = build(name)
    geometry = backbone.geometry
    assert geometry == BACKBONES[name].default_geometry(backbone.architecture)
    before = [p.data_ptr() for p in backbone.parameters()]
    backbone.geometry = geometry
    assert [p.data_ptr() for p in backbone.parameters()] == before


def test_other_channels_and_dimensions_are_refused(name: str) -> None:
    size = size_of(name)
    for shape in ((1, 3, *size), (1, 1, *size[1:])):
        with pytest.raises(DataError, match=rf"{name} takes \(batch, 1"):
            build(name)(torch.zeros(shape))


def test_heads_fit_and_every_parameter_learns(name: str) -> None:
    backbone = build(name)
    task = "classify" if name in SLICES else "segment"
    model: nn.Module = create_model(task, backbone=backbone, num_classes=2).train()
    logits = model(torch.randn(2, 1, *size_of(name)))
    logits.square().mean().backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None]
    assert not [key for key in idle if key not in _unused_by(task, idle, name)]


def _unused_by(task: str, idle: list[str], name: str) -> list[str]:
    """Group transforms of the finer maps, which a classifier does not look at."""
    return [key for key in idle if task == "classify" and name in SLICES and "group_tr" in key]
