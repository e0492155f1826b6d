"""Files of the MP3D project, against its function written out in plain torch."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from voxlift.core.errors import ConfigError, WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import create_backbone
from voxlift.nets.p3d import P3D
from voxlift.nets.slice_encoder import MP3D
from voxlift.weights.file import WeightFile, read_weight_file
from voxlift.weights.foreign.mp3d import MP3DFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.load import load_weights

Tensors = dict[str, Tensor]
DEPTHS = {
    "basic": (2, 2, 2, 2),
    "basic 34": (3, 4, 6, 3),
    "bottleneck 18": (2, 2, 2, 2),
    "bottleneck": (3, 4, 6, 3),
    "bottleneck 131": (3, 4, 23, 3),
}
OURS = {
    "basic": "mp3d18",
    "basic 34": "mp3d34",
    "bottleneck 18": "mp3d18_bottleneck",
    "bottleneck": "mp3d63",
    "bottleneck 131": "mp3d131",
}
WIDTH = 8


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "mp3d", MP3DFormat())


class Writer:
    """The tensors of a network in the file's layout, with random numbers."""

    def __init__(self, norm: str) -> None:
        self.norm = norm
        self.tensors: Tensors = {}

    def conv(self, name: str, *shape: int) -> None:
        fan_in = math.prod(shape[1:])
        self.tensors[f"{name}.weight"] = torch.randn(shape) * (2 / fan_in) ** 0.5

    def norms(self, name: str, channels: int) -> None:
        self.tensors[f"{name}.weight"] = torch.rand(channels) + 0.5
        self.tensors[f"{name}.bias"] = torch.randn(channels) * 0.3
        if self.norm == "batch":
            self.tensors[f"{name}.running_mean"] = torch.randn(channels) * 0.3
            self.tensors[f"{name}.running_var"] = torch.rand(channels) + 0.5
            self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)


def make_file(kind: str, *, norm: str = "group", transform: str | None = "groupconv") -> Tensors:
    """Write down a backbone: four convolutions a block, whatever its kind."""
    writer = Writer(norm)
    writer.conv("conv1_custom", WIDTH, 1, 1, 7, 7)
    writer.norms("norm1", WIDTH)
    before, index = WIDTH, 0
    for stage, depth in enumerate(DEPTHS[kind]):
        middle = WIDTH * 2**stage
        after = middle * (4 if "bottleneck" in kind else 1)
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            if "bottleneck" in kind:
                writer.conv(f"{name}.conv1", middle, before, 1, 1, 1)
                writer.conv(f"{name}.conv2", middle, middle, 1, 3, 3)
                writer.conv(f"{name}.conv3", middle, middle, 3, 1, 1)
                writer.conv(f"{name}.conv4", after, middle, 1, 1, 1)
            else:
                writer.conv(f"{name}.conv1", middle, before, 1, 3, 3)
                writer.conv(f"{name}.conv2", middle, before if index % 3 == 1 else middle, 3, 1, 1)
                writer.conv(f"{name}.conv3", middle, middle, 1, 3, 3)
                writer.conv(f"{name}.conv4", middle, middle, 3, 1, 1)
            for i, channels in enumerate((middle, middle, middle, after), start=1):
                writer.norms(f"{name}.norm_{i}", channels)
            if before != after:
                writer.conv(f"{name}.downsample.0", after, before, 1, 1, 1)
                writer.norms(f"{name}.downsample.1", after)
            before, index = after, index + 1
        if transform == "groupconv":
            writer.conv(f"groupconv_{stage + 1}", after, 3, 1, 1)
        elif transform == "conv3d_all":
            writer.conv(f"conv3d_all_{stage + 1}", after, after, 3, 1, 1)
    return writer.tensors


class Reference:
    """The function of such a file.

    Without a transform it is the project's P3D (`mmdet/models/backbones/p3d.py`): the pooling
    behind the stem sees one slice, and others behind the stages leave 5, 3 and 1 of 9.
    """

    def __init__(self, tensors: Tensors, kind: str, *, pooled: bool) -> None:
        self.tensors = {name: t.double() for name, t in tensors.items()}
        self.kind, self.pooled = kind, pooled

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        padding = [edge // 2 for edge in weight.shape[2:]]
        return functional.conv3d(x, weight, stride=(1, stride, stride), padding=padding)

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        if f"{name}.running_mean" not in self.tensors:
            return functional.group_norm(x, math.gcd(32, len(weight)), weight, bias)
        mean, variance = (self.tensors[f"{name}.running_{part}"] for part in ("mean", "var"))
        return functional.batch_norm(x, mean, variance, weight, bias)

    def unit(self, block: str, number: int, x: Tensor, stride: int = 1) -> Tensor:
        """Convolve, normalise, rectify."""
        x = self.conv(f"{block}.conv{number}", x, stride)
        return self.norm(f"{block}.norm_{number}", x).clamp(min=0)

    def pair(self, block: str, first: int, index: int, x: Tensor, stride: int = 1) -> Tensor:
        second = first + 1
        flat = self.unit(block, first, x, stride)
        if index % 3 == 0:
            return self.unit(block, second, flat)
        if index % 3 == 1:
            return flat + self.unit(block, second, x, stride)
        return flat + self.unit(block, second, flat)

    def block(self, name: str, index: int, x: Tensor, stride: int) -> Tensor:
        if "basic" in self.kind:
            out = self.pair(name, 3, index, self.pair(name, 1, index, x, stride))
        else:
            out = self.pair(name, 2, index, self.unit(name, 1, x, stride))
            out = self.norm(f"{name}.norm_4", self.conv(f"{name}.conv4", out))
        if f"{name}.downsample.0.weight" in self.tensors:
            x = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride))
        return (out + x).clamp(min=0)

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        x = self.norm("norm1", self.conv("conv1_custom", x, stride=2)).clamp(min=0)
        if self.pooled:
            slices = [functional.max_pool2d(each, 3, stride=2, padding=1) for each in x.unbind(2)]
            x = torch.stack(slices, 2)
        else:
            x = functional.max_pool3d(x, 3, stride=(1, 2, 2), padding=1)
        index = 0
        for stage, depth in enumerate(DEPTHS[self.kind], start=1):
            for block in range(depth):
                stride = 2 if stage > 1 and block == 0 else 1
                x = self.block(f"layer{stage}.{block}", index, x, stride)
                index += 1
            x = self.pool(stage, x)
            yield self.plane(stage, x)

    def pool(self, stage: int, x: Tensor) -> Tensor:
        """Take the larger of three neighbours: of every second slice, or of all but the outer."""
        depth = x.shape[2]
        if not self.pooled or stage == 4:
            return x
        middles = range(1, depth - 1) if stage == 3 else range(0, depth, 2)
        return torch.stack([x[:, :, max(i - 1, 0) : i + 2].amax(2) for i in middles], 2)

    def plane(self, stage: int, x: Tensor) -> Tensor:
        if f"groupconv_{stage}.weight" in self.tensors:
            weight = self.tensors[f"groupconv_{stage}.weight"]
            batch, channels, depth, height, width = x.shape
            stacked = x.reshape(batch, channels * depth, height, width)
            return functional.conv2d(stacked, weight, groups=channels)
        if f"conv3d_all_{stage}.weight" in self.tensors:
            return functional.conv3d(x, self.tensors[f"conv3d_all_{stage}.weight"])[:, :, 0]
        return x[:, :, x.shape[2] // 2]


def as_detector(tensors: Tensors, prefix: str = "") -> dict[str, object]:
    """Put a backbone into the checkpoint of a detector."""
    state = {f"{prefix}backbone.{name}": tensor for name, tensor in tensors.items()}
    for head in ("neck.fpn_convs.0.conv", "rpn_head.rpn_cls", "roi_head.bbox_head.fc_cls"):
        state[f"{prefix}{head}.weight"] = torch.randn(4, 4)
    return {"meta": {"epoch": 12}, "state_dict": state}


def read(folder: Path, content: object) -> WeightFile:
    path = folder / "detector.pth"
    torch.save(content, path)
    return read_weight_file(path)


def build(file: WeightFile) -> Encoder:
    return MP3D(file.header.architecture, file.header.geometry)


def check_maps(network: Encoder, reference: Reference, num_slices: int) -> None:
    volume = torch.randn(1, 1, num_slices, 65, 70, dtype=torch.float64)
    with torch.no_grad():
        for ours, theirs in zip(network.double().eval()(volume), reference(volume), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("transform", ["groupconv", "conv3d_all", None])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_same_weights_same_maps(
    tmp_path: Path, kind: str, transform: str | None, norm: str
) -> None:
    tensors = make_file(kind, norm=norm, transform=transform)
    file = read(tmp_path, as_detector(tensors))
    assert file.format == "mp3d"
    assert file.header.architecture.name == OURS[kind]
    assert file.header.architecture.norm == norm
    num_slices = 3 if transform else 9
    assert file.header.architecture.num_slices == num_slices
    network = build(file)
    report = load_weights(network, file)
    assert len(report.exact) == len(network.state_dict()) == len(tensors)
    assert report.coverage == 1
    check_maps(network, Reference(tensors, kind, pooled=transform is None), num_slices)


@pytest.mark.parametrize("kind", ["basic 34", "bottleneck 18", "bottleneck 131"])
def test_the_other_networks_of_the_family(tmp_path: Path, kind: str) -> None:
    tensors = make_file(kind, transform=None)
    file = read(tmp_path, as_detector(tensors))
    assert file.header.architecture.name == OURS[kind]
    network = build(file)
    assert len(load_weights(network, file).exact) == len(tensors)
    check_maps(network, Reference(tensors, kind, pooled=True), 9)


@pytest.mark.parametrize("num_slices", [10, 13])
def test_more_slices_are_pooled_likewise(tmp_path: Path, num_slices: int) -> None:
    tensors = make_file("basic", transform=None)
    file = read(tmp_path, as_detector(tensors))
    network = create_backbone(weights=file, num_slices=num_slices)
    check_maps(network, Reference(tensors, "basic", pooled=True), num_slices)


def test_a_network_without_pooling_is_declared_by_its_transform(tmp_path: Path) -> None:
    tensors = make_file("basic", transform=None)
    file = read(tmp_path, as_detector(tensors))
    assert "give slice_transform='center'" in file.notes[0]
    network = create_backbone(weights=file, num_slices=3, slice_transform="center")
    check_maps(network, Reference(tensors, "basic", pooled=False), 3)
    volumes = create_backbone("p3d18", weights=file, num_slices=0)
    assert isinstance(volumes, P3D)
    assert len(volumes(torch.zeros(1, 1, 3, 33, 33))) == 5


@pytest.mark.parametrize(("network", "pooled"), [("P3D", True), ("modified_P3D", False)])
def test_the_configuration_of_a_training_file_decides(
    tmp_path: Path, network: str, pooled: bool
) -> None:
    tensors = make_file("basic", transform=None)
    content = as_detector(tensors)
    content["meta"] = {"epoch": 12, "config": f"model = dict(backbone=dict(type='{network}'))"}
    file = read(tmp_path, content)
    assert file.header.architecture.slice_transform == ("pool" if pooled else "center")
    backbone = create_backbone(weights=file)
    check_maps(backbone, Reference(tensors, "basic", pooled=pooled), 9)


def test_a_pooled_network_starts_from_one_with_transforms(tmp_path: Path) -> None:
    tensors = make_file("basic")
    file = read(tmp_path, as_detector(tensors))
    network = create_backbone(weights=file, num_slices=9, slice_transform="pool")
    bare = {name: t for name, t in tensors.items() if not name.startswith("groupconv")}
    check_maps(network, Reference(bare, "basic", pooled=True), 9)


@pytest.mark.parametrize("layout", ["bare", "flat", "module", "head"])
def test_wrapped_or_bare_it_is_the_same_network(tmp_path: Path, layout: str) -> None:
    tensors = make_file("basic")
    contents: dict[str, object] = {
        "bare": tensors,
        "flat": as_detector(tensors)["state_dict"],
        "module": as_detector(tensors, "module."),
        "head": {"state_dict": {**tensors, "neck.a.weight": torch.zeros(2)}},
    }
    file = read(tmp_path, contents[layout])
    torch.testing.assert_close(file.tensors["conv1.weight"], tensors["conv1_custom.weight"])
    assert len(file.tensors) == len(tensors)
    load_weights(build(file), file)
    expected = {"bare": 0, "head": 1}.get(layout, 3)
    assert len(file.ignored) == expected
    assert all("of the file's detector: " in why for why in file.ignored.values())


def test_what_is_known_of_the_file(tmp_path: Path) -> None:
    header = read(tmp_path, as_detector(make_file("bottleneck"))).header
    assert header.architecture.num_slices == 3
    assert header.architecture.width == WIDTH
    assert header.architecture.stem_kernel == 7
    assert header.geometry == named_geometry("pretrain")
    assert header.preprocessing is not None
    assert (header.preprocessing.mean, header.preprocessing.std) == (123.675, 58.395)
    assert header.licence is None
    assert "2012.08770" in str(header.citation)
    plain = read(tmp_path, make_file("basic", transform=None))
    assert plain.header.architecture.slice_transform == "pool"
    assert "without a group transform" in plain.notes[0]


def test_a_file_of_three_slices_loads_into_nine(tmp_path: Path) -> None:
    file = read(tmp_path, as_detector(make_file("basic")))
    architecture = file.header.architecture.model_copy(update={"num_slices": 9})
    network = MP3D(architecture, file.header.geometry)
    report = load_weights(network, file)
    assert "rebuilt for 9" in report.adapted["group_transform.4.weight"]
    assert network(torch.randn(1, 1, 9, 33, 33))[0].shape == (1, WIDTH, 9, 9)
    without = read(tmp_path, make_file("basic", transform=None))
    assert (
        "no group transform" in load_weights(network, without).adapted["group_transform.1.weight"]
    )
    with pytest.raises(ConfigError, match=r"leaves no slice of 3.*num_slices=9 or more"):
        create_backbone(weights=without, num_slices=3)


def test_missing_counters_are_no_loss(tmp_path: Path) -> None:
    tensors = make_file("basic", norm="batch")
    kept = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    file = read(tmp_path, kept)
    report = load_weights(build(file), file)
    assert all(name.endswith("num_batches_tracked") for name in report.adapted)


def test_other_networks_are_refused_by_name(tmp_path: Path) -> None:
    def refused(change: Tensors, message: str, *, without: str = "nothing") -> None:
        tensors = {**make_file("basic"), **change}
        kept = {name: t for name, t in tensors.items() if not name.startswith(without)}
        with pytest.raises(WeightsError, match=message):
            read(tmp_path, kept)

    refused({"conv1_custom.weight": torch.zeros(8, 1, 3, 7, 7)}, r"conv1_custom.*\(8, 1, 3, 7, 7\)")
    refused({}, "2-2-2-0 basic blocks.*known are p3d18, p3d18_bottleneck", without="layer4")
    refused({}, r"layer2\.0\.norm_3\.bias is missing.*\(16,\)", without="layer2.0.norm_3.bias")
    refused(
        {"layer3.0.conv2.weight": torch.zeros(32, 32, 3, 1, 1)},
        r"layer3\.0\.conv2\.weight has the shape \(32, 32, 3, 1, 1\).*\(32, 16, 3, 1, 1\)",
    )
    refused({"fc.weight": torch.zeros(2, 64)}, r"a p3d18, but fc\.weight is there, which such")
    refused({}, r"groupconv_3\.weight is missing", without="groupconv_3")
    refused({"groupconv_2.weight": torch.zeros(16, 9, 1, 1)}, r"groupconv_2\.weight has the shape")


def test_p3d_networks_of_video_are_not_taken_for_these(tmp_path: Path) -> None:
    tensors = {name.replace("norm_", "bn"): t for name, t in make_file("bottleneck").items()}
    with pytest.raises(WeightsError, match="unknown layout"):
        read(tmp_path, tensors)
