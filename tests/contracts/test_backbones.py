"""What every backbone keeps to that follows the geometries with a name."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from voxlift.core.backbone import Backbone
from voxlift.core.errors import DataError
from voxlift.core.geometry import GEOMETRIES, Geometry, named_geometry
from voxlift.lifting.image_to_volume import lift
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import BACKBONES, create_backbone, create_model

FREE = [name for name, family in BACKBONES.items() if family.follows_data]
"""The families that follow any geometry of four stages; others are held to `test_encoders.py`."""

pytestmark = pytest.mark.parametrize("name", FREE)


def build(
    name: str, geometry: str | Geometry = "small", *, norm: Literal["batch", "group"] = "batch"
) -> Encoder:
    return create_backbone(name, geometry=geometry, width=4, stem=3, norm=norm)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_offers_what_a_backbone_offers(name: str) -> None:
    backbone = build(name)
    assert isinstance(backbone, Backbone)
    assert backbone.architecture.name == name
    assert backbone.architecture.width == 4
    assert backbone.geometry == named_geometry("small")
    assert len(backbone.out_channels) == len(backbone.strides) == 5


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_maps_have_the_promised_channels_and_sizes(name: str, geometry: str) -> None:
    backbone = build(name, geometry).eval()
    size = tuple(length + 1 for length in backbone.geometry.smallest_size())
    with torch.no_grad():
        maps = backbone(torch.randn(1, 1, *size))
    assert tuple(m.shape[1] for m in maps) == backbone.out_channels
    for feature_map, stride in zip(maps, backbone.strides, strict=True):
        assert tuple(feature_map.shape[2:]) == tuple(
            math.ceil(length / step) for length, step in zip(size, stride, strict=True)
        )
        assert torch.isfinite(feature_map).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_smallest_size_works_and_one_less_fails(name: str, geometry: str) -> None:
    backbone = build(name, geometry).eval()
    smallest = backbone.geometry.smallest_size()
    with torch.no_grad():
        backbone(torch.randn(1, 1, *smallest))
    for axis in range(3):
        if smallest[axis] > 1:
            size = list(smallest)
            size[axis] -= 1
            with pytest.raises(DataError, match="already one voxel long"):
                backbone(torch.randn(1, 1, *size))


def test_changing_the_geometry_touches_no_tensor(name: str) -> None:
    backbone = build(name, "thumbnail").eval()
    before, pointers = tensors(backbone), [p.data_ptr() for p in backbone.parameters()]
    volume = torch.randn(1, 1, 9, 9, 9)
    first = backbone(volume)[-1]
    for geometry in GEOMETRIES.values():
        backbone.geometry = geometry
        assert backbone.geometry == geometry
        assert backbone.strides == geometry.strides
    assert backbone(torch.randn(1, 1, 24, 24, 24))[-1].shape[2:] == (3, 3, 3)
    backbone.geometry = named_geometry("thumbnail")
    torch.testing.assert_close(backbone(volume)[-1], first, rtol=0, atol=0)
    assert [p.data_ptr() for p in backbone.parameters()] == pointers
    torch.testing.assert_close(tensors(backbone), before, rtol=0, atol=0)


def test_all_geometries_have_the_same_tensors(name: str) -> None:
    shapes = [
        {key: tensor.shape for key, tensor in build(name, geometry).state_dict().items()}
        for geometry in GEOMETRIES
    ]
    assert all(shape == shapes[0] for shape in shapes)


def test_other_channels_and_dimensions_are_refused(name: str) -> None:
    for shape in ((1, 3, 8, 8, 8), (1, 1, 8, 8)):
        with pytest.raises(DataError, match=rf"{name} takes \(batch, 1, depth, height, width\)"):
            build(name)(torch.zeros(shape))
    more = create_backbone(name, geometry="small", in_channels=2, width=4, stem=3).eval()
    more(torch.zeros(1, 2, 8, 8, 8))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_parameter_gets_a_finite_gradient(name: str, norm: Literal["batch", "group"]) -> None:
    backbone = build(name, "thumbnail", norm=norm)
    maps = backbone(lift(torch.randn(2, 3, 16, 16)))
    loss = torch.stack([m.square().mean() for m in maps]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.count_nonzero() > 0, key


def test_group_norm_does_not_mix_the_batch(name: str) -> None:
    backbone = build(name, norm="group").double()
    volumes = torch.randn(2, 1, 9, 9, 9, dtype=torch.float64)
    both, alone = backbone(volumes)[-1][:1], backbone(volumes[:1])[-1]
    torch.testing.assert_close(both, alone, rtol=1e-8, atol=1e-8)
    assert not any("running" in key for key in backbone.state_dict())


def test_a_seed_decides_the_start(name: str) -> None:
    torch.manual_seed(1)
    first = tensors(build(name))
    torch.manual_seed(1)
    torch.testing.assert_close(tensors(build(name)), first, rtol=0, atol=0)
    assert not torch.equal(build(name).get_parameter("conv1.weight"), first["conv1.weight"])


def test_no_map_is_changed_by_the_next_layer(name: str) -> None:
    backbone = build(name, "pretrain").eval()
    kept: list[Tensor] = []
    backbone.get_submodule("norm1").register_forward_hook(
        lambda *a: kept.append(a[2].detach().clone())
    )
    with torch.no_grad():
        maps = backbone(torch.randn(1, 1, 3, 34, 34))
    torch.testing.assert_close(maps[0], kept[0].relu(), rtol=0, atol=0)
    assert all(m.min() >= 0 for m in maps)


def test_makes_a_classifier(name: str) -> None:
    model = create_model("classify", backbone=build(name), num_classes=3).eval()
    assert model(torch.randn(2, 1, 8, 8, 8)).shape == (2, 3)
