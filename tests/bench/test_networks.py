import logging
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from voxlift.bench.networks import (
    baselines,
    computes_the_same,
    our_network,
    plain_network,
)
from voxlift.training.hardware import prepare_memory_format


@pytest.fixture(name="ours")
def our_narrow_network() -> nn.Module:
    return our_network(width=8, num_classes=5)


def test_the_plain_network_is_the_same_function_with_the_same_state(ours: Any) -> None:
    plain = plain_network(ours)
    assert computes_the_same(ours, plain)
    for (name, own), (other_name, other) in zip(
        ours.state_dict().items(), plain.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(own, other)


def test_the_plain_stem_is_a_convolution_of_torch_and_ours_is_folded(
    ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plain_network(ours)
    paddings: list[object] = []
    conv3d = functional.conv3d

    def record(volume: torch.Tensor, weight: torch.Tensor, *others: Any) -> torch.Tensor:
        if weight.shape[2:] == (7, 7, 7):
            paddings.append(others[2])
        return conv3d(volume, weight, *others)

    monkeypatch.setattr(functional, "conv3d", record)
    ours(torch.zeros(2, 1, 3, 32, 32))
    assert paddings == []
    plain(torch.zeros(2, 1, 3, 32, 32))
    assert paddings == [(3, 3, 3)]


def test_memory_format_and_device_copies_leave_the_networks_alone(ours: Any) -> None:
    plain = plain_network(ours)
    prepare_memory_format(ours, "cpu")
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    assert computes_the_same(ours, plain)
    assert ours.state_dict().keys() == before.keys()
    assert all(torch.equal(ours.state_dict()[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in ours.parameters())


@pytest.mark.parametrize("change", ["weight", "stride", "statistics"])
def test_another_function_is_told_apart(ours: Any, change: str) -> None:
    other: Any = plain_network(ours)
    with torch.no_grad():
        if change == "weight":
            other.backbone.conv1.weight[0, 0, 3, 3, 3] += 1e-6
        elif change == "stride":
            other.backbone.layer4[0].downsample[0].stride = (2, 2, 2)
            other.backbone.layer4[0].conv1.stride = (2, 2, 2)
        else:
            other.backbone.norm1.running_mean += 1e-3
    assert not computes_the_same(ours, other)


def test_on_cuda_plain_bf16_joins_in(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision.models.video", "monai.networks.nets"):
        monkeypatch.setitem(sys.modules, name, None)
    made = {baseline.name: baseline for baseline in baselines(ours, device="cuda")}
    assert list(made) == ["plain-fp32-eager", "plain-bf16-eager"]
    assert made["plain-bf16-eager"].bf16
    assert not made["plain-fp32-eager"].bf16


def test_missing_libraries_are_named_and_left_out(
    ours: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # None in sys.modules makes the import fail as if the library were absent.
    for name in ("torchvision.models.video", "monai.networks.nets"):
        monkeypatch.setitem(sys.modules, name, None)
    with caplog.at_level(logging.WARNING, logger="voxlift.bench"):
        assert [baseline.name for baseline in baselines(ours, device="cpu")] == ["plain-fp32-eager"]
    assert "No rows against torchvision-r3d_18" in caplog.text
    assert "No rows against monai-resnet18" in caplog.text


def test_foreign_networks_are_brought_near_ours() -> None:
    ours = our_network(width=64, num_classes=5)
    made = {baseline.name: baseline for baseline in baselines(ours, device="cpu")}
    monai, torchvision = made["monai-resnet18"], made["torchvision-r3d_18"]
    assert monai.has_our_weights
    assert computes_the_same(ours, monai.network)

    assert not torchvision.has_our_weights
    shapes: list[tuple[int, ...]] = []
    for name in ("stem", "layer1", "layer2", "layer3", "layer4"):
        torchvision.network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output: shapes.append(tuple(output.shape))
        )
    volumes = torch.zeros(1, 1, 3, 64, 64)
    with torch.no_grad():
        assert torchvision.network.eval()(volumes).shape == (1, 5)
        own_shapes = [tuple(feature_map.shape) for feature_map in ours.eval().backbone(volumes)]
    # Their stem includes the pooling.
    assert shapes == [own_shapes[1], *own_shapes[1:]]
