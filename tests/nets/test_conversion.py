"""The planar twin made 3D, against the planar twin."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import named_geometry
from voxlift.core.inflation import MODES, Mode
from voxlift.nets.classifier import Classifier
from voxlift.nets.conversion import convert_2d
from voxlift.nets.norm import FrozenBatchNorm2d, FrozenBatchNorm3d, apply_norm_mode
from voxlift.nets.resnet import ResNet


def twin(name: str = "resnet18", geometry: str = "pretrain", **options: Any) -> ResNet:
    fields = {"name": name, "ndim": 2, "in_channels": 2, "width": 4, "stem_kernel": 3, **options}
    network = ResNet(Architecture.model_validate(fields), named_geometry(geometry))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features))
            module.running_var.copy_(0.5 + torch.rand(module.num_features))
            nn.init.normal_(module.weight, mean=1, std=0.2)
    return network.double().eval()


def made(network: nn.Module, mode: Mode) -> ResNet:
    converted = convert_2d(network, mode=mode)
    assert isinstance(converted, ResNet)
    return converted


NETWORKS = [
    ("resnet18", {}),
    ("resnet50", {"stem_kernel": 7}),
    ("resnet10", {"shortcut": "A", "norm": "batch"}),
    ("resnet10", {"project_first": True, "stem_kernel": 5}),
]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_mean_inflation_on_equal_slices(name: str, options: dict[str, Any]) -> None:
    planar = twin(name, **options)
    inflated = made(planar, "i3d")
    # The stem, the pooling, and the convolutions with a reach of one.
    reach = 4 + sum("conv" in key and m.ndim == 5 for key, m in inflated.state_dict().items())
    image = torch.randn(1, 2, 33, 40, dtype=torch.float64)
    with torch.no_grad():
        maps = inflated(image[:, :, None].repeat(1, 1, 2 * reach + 1, 1, 1))
        for ours, theirs in zip(maps, planar(image), strict=True):
            torch.testing.assert_close(ours[:, :, reach], theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@pytest.mark.parametrize("geometry", ["pretrain", "thumbnail"])
def test_slice_by_slice(name: str, options: dict[str, Any], geometry: str) -> None:
    planar = twin(name, geometry, **options)
    converted = made(planar, "2.5d")
    assert converted.architecture.convolution == "planar"
    volume = torch.randn(2, 2, 4, 33, 40, dtype=torch.float64)
    with torch.no_grad():
        maps = converted(volume)
        for number in range(4):
            for ours, theirs in zip(maps, planar(volume[:, :, number]), strict=True):
                torch.testing.assert_close(ours[:, :, number], theirs, rtol=1e-8, atol=1e-8)


def test_centre_inflation_is_slice_by_slice_where_nothing_is_pooled() -> None:
    planar = twin(geometry="thumbnail")
    volume = torch.randn(1, 2, 4, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        centred, thin = made(planar, "i3d-center")(volume), made(planar, "2.5d")(volume)
    torch.testing.assert_close(centred, thin, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_acs_has_the_tensors_of_the_twin(name: str) -> None:
    planar = twin(name)
    converted = made(planar, "acs")
    torch.testing.assert_close(converted.state_dict(), planar.state_dict(), rtol=0, atol=0)
    assert converted.architecture.convolution == "acs"
    with torch.no_grad():
        assert converted(torch.randn(1, 2, 5, 33, 40).double())[-1].shape[2:] == (5, 2, 2)


@pytest.mark.parametrize("mode", MODES)
def test_is_a_backbone_of_its_own(mode: Mode) -> None:
    planar = twin()
    planar.get_submodule("layer1").requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in planar.state_dict().items()}
    converted = made(planar, mode)
    assert converted.geometry == planar.geometry
    assert not converted.training
    assert next(converted.parameters()).dtype == torch.float64
    frozen = {n.split(".")[0] for n, p in converted.named_parameters() if not p.requires_grad}
    assert frozen == {"layer1"}
    converted.geometry = named_geometry("small")
    converted.train()(torch.randn(2, 2, 9, 9, 9).double())[-1].sum().backward()
    torch.testing.assert_close(planar.state_dict(), before, rtol=0, atol=0)
    assert planar.architecture.ndim == 2


def test_frozen_norms_stay_frozen() -> None:
    planar = twin("resnet10")
    apply_norm_mode(planar, "frozen")
    kinds = {type(m) for m in made(planar, "i3d").modules() if isinstance(m, nn.BatchNorm3d)}
    assert kinds == {FrozenBatchNorm3d}
    assert any(isinstance(module, FrozenBatchNorm2d) for module in planar.modules())


def test_a_classifier_on_a_twin() -> None:
    classifier = Classifier(twin("resnet10"), num_classes=3).double().eval()
    converted = convert_2d(classifier, mode="2.5d")
    image = torch.randn(2, 2, 33, 40, dtype=torch.float64)
    with torch.no_grad():
        answer = converted(image[:, :, None].repeat(1, 1, 3, 1, 1))
        torch.testing.assert_close(answer, classifier(image), rtol=1e-8, atol=1e-8)


def test_any_other_network_is_converted_layer_by_layer() -> None:
    network = timm.create_model("resnet10t", pretrained=False, num_classes=2)
    for stride_depth in (False, True):
        converted = convert_2d(network, mode="acs", stride_depth=stride_depth).eval()
        assert converted(torch.zeros(1, 3, 32, 32, 32)).shape == (1, 2)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes volumes already"):
        convert_2d(made(twin("resnet10"), "i3d"), mode="i3d")
    with pytest.raises(ConfigError, match=r"stride_depth and image .* backbone\.geometry"):
        convert_2d(twin("resnet10"), mode="i3d", stride_depth=True)
    with pytest.raises(ConfigError, match="Unknown mode '3d'; known are i3d"):
        convert_2d(twin("resnet10"), mode="3d")  # type: ignore[arg-type]
