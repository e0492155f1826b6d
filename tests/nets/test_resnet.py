"""What ResNets alone have; what all backbones share is in tests/contracts."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import AXIS_ORDERS, GEOMETRIES, ONES, Geometry, named_geometry
from voxlift.lifting.acs import ACSConv
from voxlift.lifting.image_to_volume import lift
from voxlift.nets.layers import set_steps
from voxlift.nets.resnet import BasicBlock, Bottleneck, ResNet
from voxlift.training.hardware import prepare_memory_format


def build(
    name: str = "resnet10",
    geometry: str | Geometry = "small",
    *,
    zero_init_residual: bool = False,
    checkpointing: bool = False,
    **architecture: object,
) -> ResNet:
    fields = {"name": name, "width": 4, "stem_kernel": 3, **architecture}
    return ResNet(
        Architecture.model_validate(fields),
        named_geometry(geometry),
        zero_init_residual=zero_init_residual,
        checkpointing=checkpointing,
    )


def block_of(network: ResNet, name: str) -> BasicBlock | Bottleneck:
    block = network.get_submodule(name)
    assert isinstance(block, BasicBlock | Bottleneck)
    return block


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 33_160_000),
        ("resnet34", 63_469_632),
        ("resnet50", 46_155_072),
        ("resnet101", 85_201_216),
    ],
)
def test_parameter_counts_of_the_paper(name: str, count: int) -> None:
    with torch.device("meta"):
        network = build(name, width=64, stem_kernel=7)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_stage_shapes_of_the_paper() -> None:
    # A quarter of the width has a quarter of the channels; the sizes are the paper's.
    network = build("resnet18", "pretrain", width=4, stem_kernel=7).eval()
    with torch.no_grad():
        maps = network(torch.zeros(1, 1, 3, 224, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (4, 3, 112, 112),
        (4, 3, 56, 56),
        (8, 3, 28, 28),
        (16, 3, 14, 14),
        (32, 3, 7, 7),
    ]
    with torch.device("meta"):
        wide = build("resnet18", "pretrain", width=64, stem_kernel=7)
        shapes = [tuple(m.shape[1:]) for m in wide(torch.zeros(1, 1, 3, 224, 224))[1:]]
    assert shapes == [(64, 3, 56, 56), (128, 3, 28, 28), (256, 3, 14, 14), (512, 3, 7, 7)]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_planar_twin_computes_what_torchvision_does(name: str) -> None:
    reference = torchvision.models.get_model(name, weights=None, num_classes=2).eval()
    twin = build(name, "pretrain", ndim=2, in_channels=3, width=64, stem_kernel=7).eval()
    tensors = {
        key.replace("bn", "norm"): value
        for key, value in reference.state_dict().items()
        if not key.startswith("fc.")
    }
    twin.load_state_dict(tensors)
    image = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        stem = reference.relu(reference.bn1(reference.conv1(image)))
        maps = [stem, reference.layer1(reference.maxpool(stem))]
        maps += [reference.layer2(maps[-1])]
        maps += [reference.layer3(maps[-1])]
        maps += [reference.layer4(maps[-1])]
        for ours, theirs in zip(twin(image), maps, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_state_dict_names() -> None:
    names = list(build("resnet50").state_dict())
    assert names[0] == "conv1.weight"
    assert "norm1.running_mean" in names
    assert "layer1.0.downsample.0.weight" in names
    assert "layer4.2.conv3.weight" in names
    assert "layer2.1.norm3.num_batches_tracked" in names
    assert not any(
        ".bias" in name and "norm" not in name and "downsample" not in name for name in names
    )


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match="'resnet9'; known: resnet10, resnet18"):
        build("resnet9")


@pytest.mark.parametrize("stem_kernel", [3, 5, 7])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_folded_stem_equals_the_convolution(stem_kernel: int, axis: int) -> None:
    network = build(stem_kernel=stem_kernel).double()
    size = [8, 9, 10]
    size[axis] = 3
    volume = torch.randn(2, 1, *size, dtype=torch.float64)
    assert network._thin_axis(volume) == axis
    torch.testing.assert_close(
        network.convolve_stem(volume), network.conv1(volume), rtol=1e-12, atol=1e-12
    )


def test_a_strided_thin_axis_is_not_folded() -> None:
    network = build(geometry=Geometry(stem_stride=(2, 1, 1)))
    assert network._thin_axis(torch.zeros(1, 1, 3, 8, 8)) is None
    assert network(torch.randn(1, 1, 3, 8, 8))[0].shape == (1, 4, 2, 8, 8)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_maps_lie_in_memory_as_the_weights_do(name: str, channels_last: bool) -> None:
    network = build(name, "thumbnail")
    if channels_last:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for stem in (
        network(torch.randn(2, 1, 3, 8, 8))[0],
        network.convolve_stem(torch.randn(2, 1, 3, 8, 8)),
    ):
        assert stem.is_contiguous(memory_format=torch.channels_last_3d) == channels_last
        assert stem.is_contiguous() != channels_last


@pytest.mark.parametrize("order", AXIS_ORDERS)
def test_transposed_volumes_give_transposed_maps(order: tuple[int, int, int]) -> None:
    """With its kernels transposed alike, the network does not know how a volume lies."""
    geometry = Geometry(
        stem_stride=(1, 2, 1),
        pool_stride=(1, 1, 2),
        stage_strides=((1, 1, 1), (1, 2, 2), (2, 1, 1), (1, 1, 2)),
        dilations=((1, 1, 1), (1, 1, 1), (1, 1, 2), (1, 2, 1)),
    )
    network = build("resnet18", geometry).double().eval()
    turned = build("resnet18", geometry.transposed(order)).double().eval()
    axes = (0, 1, *(2 + axis for axis in order))
    turned.load_state_dict(
        {k: t.permute(axes) if t.ndim == 5 else t for k, t in network.state_dict().items()}
    )
    volume = torch.randn(1, 1, 3, 12, 17, dtype=torch.float64)
    for plain, transposed in zip(network(volume), turned(volume.permute(axes)), strict=True):
        torch.testing.assert_close(transposed, plain.permute(axes), rtol=1e-10, atol=1e-10)


def gradient_reaches(network: ResNet, volume: Tensor) -> Tensor:
    volume = volume.clone().requires_grad_()
    network(volume)[-1].square().sum().backward()
    assert volume.grad is not None
    return volume.grad


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_shortcut_a_has_no_parameters_and_keeps_the_gradient(name: str) -> None:
    network = build(name, shortcut="A")
    assert not any("downsample" in key for key in network.state_dict())
    volume = torch.randn(2, 1, 8, 8, 8)
    # Where every residual branch is cut, all that is left comes through the shortcuts.
    for block in network.modules():
        for last in ("norm2", "norm3"):
            norm = getattr(block, last, None)
            if isinstance(norm, nn.BatchNorm3d):
                nn.init.zeros_(norm.weight)
    maps = network(volume)
    first = network.out_channels[1]
    torch.testing.assert_close(maps[2][:, :first], maps[1][:, :, ::2, ::2, ::2], rtol=0, atol=0)
    assert maps[-1][:, network.out_channels[0] :].count_nonzero() == 0
    assert gradient_reaches(network, volume).abs().sum() > 0
    weight = network.conv1.weight.grad
    assert weight is not None
    assert weight.abs().sum() > 0


def test_identity_shortcuts_that_meet_a_stride_are_subsampled() -> None:
    # The first stage keeps the channels, so that its shortcut has no parameters.
    geometry = Geometry(stage_strides=((2, 2, 2), ONES, ONES, ONES))
    block = block_of(build(geometry=geometry), "layer1.0")
    nn.init.zeros_(block.get_parameter("norm2.weight"))
    volume = torch.randn(1, 4, 6, 6, 6).relu()
    torch.testing.assert_close(block(volume), volume[:, :, ::2, ::2, ::2], rtol=0, atol=0)


def test_zero_init_starts_each_block_as_its_shortcut() -> None:
    for name in ("resnet18", "resnet50"):
        network = build(name, zero_init_residual=True)
        volume = torch.randn(1, network.out_channels[2], 4, 4, 4).relu()
        torch.testing.assert_close(block_of(network, "layer2.1")(volume), volume)
        assert build(name).get_parameter("layer2.1.norm2.weight").min() == 1


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_checkpointing_changes_nothing_but_memory(norm: str) -> None:
    plain = build("resnet18", "thumbnail", norm=norm).double()
    saving = build("resnet18", "thumbnail", norm=norm, checkpointing=True).double()
    saving.load_state_dict(plain.state_dict())
    photographs = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    losses = []
    for network in (plain, saving):
        for _ in range(2):
            loss = network(lift(photographs))[-1].square().mean()
            loss.backward()
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(dict(saving.named_buffers()), dict(plain.named_buffers()))


def test_checkpointing_is_off_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(checkpointing=True).eval()
    monkeypatch.setattr("voxlift.nets.checkpointing.checkpoint", None)
    network(torch.randn(1, 1, 8, 8, 8))
    network.train()
    with torch.no_grad():
        network(torch.randn(2, 1, 8, 8, 8))


@pytest.mark.parametrize("stem_kernel", [3, 5, 7])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bf16_gradient_of_the_stem_is_finite_and_right(stem_kernel: int, axis: int) -> None:
    order = AXIS_ORDERS[[0, 2, 4][axis]]
    geometry = named_geometry("thumbnail").transposed(order)
    network = build(geometry=geometry, stem_kernel=stem_kernel)
    volume = torch.randn(4, 1, 3, 16, 16).permute(0, 1, *(2 + a for a in order))
    gradients = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = network(volume)[0].float().square().mean()
        loss.backward()
        assert network.conv1.weight.grad is not None
        gradients.append(network.conv1.weight.grad.clone())
    exact, rounded = gradients
    assert torch.isfinite(rounded).all()
    assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_channels_and_dimensions_are_checked() -> None:
    network = build()
    for shape in ((1, 3, 8, 8, 8), (1, 1, 8, 8), (1, 8, 8, 8)):
        with pytest.raises(DataError, match=r"takes \(batch, 1, depth, height, width\)"):
            network(torch.zeros(shape))
    with pytest.raises(DataError, match=r"takes \(batch, 3, height, width\).*voxlift\.lift"):
        build(ndim=2, in_channels=3)(torch.zeros(1, 1, 3, 8, 8))


def test_set_steps_reaches_every_block() -> None:
    network = build("resnet50", "medicalnet")
    assert block_of(network, "layer4.1").conv2.dilation == (4, 4, 4)
    assert block_of(network, "layer2.0").conv2.stride == (2, 2, 2)
    assert block_of(network, "layer2.0").conv1.stride == (1, 1, 1)
    assert block_of(network, "layer2.1").conv2.stride == (1, 1, 1)
    set_steps(network.conv1, stride=(1, 1, 1))
    network.geometry = named_geometry("medicalnet")
    assert network.conv1.stride == (2, 2, 2)


KINDS = ("acs", "planar")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_kernels_made_of_planar_ones(kind: str, name: str) -> None:
    network, twin = build(name, convolution=kind), build(name, ndim=2)
    for key, tensor in twin.state_dict().items():
        ours = network.state_dict()[key]
        planar = ours[:, :, 0] if kind == "planar" and tensor.ndim == 4 else ours
        assert planar.shape == tensor.shape, key
    assert len(network.state_dict()) == len(twin.state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry_fits_every_kind_of_kernels(kind: str, geometry: str) -> None:
    network = build(convolution=kind).eval()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.geometry = named_geometry(geometry)
    full = build(geometry=geometry).eval()
    volume = torch.randn(1, 1, 18, 33, 34)
    with torch.no_grad():
        shapes = [m.shape for m in network(volume)]
        assert shapes == [m.shape for m in full(volume)]
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_acs_is_a_full_network_whose_kernels_lie_in_planes() -> None:
    network = build("resnet18", "medicalnet", convolution="acs").double().eval()
    full = build("resnet18", "medicalnet").double().eval()
    state = dict(network.state_dict())
    for name, module in network.named_modules():
        if isinstance(module, ACSConv):
            state[f"{name}.weight"] = module.cubic_kernel()
    full.load_state_dict(state)
    volume = torch.randn(1, 1, 9, 10, 11, dtype=torch.float64)
    for ours, theirs in zip(network(volume), full(volume), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planar_stems_are_folded_and_acs_stems_are_not(axis: int) -> None:
    size = [8, 9, 10]
    size[axis] = 3
    volume = torch.randn(2, 1, *size, dtype=torch.float64)
    planar = build(convolution="planar", stem_kernel=5).double()
    assert planar._thin_axis(volume) == axis
    torch.testing.assert_close(
        planar.convolve_stem(volume), planar.conv1(volume), rtol=1e-12, atol=1e-12
    )
    assert build(convolution="acs")._thin_axis(volume) is None


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_kernels_train_in_both_memory_formats(kind: str) -> None:
    plain = build(geometry="thumbnail", convolution=kind)
    last = build(geometry="thumbnail", convolution=kind)
    last.load_state_dict(plain.state_dict())
    prepare_memory_format(last, "cpu")
    volume = torch.randn(2, 1, 3, 16, 16)
    for network in (plain, last):
        network(volume)[-1].square().mean().backward()
    for ours, theirs in zip(last.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_slices_of_a_planar_network_never_meet() -> None:
    network = build("resnet18", "pretrain", convolution="planar").eval()
    volume = torch.randn(1, 1, 4, 34, 34)
    other = volume.clone()
    other[:, :, 2] += 1
    for before, after in zip(network(volume), network(other), strict=True):
        assert (before != after).flatten(3).any(3).any(1).tolist() == [[False, False, True, False]]
