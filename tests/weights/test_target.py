from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from voxlift.core.errors import WeightsError
from voxlift.weights.target import find_target

Make = Callable[..., Any]


def test_a_backbone_is_its_own_target(make_backbone: Make) -> None:
    backbone = make_backbone(geometry="volume")
    target = find_target(backbone)
    assert target.prefix == ""
    assert target.architecture == backbone.architecture
    assert target.geometry == backbone.geometry
    assert target.state.keys() == backbone.state_dict().keys()
    assert set(target.parameters) == {name for name, _ in backbone.named_parameters()}


def test_the_backbone_of_a_model_is_found(make_classifier: Make) -> None:
    model = make_classifier()
    target = find_target(model)
    assert target.prefix == "backbone."
    assert target.state.keys() == model.state_dict().keys()
    assert "head.weight" not in target.parameters
    assert "backbone.conv1.weight" in target.parameters
    assert not any("running" in name for name in target.parameters)


def test_a_compiled_model_is_looked_through(make_classifier: Make, wrap: Make) -> None:
    model = make_classifier()
    plain = list(model.state_dict())
    model.backbone = wrap(model.backbone)
    target = find_target(model)
    assert list(target.state) == plain
    assert target.own_names["backbone.conv1.weight"] == "backbone._orig_mod.conv1.weight"
    whole = find_target(wrap(make_classifier()))
    assert list(whole.state) == plain
    assert whole.own_names["head.bias"] == "_orig_mod.head.bias"


@pytest.mark.slow
def test_torch_compile_wraps_as_the_stand_in_does(make_classifier: Make, wrap: Make) -> None:
    model = make_classifier()
    compiled: Any = torch.compile(model, backend="eager")
    assert find_target(compiled).own_names == find_target(wrap(model)).own_names


def test_a_module_without_a_backbone_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"Linear is no Voxlift backbone.*create_backbone"):
        find_target(nn.Linear(2, 2))
    wrapper = nn.Module()
    wrapper.backbone = nn.Linear(2, 2)
    with pytest.raises(WeightsError, match="Module is no Voxlift backbone"):
        find_target(wrapper)


def test_a_model_without_numbers_is_refused(make_backbone: Make) -> None:
    with pytest.raises(WeightsError, match=r"conv1\.weight .*meta device"):
        find_target(make_backbone().to("meta"))


def test_the_backbones_own_adapter_is_found(make_classifier: Make) -> None:
    model = make_classifier()
    assert find_target(model).adapter is None
    model.backbone.adapt_tensor = lambda *_: None
    assert find_target(model).adapter is model.backbone.adapt_tensor
