"""2D ResNets under foreign names, made 3D by a load, against the 2D networks themselves."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.inflation import MODES, Mode
from voxlift.core.preprocessing import PHOTOGRAPH_MEAN, PHOTOGRAPH_STD
from voxlift.nets.resnet import ResNet
from voxlift.weights.file import WeightFile, read_weight_file, write_weight_file
from voxlift.weights.foreign.planar import PLANAR_FORMATS, UndeclaredPlanarFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.load import load_weights


@pytest.fixture(autouse=True)
def _formats(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode, known in PLANAR_FORMATS.items():
        monkeypatch.setitem(FORMATS, mode, known)
    monkeypatch.setitem(FORMATS, "2d", UndeclaredPlanarFormat())


def randomize(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features))
            module.running_var.copy_(0.5 + torch.rand(module.num_features))
            nn.init.normal_(module.weight, mean=1, std=0.2)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


class BasicNet(nn.Module):
    """A narrow 2D ResNet-10 under the names of torchvision, from its description."""

    def __init__(self, width: int = 6, edge: int = 7) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, edge, 2, edge // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for stage in range(4):
            before, after = width * 2 ** max(stage - 1, 0), width * 2**stage
            block = nn.ModuleDict(
                {
                    "conv1": nn.Conv2d(before, after, 3, 2 if stage else 1, 1, bias=False),
                    "bn1": nn.BatchNorm2d(after),
                    "conv2": nn.Conv2d(after, after, 3, 1, 1, bias=False),
                    "bn2": nn.BatchNorm2d(after),
                }
            )
            if stage:
                block["downsample"] = nn.Sequential(
                    nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after)
                )
            self.add_module(f"layer{stage + 1}", nn.ModuleList([block]))
        self.fc = nn.Linear(8 * width, 5)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the stem before pooling, and the four stages."""
        out = torch.relu(self.bn1(self.conv1(image)))
        maps = [out]
        out = nn.functional.max_pool2d(out, 3, 2, 1)
        for stage in (1, 2, 3, 4):
            block: Any = self.get_submodule(f"layer{stage}.0")
            inner = torch.relu(block["bn1"](block["conv1"](out)))
            inner = block["bn2"](block["conv2"](inner))
            out = torch.relu(inner + (block["downsample"](out) if "downsample" in block else out))
            maps.append(out)
        return maps


def save(network: nn.Module, folder: Path, *, prefix: str = "", wrapper: str = "") -> Path:
    tensors = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    if not wrapper:
        path = folder / "network.safetensors"
        safetensors.torch.save_file(tensors, path)
        return path
    path = folder / "network.pth"
    torch.save({wrapper: tensors, "epoch": 3}, path)
    return path


def load(file: WeightFile, *, in_channels: int = 3) -> tuple[ResNet, Any]:
    architecture = file.header.architecture.model_copy(update={"in_channels": in_channels})
    network = ResNet(architecture, file.header.geometry)
    return network, load_weights(network.eval(), file)


def close(ours: Tensor, theirs: Tensor) -> None:
    largest = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * largest)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("prefix", "wrapper"), [("", ""), ("module.", "state_dict")])
def test_parity_with_the_planar_network(
    mode: Mode, prefix: str, wrapper: str, tmp_path: Path
) -> None:
    planar = randomize(BasicNet())
    file = read_weight_file(save(planar, tmp_path, prefix=prefix, wrapper=wrapper), declared=mode)
    network, report = load(file)
    assert network.architecture == Architecture(
        name="resnet10", in_channels=3, width=6, convolution=MODES[mode]
    )
    assert report.is_complete
    assert report.coverage == 1
    assert set(report.ignored) == {f"{prefix}fc.weight", f"{prefix}fc.bias"}
    image = torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        theirs = planar(image)
        if mode == "acs":
            ours = network(image[:, :, None].repeat(1, 1, 5, 1, 1))
            # A third of the channels of the stem lies in the plane of the slices.
            close(ours[0][:, :2, 2], theirs[0][:, :2])
            assert [m.shape[1:2] + m.shape[3:] for m in ours] == [m.shape[1:] for m in theirs]
            return
        for our, their in zip(
            network(image[:, :, None].repeat(1, 1, 29, 1, 1)), theirs, strict=True
        ):
            close(our[:, :, 14], their)
        if mode == "2.5d":
            volume = torch.randn(1, 3, 2, 40, 48)
            for our, their in zip(network(volume), planar(volume[:, :, 1]), strict=True):
                close(our[:, :, 1], their)


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.resnet18(weights=None),
        lambda: torchvision.models.resnet50(weights=None),
        lambda: timm.create_model("resnet18", pretrained=False),
    ],
    ids=["torchvision resnet18", "torchvision resnet50", "timm resnet18"],
)
def test_parity_with_torchvision_and_timm(build: Any, tmp_path: Path) -> None:
    planar = randomize(build())
    network, report = load(read_weight_file(save(planar, tmp_path), declared="2.5d"))
    assert report.is_complete
    volume = torch.randn(1, 3, 2, 64, 64)
    with torch.no_grad():
        ours = network(volume)[-1]
        for number in range(2):
            out = volume[:, :, number]
            for name, part in planar.named_children():
                if name.startswith(("conv", "bn", "relu", "act", "maxpool", "layer")):
                    out = part(out)
            close(ours[:, :, number], out)


@pytest.mark.parametrize("mode", MODES)
def test_the_report_says_how_each_tensor_was_made(mode: Mode, tmp_path: Path) -> None:
    file = read_weight_file(save(BasicNet(), tmp_path), declared=mode)
    _, report = load(file)
    words = {"i3d": "repeated over 7", "i3d-center": "middle one of 7", "acs": "three planes"}
    assert words.get(mode, "one slice deep") in report.adapted["conv1.weight"]
    assert ("layer2.0.downsample.0.weight" in report.adapted) == (mode != "acs")
    assert "norm1.weight" in report.exact
    assert "red minus 123.675 over 58.395" in report.notes[0]
    preprocessing = file.header.preprocessing
    assert preprocessing is not None
    assert preprocessing.unit == "0-255"
    assert preprocessing.mean == pytest.approx(PHOTOGRAPH_MEAN)
    assert preprocessing.std == pytest.approx(PHOTOGRAPH_STD)
    assert file.header.geometry == named_geometry("pretrain")
    assert file.header.licence is None
    assert "2D resnet10" in str(file.header.provenance["source"])


@pytest.mark.parametrize("mode", MODES)
def test_one_channel_sums_the_colours(mode: Mode, tmp_path: Path) -> None:
    file = read_weight_file(save(randomize(BasicNet()), tmp_path), declared=mode)
    grey, report = load(file, in_channels=1)
    assert "3 input channels summed into one" in report.adapted["conv1.weight"]
    volume = torch.randn(1, 1, 3, 40, 40)
    with torch.no_grad():
        close(grey(volume)[0], load(file)[0](volume.expand(-1, 3, -1, -1, -1))[0])


@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_our_own_planar_twin(mode: Mode, with_head: bool, tmp_path: Path) -> None:
    architecture = Architecture(name="resnet10", ndim=2, in_channels=3, width=4, norm="group")
    twin = ResNet(architecture, named_geometry("thumbnail")).eval()
    tensors = twin.state_dict()
    head = None
    if with_head:
        tensors = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
        tensors["head.weight"] = torch.zeros(2, 32)
        head = HeadDescription(task="pretrain", num_classes=2)
    path = tmp_path / "twin.safetensors"
    header = WeightHeader(
        architecture=architecture,
        geometry=twin.geometry,
        head=head,
        provenance={"data": "pictures"},
        licence="CC0",
    )
    write_weight_file(path, tensors, header)
    file = read_weight_file(path, declared=mode)
    network, report = load(file)
    assert report.is_complete
    assert list(report.ignored) == (["head.weight"] if with_head else [])
    assert file.header.licence == "CC0"
    assert file.header.head is None
    assert file.header.provenance["data"] == "pictures"
    assert file.header.geometry == named_geometry("thumbnail")
    if mode == "2.5d":
        # Group norm sees all slices at once.
        image = torch.randn(1, 3, 12, 12)
        with torch.no_grad():
            maps = network(image[:, :, None].repeat(1, 1, 3, 1, 1))
            close(maps[-1][:, :, 1], twin(image)[-1])


def test_our_own_networks_for_volumes_are_refused(tmp_path: Path) -> None:
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3)
    network = ResNet(architecture, named_geometry("pretrain"))
    path = tmp_path / "volume.safetensors"
    header = WeightHeader(architecture=architecture, geometry=network.geometry)
    write_weight_file(path, network.state_dict(), header)
    with pytest.raises(WeightsError, match=r"3D resnet10; only 2D .*without acs:"):
        read_weight_file(path, declared="acs")


def test_without_a_mode_one_is_asked_for(tmp_path: Path) -> None:
    path = save(BasicNet(), tmp_path)
    with pytest.raises(WeightsError, match=r"2D ResNet.*i3d:.*i3d-center:.*acs:.*2\.5d:"):
        read_weight_file(path)


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.state_dict())


def timm_tensors(name: str) -> dict[str, Tensor]:
    return tensors_of(timm.create_model(name, pretrained=False))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: timm_tensors("resnet18d"), r"conv1\.0\.weight means a stem of three"),
        (lambda: timm_tensors("seresnet18"), r"layer1\.0\.se\.fc1\.bias is there"),
        (
            lambda: tensors_of(torchvision.models.resnext50_32x4d(weights=None)),
            r"layer1\.0\.conv1\.weight has the shape \(128, 64, 1, 1\), expected \(64, 64",
        ),
        (lambda: {"features.0.weight": torch.zeros(8, 3, 3, 3)}, r"features\.0\.weight means"),
        (lambda: {"something": torch.zeros(2)}, r"its tensors are something"),
        (
            lambda: {
                name: tensor
                for name, tensor in tensors_of(BasicNet()).items()
                if name != "layer3.0.bn2.bias"
            },
            r"layer3\.0\.bn2\.bias is missing",
        ),
        (
            lambda: tensors_of(BasicNet()) | {"layer1.0.conv2.weight": torch.zeros(6, 6, 5, 5)},
            r"layer1\.0\.conv2\.weight has the shape \(6, 6, 5, 5\), expected \(6, 6, 3, 3\)",
        ),
    ],
)
def test_other_networks_are_refused(make: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({name: t.contiguous() for name, t in make().items()}, path)
    with pytest.raises(WeightsError, match=message + r".*voxlift\.convert_2d"):
        read_weight_file(path, declared="i3d")


@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_what_is_3d_already_is_told_so(prefix: str, tmp_path: Path) -> None:
    # Its stems and blocks bear names that a ResNet-D has as well.
    video = torchvision.models.video.r3d_18(weights=None)
    ours = ResNet(Architecture(name="resnet10", width=4), named_geometry("pretrain"))
    for network in (video, ours):
        state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
        path = tmp_path / "r3d_18.pth"
        torch.save(state, path)
        with pytest.raises(WeightsError, match=r"is 3D already: .*Give it without acs:") as caught:
            read_weight_file(path, declared="acs")
        assert "ResNet-C" not in str(caught.value)


def test_a_stem_of_three_is_told_below_a_prefix_too(tmp_path: Path) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in timm_tensors("resnet18d").items()}
    torch.save({**state, "head.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"conv1\.0\.weight means a stem of three"):
        read_weight_file(tmp_path / "a.pth", declared="i3d")


def test_antialiased_networks_are_known_by_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "models--timm--resnetblur50.bt_in1k"
    folder.mkdir()
    with pytest.raises(WeightsError, match=r"resnetblur family.*anti-aliasing"):
        read_weight_file(save(BasicNet(), folder), declared="2.5d")
