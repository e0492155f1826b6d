import math

import pytest
import torch
from torch import Tensor

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import GEOMETRIES, Geometry, suggest_geometry
from voxlift.nets.layers import GroupNorm
from voxlift.nets.resnet import ResNet
from voxlift.nets.unet import UNet

THICK = Geometry(pool_stride=(1, 2, 2), stage_strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)))
"""For thick slices: the depth waits until stage 3."""


def make(
    geometry: Geometry = GEOMETRIES["small"],
    *,
    name: str = "resnet10",
    in_channels: int = 1,
    num_classes: int = 3,
    deep_supervision: bool = False,
    norm: Norm = "batch",
) -> UNet:
    architecture = Architecture(
        name=name, in_channels=in_channels, width=4, stem_kernel=3, norm=norm
    )
    return UNet(
        ResNet(architecture, geometry), num_classes=num_classes, deep_supervision=deep_supervision
    )


def size_of_maps(geometry: Geometry, size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Walk through the strides one by one: padded convolutions round up."""
    steps = [geometry.stem_stride, *geometry.stage_strides]
    maps = []
    for number, step in enumerate(steps):
        if number == 1 and geometry.pool_stride:
            size = tuple(math.ceil(n / s) for n, s in zip(size, geometry.pool_stride, strict=True))
        size = tuple(math.ceil(n / s) for n, s in zip(size, step, strict=True))
        maps.append(size)
    return maps


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@pytest.mark.parametrize("geometry", [*GEOMETRIES.values(), THICK], ids=[*GEOMETRIES, "thick"])
def test_the_output_has_the_size_of_the_input(geometry: Geometry, name: str) -> None:
    smallest = geometry.smallest_size()
    model = make(geometry, name=name).eval()
    # Odd sizes, and no two alike.
    size = (smallest[0] | 1, (smallest[1] | 1) + 2, (smallest[2] | 1) + 4)
    with torch.no_grad():
        assert model(torch.randn(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("size", [(7, 9, 11), (3, 17, 20), (1, 8, 9)])
def test_proposed_geometries_fit_any_size(size: tuple[int, int, int]) -> None:
    geometry, _ = suggest_geometry(size_voxels=size, spacing_mm=(4.0, 1.0, 1.0), task="segment")
    with torch.no_grad():
        assert make(geometry).eval()(torch.randn(1, 1, *size)).shape[2:] == size


@pytest.mark.parametrize("geometry", [GEOMETRIES["unet"], GEOMETRIES["pretrain"], THICK])
def test_coarser_levels_answer_too_in_training_only(geometry: Geometry) -> None:
    size = (17, 33, 35)
    model = make(geometry, deep_supervision=True)
    volume = torch.randn(2, 1, *size)
    logits = model.train()(volume)
    assert isinstance(logits, list)
    maps = size_of_maps(geometry, size)
    assert [tuple(each.shape) for each in logits] == [
        (2, 3, *size),
        *((2, 3, *maps[level]) for level in (1, 2, 3)),
    ]
    assert isinstance(model.eval()(volume), Tensor)
    assert isinstance(make(geometry).train()(volume), Tensor)


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_the_gradient_reaches_every_parameter(name: str, deep_supervision: bool) -> None:
    model = make(GEOMETRIES["unet"], name=name, deep_supervision=deep_supervision).train()
    logits = model(torch.randn(2, 1, 17, 18, 19))
    levels = logits if isinstance(logits, list) else [logits]
    total = torch.stack([(level * torch.randn_like(level)).sum() for level in levels]).sum()
    torch.autograd.backward(total)
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_each_level_lays_the_map_below_beside_its_own() -> None:
    """The decoder, written out for two levels by hand."""
    model = make(GEOMETRIES["small"]).eval()
    volume = torch.randn(1, 1, 9, 10, 11)
    maps = model.backbone(volume)
    out = maps[4]
    for level, skip in zip(list(model.levels)[::-1], maps[3::-1], strict=True):
        wanted = list(skip.shape[2:])
        resized = torch.nn.functional.interpolate(out, wanted, mode="trilinear")
        out = level(torch.cat([skip, resized], 1))
    torch.testing.assert_close(model(volume), model.heads[0](out))


def test_channels_of_the_levels_follow_the_width() -> None:
    for name in ("resnet10", "resnet50"):
        state = make(name=name).state_dict()
        assert [len(state[f"levels.{i}.1.0.weight"]) for i in range(4)] == [4, 4, 8, 16]


def test_names_of_the_tensors_tell_encoder_decoder_and_heads() -> None:
    model = make(deep_supervision=True)
    names = {name.partition(".")[0] for name in model.state_dict()}
    assert names == {"backbone", "levels", "heads"}
    assert len(model.heads) == 4
    assert len(make().heads) == 1


def test_the_decoder_takes_the_norm_of_the_backbone() -> None:
    grouped = [m for m in make(norm="group").levels.modules() if isinstance(m, GroupNorm)]
    assert len(grouped) == 8
    backbone = ResNet(make().backbone.architecture, GEOMETRIES["small"])
    other = UNet(backbone, num_classes=2, norm="group")
    assert any(isinstance(m, GroupNorm) for m in other.levels.modules())


def test_several_channels_and_a_single_region() -> None:
    model = make(in_channels=4, num_classes=1).eval()
    assert model(torch.randn(2, 4, 8, 8, 8)).shape == (2, 1, 8, 8, 8)


def test_no_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one output; found 0"):
        make(num_classes=0)
