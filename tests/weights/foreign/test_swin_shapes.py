"""What a Swin UNETR must look like, and what becomes of files that do not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.nets.factory import BACKBONES, create_backbone
from voxlift.nets.swin_unetr import SWIN_UNETRS, SWINS, Swin, SwinUNETREncoder
from voxlift.weights.container import Container
from voxlift.weights.file import WeightFile
from voxlift.weights.foreign.suprem_monai import SupremSwinUNETRFormat
from voxlift.weights.foreign.swin_shapes import position_index, swin_shapes
from voxlift.weights.foreign.swin_unetr import SwinUNETRFormat
from voxlift.weights.foreign.voco import VocoFormat

State = dict[str, Tensor]
Make = Callable[..., Container]
Translate = Callable[[Any, Container], WeightFile]
KNOWN = SwinUNETRFormat()
TABLE = "swinViT.layers2.0.blocks.1.attn.relative_position_bias_table"
INDEX = "swinViT.layers1.0.blocks.0.attn.relative_position_index"
PATCHES = "swinViT.patch_embed.proj.weight"


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "swin", Swin)
    monkeypatch.setitem(BACKBONES, "swinunetr", SwinUNETREncoder)


def describe(name: str) -> Architecture:
    return Architecture.model_validate({**Swin.defaults, "name": name, "width": 12})


def state(name: str = "swinunetr") -> State:
    shapes = swin_shapes(describe(name))
    return {key: torch.zeros(shape) for key, shape in shapes.items()} | {INDEX: position_index()}


@pytest.mark.parametrize("name", [*SWINS, *SWIN_UNETRS])
def test_shapes_are_those_of_the_encoder(name: str) -> None:
    family = SwinUNETREncoder if name in SWIN_UNETRS else Swin
    architecture = describe(name)
    network = family(architecture, family.default_geometry(architecture))
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert swin_shapes(architecture) == shapes
    found = [tensor for key, tensor in network.named_buffers() if key.endswith("position_index")]
    assert len(found) == 8
    for index in found:
        assert torch.equal(index, position_index())


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (TABLE, torch.zeros(9**3, 6), rf"{TABLE} has the shape \(729, 6\); .* has \(2197, 6\)"),
        (INDEX, torch.zeros(343, 343).long(), "does not number the offsets"),
        (INDEX, torch.zeros(27, 27).long(), "does not number the offsets"),
        ("encoder4.layer.conv2.conv.weight", torch.zeros(96, 96, 3, 3, 3), r"has \(48, 48, 3"),
        (PATCHES, torch.zeros(10, 1, 2, 2, 2), "makes 10 channels of 1; .* multiple of 12"),
        (PATCHES, torch.zeros(12, 0, 2, 2, 2), "makes 12 channels of 0"),
    ],
)
def test_a_wrong_tensor_is_refused(
    make_container: Make, name: str, tensor: Tensor, message: str
) -> None:
    container = make_container({**state(), name: tensor})
    assert KNOWN.recognises(container)
    with pytest.raises(WeightsError, match=message):
        KNOWN.translate(container)


@pytest.mark.parametrize("name", ["swinViT.layers1.0.blocks.2.norm1.weight", "head.weight"])
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_what_nobody_knows_makes_the_load_fail(
    make_container: Make, translated: Translate, name: str, prefix: str
) -> None:
    file = translated(KNOWN, make_container({**state(), name: torch.ones(12)}, prefix=prefix))
    with pytest.raises(WeightsError, match=name):
        create_backbone("swinunetr", weights=file)


def test_what_nobody_knows_beside_the_network_makes_the_load_fail(
    make_container: Make, translated: Translate
) -> None:
    tensors = {f"module.backbone.{key}": tensor for key, tensor in state().items()}
    container = make_container({**tensors, "module.memory": torch.ones(12)}, wrapper="net")
    file = translated(SupremSwinUNETRFormat(), container)
    with pytest.raises(WeightsError, match=r"module\.memory"):
        create_backbone("swinunetr", weights=file)


def test_blocks_without_all_their_fellows_are_left_out(
    make_container: Make, translated: Translate
) -> None:
    some = {key: tensor for key, tensor in state().items() if not key.startswith("encoder10.")}
    file = translated(KNOWN, make_container(some))
    assert file.header.architecture.name == "swin"
    assert "others are missing" in file.ignored["encoder1.layer.conv1.conv.weight"]
    create_backbone("swin", weights=file)


def test_a_missing_tensor_makes_the_load_fail(make_container: Make, translated: Translate) -> None:
    tensors = state()
    del tensors[TABLE]
    file = translated(KNOWN, make_container(tensors))
    with pytest.raises(WeightsError, match="not in the file"):
        create_backbone("swinunetr", weights=file)


def test_two_names_for_one_tensor_are_not_recognised(make_container: Make) -> None:
    name = "swinViT.layers1.0.blocks.0.mlp.fc1.bias"
    assert not KNOWN.recognises(make_container({**state(), name: torch.zeros(48)}))


def test_the_script_may_have_trained_v2(make_container: Make) -> None:
    container = make_container(state("swin_v2") | {"rotation_head.bias": torch.zeros(4)})
    assert KNOWN.recognises(container)
    assert not VocoFormat().recognises(container)
    alone = make_container(state("swin_v2"))
    assert not KNOWN.recognises(alone)
    assert VocoFormat().recognises(alone)
