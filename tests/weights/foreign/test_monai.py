"""MONAI's own networks are the reference: their maps, under their defaults and others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import resnet
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.inference.conversion import convert_weights
from voxlift.nets.factory import create_backbone
from voxlift.nets.resnet import ResNet
from voxlift.weights.container import Container
from voxlift.weights.file import WeightFile, read_weight_file
from voxlift.weights.foreign.cspr import CsprFormat
from voxlift.weights.foreign.kinetics import KineticsFormat
from voxlift.weights.foreign.medicalnet import MedicalNetFormat
from voxlift.weights.foreign.monai import FOLDED, MonaiFormat
from voxlift.weights.layouts import write_layout
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

Make = Callable[..., Any]
KNOWN = MonaiFormat()
OTHERS = (CsprFormat(), MedicalNetFormat(), KineticsFormat())


@pytest.fixture
def original(randomised: Make) -> Make:
    """Make a narrow ResNet of MONAI with random numbers, in double precision."""

    def make(name: str = "resnet18", **options: Any) -> nn.Module:
        given = {"widen_factor": 1 / 16, "n_input_channels": 1, "num_classes": 5, **options}
        return randomised(getattr(resnet, name)(**given)).double()  # type: ignore[no-any-return]

    return make


def maps_of(network: nn.Module, volume: Tensor) -> list[Tensor]:
    """Compute the maps of the stages, and check that the last is what the answer is made of."""
    maps: list[Tensor] = []
    stages = [network.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)]
    handles = [stage.register_forward_hook(lambda *seen: maps.append(seen[2])) for stage in stages]
    with torch.no_grad():
        network(volume)
    for handle in handles:
        handle.remove()
    return maps


@pytest.mark.parametrize(
    ("name", "options", "geometry"),
    [
        ("resnet10", {}, "unet"),
        ("resnet18", {"shortcut_type": "A"}, "unet"),
        ("resnet18", {"bias_downsample": False, "feed_forward": False}, "unet"),
        ("resnet50", {"n_input_channels": 2}, "unet"),
        ("resnet34", {"shortcut_type": "A", "conv1_t_stride": 2}, "volume"),
        ("resnet18", {"no_max_pool": True, "conv1_t_size": 3}, "small"),
    ],
)
def test_ours_computes_what_theirs_does(
    original: Make, tmp_path: Path, name: str, options: dict[str, Any], geometry: str
) -> None:
    theirs = original(name, **options)
    path = tmp_path / "own.pt"
    torch.save(theirs.state_dict(), path)
    file = read_weight_file(path)
    assert file.format == "monai"
    architecture = file.header.architecture
    assert (architecture.name, architecture.width) == (name, 4)
    assert architecture.shortcut == options.get("shortcut_type", "B")
    assert file.header.geometry == named_geometry("unet")
    assert (file.header.licence, file.header.preprocessing) == (None, None)
    channels = architecture.in_channels
    ours = create_backbone(weights=file, in_channels=channels, geometry=geometry).double().eval()
    report = load_weights(ours, file)
    assert (report.missing, report.unused, report.coverage) == ({}, {}, 1.0)
    assert any("conv1_t_stride=2" in note for note in report.notes)
    with_bias = options.get("bias_downsample", True) and architecture.shortcut == "B"
    num_projections = (4 if name == "resnet50" else 3) if with_bias else 0
    assert list(report.adapted.values()) == [FOLDED] * num_projections
    biases = [key for key in theirs.state_dict() if key.endswith("downsample.0.bias")]
    assert len(biases) == num_projections
    classifier = {"fc.weight", "fc.bias"} if options.get("feed_forward", True) else set()
    assert report.ignored.keys() == {*biases, *classifier}
    volume = torch.randn(1, channels, 17, 24, 19, dtype=torch.float64)
    with torch.no_grad():
        for mine, other in zip(ours(volume)[1:], maps_of(theirs, volume), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_they_train_alike_too(original: Make, tmp_path: Path) -> None:
    theirs = original("resnet10").train()
    torch.save(theirs.state_dict(), tmp_path / "own.pt")
    ours = create_backbone(weights=tmp_path / "own.pt").double().train()
    volume = torch.randn(2, 1, 16, 16, 16, dtype=torch.float64)
    theirs.get_submodule("fc").register_forward_hook(lambda _, inputs, __: inputs[0])
    maps = ours(volume)
    torch.testing.assert_close(maps[-1].mean((2, 3, 4)), theirs(volume), rtol=1e-5, atol=1e-6)
    mean = "layer2.0.downsample.1.running_mean"
    bias = theirs.get_parameter("layer2.0.downsample.0.bias")
    # What training adds to the running mean holds a tenth of the bias as well.
    found = ours.get_buffer(mean) + bias
    torch.testing.assert_close(found, theirs.get_buffer(mean), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_bias_or_the_activation_is_its_mark(
    original: Make, make_container: Make, prefix: str
) -> None:
    biased = make_container(original().state_dict(), prefix=prefix)
    assert KNOWN.recognises(biased)
    assert not any(other.recognises(biased) for other in OTHERS)
    plain = original(shortcut_type="A", n_input_channels=3)
    noted = make_container(
        plain.state_dict(),
        prefix=prefix,
        modules=[prefix + name for name, _ in plain.named_modules()],
    )
    assert KNOWN.recognises(noted)
    assert not any(other.recognises(noted) for other in OTHERS)


def test_without_a_mark_it_is_asked_about(original: Make, tmp_path: Path) -> None:
    path = tmp_path / "bare.pt"
    torch.save(dict(original(shortcut_type="A", feed_forward=False).state_dict()), path)
    with pytest.raises(WeightsError, match=r"several formats: cspr, medicalnet, monai\. Say"):
        read_weight_file(path)
    file = read_weight_file(path, declared="monai")
    assert file.header.geometry == named_geometry("unet")


def test_what_was_published_otherwise_is_not_taken_for_it(
    make_their_resnet: Make, make_container: Make
) -> None:
    state = make_their_resnet().state_dict()
    for container in (
        make_container(state, prefix="module."),
        make_container(state, prefix="backbone."),
        make_container(make_their_resnet(in_channels=3).state_dict()),
        make_container(state, extras={"meta": {"epoch": 1}}),
        make_container(make_their_resnet(norm="gn", width=32).state_dict()),
        make_container(state, modules=["conv1", "relu", "layer1.0.relu"]),
        make_container({"a": torch.ones(1)}),
    ):
        assert not KNOWN.recognises(container)


def test_others_are_refused(original: Make, make_container: Make) -> None:
    with pytest.raises(WeightsError, match="no ResNet of MONAI for volumes: expected conv1"):
        KNOWN.translate(make_container({"a": torch.ones(1)}))
    groups = original(norm=("group", {"num_groups": 2})).state_dict()
    with pytest.raises(WeightsError, match=r"bn1 is a batch norm without running_mean"):
        KNOWN.translate(make_container(groups))
    odd = {**original().state_dict(), "layer3.0.downsample.0.bias": torch.ones(3)}
    with pytest.raises(WeightsError, match=r"layer3\.0\.downsample\.0\.bias is there"):
        KNOWN.translate(make_container(odd))


def test_half_precision_is_no_less_exact(
    original: Make, make_container: Make, translated: Callable[[Any, Container], WeightFile]
) -> None:
    state = {name: t.half() for name, t in original("resnet10").state_dict().items()}
    file = translated(KNOWN, make_container(state))
    name = "layer2.0.downsample.1.running_mean"
    expected = state[name].double() - state["layer2.0.downsample.0.bias"].double()
    torch.testing.assert_close(file.tensors[name].double(), expected, rtol=1e-6, atol=1e-7)


def test_there_and_back(original: Make, tmp_path: Path) -> None:
    theirs = original("resnet18", shortcut_type="B", feed_forward=False)
    torch.save(theirs.float().state_dict(), tmp_path / "theirs.pt")
    convert_weights(str(tmp_path / "theirs.pt"), tmp_path / "ours.safetensors")
    convert_weights(str(tmp_path / "ours.safetensors"), tmp_path / "back.pt", to="monai")
    again = original("resnet18", feed_forward=False, bias_downsample=False).float()
    again.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    volume = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(again(volume), theirs(volume), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_ours_comes_back_with_strides_and_licence(tmp_path: Path, shortcut: str) -> None:
    fields = {"name": "resnet10", "width": 4, "shortcut": shortcut}
    backbone = ResNet(Architecture.model_validate(fields), named_geometry("volume"))
    path = save_weights(backbone, tmp_path / "a.safetensors", licence="CC BY 4.0", citation="x")
    convert_weights(str(path), tmp_path / "b.pt", to="monai")
    file = read_weight_file(tmp_path / "b.pt")
    assert (file.format, file.header.architecture) == ("monai", backbone.architecture)
    assert file.header.geometry == named_geometry("volume")
    assert (file.header.licence, file.header.citation) == ("CC BY 4.0", "x")
    assert file.notes == ()
    convert_weights(str(tmp_path / "b.pt"), tmp_path / "c.safetensors")
    again = read_weight_file(tmp_path / "c.safetensors")
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(again.tensors[name], tensor)


def test_strides_that_were_asked_for_are_kept(tmp_path: Path) -> None:
    backbone = create_backbone("resnet10", width=4, geometry="pretrain")
    write_layout(backbone, tmp_path / "a.pt", layout="monai", geometry="small")
    assert read_weight_file(tmp_path / "a.pt").header.geometry == named_geometry("small")
