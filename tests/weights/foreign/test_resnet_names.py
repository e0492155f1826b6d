from collections.abc import Callable
from typing import Any

import pytest
import torch

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.nets.resnet import RESNETS, Bottleneck, ResNet
from voxlift.weights.foreign.resnet_names import is_resnet, read_resnet, rename_norms
from voxlift.weights.foreign.resnet_shapes import DEPTHS, resnet_shapes
from voxlift.weights.match import BATCH_COUNTER


def test_the_depths_are_those_of_our_networks() -> None:
    ours = {name: (block is Bottleneck, depths) for name, (block, depths) in RESNETS.items()}
    assert ours == DEPTHS


@pytest.mark.parametrize("name", ["resnet10", "resnet34", "resnet50"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("project_first", [False, True])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_shapes_are_those_of_our_networks(
    name: str, shortcut: Any, project_first: bool, norm: Any
) -> None:
    for ndim, stem, channels in ((3, 7, 1), (2, 5, 3)):
        fields: dict[str, Any] = {"ndim": ndim, "stem_kernel": stem, "in_channels": channels}
        architecture = Architecture(
            name=name, width=4, shortcut=shortcut, project_first=project_first, norm=norm, **fields
        )
        with torch.device("meta"):
            state = ResNet(architecture, named_geometry("pretrain")).state_dict()
        shapes = {n: tuple(t.shape) for n, t in state.items() if not n.endswith(BATCH_COUNTER)}
        assert resnet_shapes(architecture) == shapes


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_everything_is_inferred(name: str, shortcut: Any) -> None:
    wanted = Architecture(
        name=name, width=2, shortcut=shortcut, in_channels=3, stem_kernel=5, norm="batch"
    )
    tensors = {n: torch.zeros(s) for n, s in resnet_shapes(wanted, norm="bn").items()}
    found, ours = read_resnet(tensors, where="a.pth")
    assert found == wanted
    assert {n: tuple(t.shape) for n, t in ours.items()} == resnet_shapes(wanted)


def test_norms_are_renamed_as_whole_parts_of_a_name() -> None:
    names = {"bn1.weight": 1, "layer1.0.bn2.bias": 2, "subn1.bn.bn12": 3, "downsample.1.bias": 4}
    assert list(rename_norms(names, "bn", "norm")) == [
        "norm1.weight",
        "layer1.0.norm2.bias",
        "subn1.bn.bn12",
        "downsample.1.bias",
    ]


def test_planar_and_other_networks_are_none_of_these() -> None:
    planar = {"conv1.weight": torch.ones(4, 3, 7, 7), "layer1.0.conv1.weight": torch.ones(4)}
    assert not is_resnet(planar)
    assert not is_resnet({"conv1.weight": torch.ones(4, 1, 7, 7, 7)})
    with pytest.raises(WeightsError, match=r"holds no ResNet for volumes.*conv1\.weight, layer1"):
        read_resnet(planar, where="a.pth")


def test_a_wrong_rest_is_refused_by_name(make_their_resnet: Callable[..., Any]) -> None:
    state = make_their_resnet().state_dict()
    zeros = torch.zeros
    wrong = {
        r"layer3\.0\.conv2\.weight has the shape \(16, 4, 3, 3, 3\), expected \(16, 16, ": {
            "layer3.0.conv2.weight": zeros(16, 4, 3, 3, 3)
        },
        r"layer2\.0\.downsample\.0\.bias is there, which such a network does not have": {
            "layer2.0.downsample.0.bias": zeros(8)
        },
        r"basic blocks \(1, 2, 1, 1\), which Voxlift does not have. Known are resnet10": {
            "layer2.1.conv1.weight": zeros(8, 8, 3, 3, 3)
        },
        r"conv1.weight has a kernel of \(3, 7, 7\)": {"conv1.weight": zeros(4, 1, 3, 7, 7)},
    }
    for message, changed in wrong.items():
        with pytest.raises(WeightsError, match=message):
            read_resnet({**state, **changed}, where="a.pth")
    fewer = {name: t for name, t in state.items() if name != "layer4.0.bn1.weight"}
    with pytest.raises(WeightsError, match=r"layer4\.0\.bn1\.weight is missing.*\(32,\)\. It is"):
        read_resnet(fewer, where="a.pth")
    some = {n: t for n, t in state.items() if not n.startswith("layer3.0.downsample")}
    with pytest.raises(WeightsError, match=r"layer3\.0\.downsample\.0\.weight.*and 4 more"):
        read_resnet(some, where="a.pth")


def test_batch_norm_needs_its_statistics_but_not_its_counters(
    make_their_resnet: Callable[..., Any],
) -> None:
    state = make_their_resnet().state_dict()
    without = {n: t for n, t in state.items() if not n.endswith(BATCH_COUNTER)}
    assert read_resnet(without, where="a.pth")[0].norm == "batch"
    for name in ("layer2.0.bn1", "layer2.0.downsample.1"):
        fewer = {n: t for n, t in state.items() if not n.startswith(f"{name}.running")}
        with pytest.raises(WeightsError, match=rf"{name} is a batch norm without running_mean"):
            read_resnet(fewer, where="a.pth")
