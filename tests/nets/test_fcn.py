import pytest
import torch
from torch.nn import functional

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import GEOMETRIES, Geometry
from voxlift.nets.fcn import FCN
from voxlift.nets.layers import GroupNorm
from voxlift.nets.resnet import ResNet


def make(
    geometry: Geometry = GEOMETRIES["nodule"],
    *,
    name: str = "resnet10",
    num_classes: int = 2,
    norm: Norm = "batch",
) -> FCN:
    architecture = Architecture(name=name, width=4, stem_kernel=3, norm=norm)
    return FCN(ResNet(architecture, geometry), num_classes=num_classes)


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_output_has_the_size_of_the_input(geometry: Geometry, name: str) -> None:
    smallest = geometry.smallest_size()
    size = (smallest[0] | 1, (smallest[1] | 1) + 2, (smallest[2] | 1) + 4)
    with torch.no_grad():
        assert make(geometry, name=name).eval()(torch.randn(1, 1, *size)).shape == (1, 2, *size)


def test_stem_and_stages_2_and_4_are_merged() -> None:
    model = make().eval()
    volume = torch.randn(1, 1, 9, 10, 11)
    maps = model.backbone(volume)
    size = (9, 10, 11)
    parts = [functional.interpolate(maps[i], size, mode="trilinear") for i in (2, 4)]
    merged = model.merge(torch.cat([maps[0], *parts], 1))
    torch.testing.assert_close(model(volume), model.head(merged))


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    model = make(name=name).train()
    logits = model(torch.randn(2, 1, 9, 10, 11))
    (logits * torch.randn_like(logits)).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_list_of_levels_is_never_returned() -> None:
    assert isinstance(make().train()(torch.randn(2, 1, 8, 8, 8)), torch.Tensor)


def test_the_head_takes_the_norm_of_the_backbone() -> None:
    assert any(isinstance(m, GroupNorm) for m in make(norm="group").merge.modules())
    assert not any(isinstance(m, GroupNorm) for m in make().merge.modules())


def test_no_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one output; found 0"):
        make(num_classes=0)
