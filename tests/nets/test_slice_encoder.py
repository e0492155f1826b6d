"""Encoders whose maps are planes: P3D and ResNet3D with a group transform."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.backbone import Backbone
from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.nets.classifier import Classifier
from voxlift.nets.factory import create_backbone
from voxlift.nets.group_transform import SliceStart
from voxlift.nets.p3d import P3D
from voxlift.nets.resnet import ResNet
from voxlift.nets.slice_encoder import MP3D, SliceEncoder, SliceResNet
from voxlift.weights.file import write_weight_file
from voxlift.weights.header import WeightHeader
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

FAMILIES = {"mp3d18": MP3D, "mp3d63": MP3D, "resnet10": SliceResNet, "resnet50": SliceResNet}


def architecture(name: str, **fields: object) -> Architecture:
    given = {"name": name, "width": 4, "stem_kernel": 3, "norm": "group", **fields}
    return Architecture.model_validate(given)


def build(
    name: str = "mp3d18",
    num_slices: int | None = 9,
    *,
    geometry: str | Geometry = "pretrain",
    slice_start: SliceStart = "center",
    **fields: Any,
) -> SliceEncoder:
    shape = architecture(name, num_slices=num_slices, **fields)
    family: Callable[..., SliceEncoder] = FAMILIES[name]
    return family(shape, named_geometry(geometry), slice_start=slice_start)


def randomize(network: nn.Module) -> None:
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)


@pytest.mark.parametrize(("name", "count"), [("mp3d18", 15_266_176), ("mp3d63", 27_316_288)])
def test_parameter_counts_of_the_paper(name: str, count: int) -> None:
    with torch.device("meta"):
        network = build(name, width=64, stem_kernel=7)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("name", FAMILIES)
def test_four_planes_with_the_promised_channels_and_sizes(name: str) -> None:
    network = build(name, 4).eval()
    assert isinstance(network, Backbone)
    with torch.no_grad():
        maps = network(torch.randn(2, 1, 4, 64, 96))
    assert network.strides == ((4, 4), (8, 8), (16, 16), (32, 32))
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, 64 // height, 96 // width)
        for channels, (height, width) in zip(network.out_channels, network.strides, strict=True)
    ]


@pytest.mark.parametrize(("name", "plain"), [("mp3d18", P3D), ("resnet10", ResNet)])
@pytest.mark.parametrize("start", ["center", "mean"])
def test_before_training_a_plane_is_the_middle_slice_or_the_mean(
    name: str, plain: type[P3D] | type[ResNet], start: SliceStart
) -> None:
    network = build(name, 5, slice_start=start).double().eval()
    encoder = plain(architecture(name.removeprefix("m")), network.geometry).double().eval()
    missing = encoder.load_state_dict(network.state_dict(), strict=False)
    assert not missing.missing_keys
    assert all(key.startswith("group_transform.") for key in missing.unexpected_keys)
    volume = torch.randn(1, 1, 5, 33, 33, dtype=torch.float64)
    for plane, whole in zip(network(volume), encoder(volume)[1:], strict=True):
        expected = whole[:, :, 2] if start == "center" else whole.mean(dim=2)
        torch.testing.assert_close(plane, expected)


@pytest.mark.parametrize("kind", ["group", "conv3d", "center", "pool"])
def test_every_kind_of_transform_learns(kind: str) -> None:
    network = build("mp3d18", 9, slice_transform=kind, geometry="thumbnail")
    maps = network(torch.randn(2, 1, 9, 16, 16))
    torch.stack([m.square().mean() for m in maps]).sum().backward()  # type: ignore[no-untyped-call]
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.count_nonzero() > 0, key
    weighed = any("group_transform" in key for key in network.state_dict())
    assert weighed == (kind in ("group", "conv3d"))


def test_slices_are_pooled_to_five_three_and_one() -> None:
    network = build("mp3d63", 9, slice_transform="pool", geometry="thumbnail").eval()
    volumes = network.volumes_from_stem(network.convolve_stem(torch.randn(1, 1, 9, 8, 8)))
    assert [volume.shape[2] for volume in volumes] == [5, 3, 1, 1]
    with pytest.raises(ConfigError, match=r"mp3d63.*'pool' leaves no slice of 8.*num_slices=9"):
        build("mp3d63", 8, slice_transform="pool")


def test_a_file_keeps_that_slices_are_pooled(tmp_path: Path) -> None:
    network = build("mp3d18", 9, slice_transform="pool").eval()
    again = create_backbone(weights=save_weights(network, tmp_path / "a.safetensors")).eval()
    assert again.architecture == network.architecture
    volume = torch.randn(1, 1, 9, 33, 33)
    torch.testing.assert_close(again(volume), network(volume))


def test_a_geometry_that_strides_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mp3d18 cannot stride depth.*strides it by 32.*pretr"):
        build(geometry="volume")
    network = build()
    with pytest.raises(ConfigError, match="strides it by 2"):
        network.geometry = Geometry(pool_stride=(2, 1, 1))
    assert network.geometry == SliceEncoder.default_geometry(network.architecture)


def test_slices_have_to_be_given_and_kept_to() -> None:
    with pytest.raises(ConfigError, match=r"mp3d18 turns slices into planes.*give num_slices"):
        build(num_slices=None)
    with pytest.raises(DataError, match=r"built for 9 slices and was given 3.*num_slices=3"):
        build()(torch.zeros(1, 1, 3, 33, 33))
    with pytest.raises(DataError, match=r"mp3d18 takes \(batch, 1, depth"):
        build()(torch.zeros(1, 2, 9, 33, 33))


def test_a_classifier_pools_planes_too() -> None:
    model = Classifier(build("resnet10", 3, geometry="thumbnail"), num_classes=2).eval()
    assert model(torch.randn(2, 1, 3, 16, 16)).shape == (2, 2)


@pytest.mark.parametrize(("kind", "start"), [("group", "center"), ("conv3d", "mean")])
@pytest.mark.parametrize("in_model", [False, True])
def test_weights_of_other_slices_load_and_the_report_says_what_was_rebuilt(
    tmp_path: Path, kind: str, start: SliceStart, in_model: bool
) -> None:
    trained = build("mp3d18", 3, slice_transform=kind)
    randomize(trained)
    path = save_weights(trained, tmp_path / "three.safetensors")
    nine = build("mp3d18", 9, slice_transform=kind, slice_start=start)
    fresh = {k: v.clone() for k, v in nine.state_dict().items() if "group" in k}
    randomize(nine)
    model = Classifier(nine, num_classes=2) if in_model else nine
    report = load_weights(model, path)
    prefix = "backbone." if in_model else ""
    assert list(report.adapted) == [f"{prefix}group_transform.{i}.weight" for i in (1, 2, 3, 4)]
    how = report.adapted[f"{prefix}group_transform.1.weight"]
    assert "for 3 slices in the file; rebuilt for 9" in how
    assert ("middle slice" if start == "center" else "mean of the slices") in how
    assert report.architecture == {"num_slices": "3 in the file, 9 in the model"}
    for key, tensor in nine.state_dict().items():
        expected = fresh[key] if key in fresh else trained.state_dict()[key]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


def test_weights_of_as_many_slices_load_as_they_are(tmp_path: Path) -> None:
    trained = build("resnet10", 3)
    randomize(trained)
    path = save_weights(trained, tmp_path / "three.safetensors")
    report = load_weights(other := build("resnet10", 3), path)
    assert not report.adapted
    torch.testing.assert_close(other.state_dict(), trained.state_dict())


def test_weights_without_a_transform_load_and_get_one(tmp_path: Path) -> None:
    plain = ResNet(architecture("resnet10"), named_geometry("pretrain"))
    path = save_weights(plain, tmp_path / "plain.safetensors")
    network = build("resnet10", 9)
    report = load_weights(network, path)
    assert len(report.adapted) == 4
    how = report.adapted["group_transform.2.weight"]
    assert how == "no group transform in the file; made for 9 slices to take the middle slice"
    with pytest.raises(WeightsError, match=r"unused: group_transform\.1\.weight"):
        load_weights(plain, save_weights(network, tmp_path / "nine.safetensors"))


def test_a_transform_that_is_damaged_or_of_another_kind_is_not_rebuilt(tmp_path: Path) -> None:
    network = build("mp3d18", 3)
    tensors = dict(network.state_dict())

    def loads(target: SliceEncoder, stored: dict[str, Tensor]) -> None:
        path = tmp_path / "file.safetensors"
        write_weight_file(
            path,
            stored,
            WeightHeader(architecture=network.architecture, geometry=network.geometry),
        )
        load_weights(target, path)

    loads(network, tensors)
    short = {key: t for key, t in tensors.items() if key != "group_transform.2.weight"}
    with pytest.raises(WeightsError, match=r"group_transform\.2\.weight \(not in the file\)"):
        loads(network, short)
    with pytest.raises(WeightsError, match=r"shape \(4, 3, 1, 1\) in the file, \(4, 4, 3, 1, 1\)"):
        loads(build("mp3d18", 3, slice_transform="conv3d"), tensors)
    with pytest.raises(WeightsError, match=r"unused: group_transform"):
        loads(build("mp3d18", 3, slice_transform="center"), tensors)
