"""What P3D alone has; what all backbones share is in tests/contracts."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import GEOMETRIES, ONES, Geometry, named_geometry
from voxlift.nets.p3d import P3D, P3DS, BasicBlock, Bottleneck

NAMES = ["p3d18", "p3d63"]
LAYOUTS = {
    "p3d18": (1, (2, 2, 2, 2)),
    "p3d18_bottleneck": (4, (2, 2, 2, 2)),
    "p3d34": (1, (3, 4, 6, 3)),
    "p3d63": (4, (3, 4, 6, 3)),
    "p3d131": (4, (3, 4, 23, 3)),
}
"""Channels that a block has for each that it is made for, and blocks of each stage."""


def build(
    name: str = "p3d18",
    geometry: str | Geometry = "thumbnail",
    *,
    zero_init_residual: bool = False,
    checkpointing: bool = False,
    **architecture: object,
) -> P3D:
    fields = {"name": name, "width": 4, "stem_kernel": 3, "norm": "group", **architecture}
    return P3D(
        Architecture.model_validate(fields),
        named_geometry(geometry),
        zero_init_residual=zero_init_residual,
        checkpointing=checkpointing,
    )


def blocks_of(network: P3D) -> list[BasicBlock | Bottleneck]:
    blocks = list(itertools.chain.from_iterable(network.stages))
    assert all(isinstance(block, BasicBlock | Bottleneck) for block in blocks)
    return blocks  # type: ignore[return-value]


def count_by_hand(expansion: int, depths: tuple[int, ...]) -> int:
    """Add up the kernels, 9 numbers of 1x3x3 and 3 of 3x1x1, and two numbers a channel of norms."""
    total, before, index = 49 * 64 + 2 * 64, 64, 0
    for stage, depth in enumerate(depths):
        inner = 64 * 2**stage
        after = inner * expansion
        for _ in range(depth):
            if expansion == 1:
                total += 9 * before * inner + 3 * (before if index % 3 == 1 else inner) * inner
                total += 9 * inner * inner + 3 * inner * inner + 2 * 4 * inner
            else:
                total += before * inner + 9 * inner * inner + 3 * inner * inner + inner * after
                total += 2 * (3 * inner + after)
            if before != after:
                total += before * after + 2 * after
            before, index = after, index + 1
    return total


def test_parameter_counts_of_the_paper() -> None:
    assert count_by_hand(*LAYOUTS["p3d18"]) == 15_257_536
    assert count_by_hand(*LAYOUTS["p3d63"]) == 27_281_728


@pytest.mark.parametrize("name", P3DS)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        network = build(name, width=64, stem_kernel=7)
        maps = network.eval()(torch.zeros(1, 1, 9, 64, 64))
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == count_by_hand(*LAYOUTS[name])
    assert tuple(m.shape[1] for m in maps) == network.out_channels


def test_kinds_follow_each_other_through_the_whole_network() -> None:
    assert "".join(block.kind for block in blocks_of(build("p3d18"))) == "ABCABCAB"
    assert "".join(block.kind for block in blocks_of(build("p3d63"))) == "ABCABCABCABCABCA"


def test_in_kind_b_both_convolutions_take_the_blocks_input() -> None:
    first_of_layer3 = blocks_of(build("p3d18"))[4]
    assert first_of_layer3.kind == "B"
    assert first_of_layer3.conv1.in_channels == first_of_layer3.conv2.in_channels == 8
    assert first_of_layer3.conv2.out_channels == 16


def test_kernels_see_a_slice_or_go_through_the_slices() -> None:
    for name in NAMES:
        network = build(name, stem_kernel=5)
        assert network.conv1.kernel_size == (1, 5, 5)
        kernels = {
            module.kernel_size
            for layer in network.stages
            for module in layer.modules()
            if isinstance(module, nn.Conv3d)
        }
        assert kernels <= {(1, 3, 3), (3, 1, 1), (1, 1, 1)}


def test_state_dict_names() -> None:
    names = set(build("p3d63", norm="batch").state_dict())
    assert {"conv1.weight", "norm1.running_mean", "layer1.0.conv4.weight"} <= names
    assert {"layer4.2.norm4.bias", "layer1.0.downsample.0.weight"} <= names
    basic = set(build("p3d18").state_dict())
    assert "layer1.0.downsample.0.weight" not in basic
    assert "layer2.0.downsample.1.weight" in basic


@pytest.mark.parametrize("kind", ["A", "B", "C"])
@pytest.mark.parametrize("block_class", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 1, 1), (2, 2, 2), (1, 2, 3)])
def test_every_kind_steps_on_every_axis(
    kind: str, block_class: type[BasicBlock] | type[Bottleneck], stride: tuple[int, int, int]
) -> None:
    architecture = Architecture(name="p3d18", norm="group")
    block = block_class(architecture, 6, 4, kind)  # type: ignore[arg-type]
    block.set_steps(stride=stride, dilation=(2, 1, 2))
    size = (7, 8, 9)
    out = block(torch.randn(2, 6, *size))
    expected = tuple(math.ceil(n / step) for n, step in zip(size, stride, strict=True))
    assert out.shape == (2, 4 * block.expansion, *expected)


@pytest.mark.parametrize("name", NAMES)
def test_no_slice_is_passed_over_where_pooling_and_stages_stride_depth(name: str) -> None:
    geometry = Geometry(
        stem_stride=(1, 2, 2),
        pool_stride=(2, 2, 2),
        stage_strides=(ONES, (2, 1, 1), (2, 1, 1), (2, 1, 1)),
    )
    network = build(name, geometry).double()
    volume = torch.randn(1, 1, 17, 9, 9, dtype=torch.float64, requires_grad=True)
    network(volume)[-1].square().sum().backward()
    assert volume.grad is not None
    assert (volume.grad.abs().sum(dim=(0, 1, 3, 4)) > 0).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_promised_sizes(name: str, geometry: str) -> None:
    network = build(name, geometry).eval()
    size = tuple(length + 1 for length in network.geometry.smallest_size())
    with torch.no_grad():
        maps = network(torch.randn(1, 1, *size))
    for feature_map, stride in zip(maps, network.strides, strict=True):
        assert tuple(feature_map.shape[2:]) == tuple(
            math.ceil(length / step) for length, step in zip(size, stride, strict=True)
        )


def test_depth_is_not_strided_unless_asked_for() -> None:
    architecture = Architecture(name="p3d63")
    assert P3D.default_geometry(architecture).strides[-1] == (1, 32, 32)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_changes_nothing_but_memory(name: str, norm: str) -> None:
    plain = build(name, norm=norm).double()
    frugal = build(name, norm=norm, checkpointing=True).double()
    frugal.load_state_dict(copy.deepcopy(plain.state_dict()))
    volume = torch.randn(2, 1, 3, 12, 12, dtype=torch.float64)
    for network in (plain, frugal):
        network(volume)[-1].square().sum().backward()
    for (key, ours), theirs in zip(frugal.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=key)
    torch.testing.assert_close(frugal.state_dict(), plain.state_dict())


def test_bottlenecks_can_start_as_their_shortcuts() -> None:
    network = build("p3d63", zero_init_residual=True).double()
    last = blocks_of(network)[-1]
    volume = torch.randn(1, 128, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(last(volume), volume.relu())
    with pytest.raises(ConfigError, match="p3d18 cannot start with zero_init_residual"):
        build("p3d18", zero_init_residual=True)


def test_shortcut_a_needs_no_parameters() -> None:
    network = build("p3d63", "volume", shortcut="A")
    assert not any("downsample" in name for name in network.state_dict())
    assert network(torch.randn(2, 1, 40, 40, 40))[-1].shape == (2, 128, 2, 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "p3d19"}, "'p3d19'; known: p3d18, p3d18_bottleneck, p3d34, p3d63, p3d131"),
        ({"num_slices": 9}, "p3d18 has no group transform; mp3d18 is"),
        ({"ndim": 2}, "ndim=2"),
        ({"convolution": "acs"}, "convolution='acs'"),
        ({"project_first": True}, "project_first=True"),
        ({"stages": ({"channels": 8, "blocks": 1},)}, "stages="),
    ],
)
def test_what_the_family_does_not_have_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**{"name": "p3d18", **change})  # type: ignore[arg-type]


def test_wrong_input_and_geometry_are_refused() -> None:
    network = build()
    with pytest.raises(DataError, match=r"p3d18 takes \(batch, 1, depth, height, width\)"):
        network(torch.zeros(1, 3, 3, 8, 8))
    with pytest.raises(ConfigError, match="p3d18 has 4 stages and the geometry 2"):
        network.geometry = Geometry(stage_strides=(ONES, ONES))
