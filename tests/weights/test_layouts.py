from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai
import pytest
import torch
from monai.networks.nets import ResNet as MonaiResNet
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import DataError, WeightsError
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.nets.classifier import Classifier
from voxlift.nets.resnet import ResNet
from voxlift.weights.file import read_weight_file
from voxlift.weights.foreign.medicalnet import MedicalNetFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.layouts import monai_call, to_medicalnet, to_monai, write_layout
from voxlift.weights.load import load_weights

VIDEO = Geometry(
    stem_stride=(1, 2, 2),
    pool_stride=(2, 2, 2),
    stage_strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
)


def make(name: str = "resnet10", geometry: str | Geometry = "volume", **fields: Any) -> ResNet:
    """Make a network whose every number is random, running statistics included."""
    architecture = Architecture(name=name, **{"width": 4, **fields})
    network = ResNet(architecture, named_geometry(geometry))
    generator = torch.Generator().manual_seed(0)
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            offset = 0.0 if key.endswith(("bias", "running_mean")) else 0.5
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + offset)
    return network.eval()


def last_map(network: nn.Module, volume: Tensor) -> Tensor:
    """Compute the last feature map of MONAI's network, which answers its average."""
    seen: list[Tensor] = []
    layer = network.get_submodule("layer4")
    handle = layer.register_forward_hook(lambda _module, _input, output: seen.append(output))
    with torch.no_grad():
        answer = network(volume)
    handle.remove()
    torch.testing.assert_close(answer, seen[0].flatten(2).mean(dim=2))
    return seen[0]


@pytest.mark.parametrize("geometry", ["volume", "unet", "small", VIDEO], ids=str)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_monai_computes_the_same(geometry: str | Geometry, name: str, shortcut: str) -> None:
    ours = make(name, geometry, shortcut=shortcut)
    state, arguments = to_monai(ours)
    theirs = MonaiResNet(**arguments).eval()
    theirs.load_state_dict(state)
    volume = torch.randn(1, 1, 33, 40, 36)
    with torch.no_grad():
        expected = ours(volume)[-1]
    torch.testing.assert_close(last_map(theirs, volume), expected, rtol=1e-4, atol=1e-4)


def test_monai_computes_the_same_in_a_plane_and_with_another_stem() -> None:
    ours = make("resnet18", "volume", ndim=2, in_channels=3, stem_kernel=5)
    state, arguments = to_monai(ours)
    theirs = MonaiResNet(**arguments).eval()
    theirs.load_state_dict(state)
    image = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        expected = ours(image)[-1]
    torch.testing.assert_close(last_map(theirs, image), expected, rtol=1e-4, atol=1e-4)


def test_another_geometry_can_be_asked_for() -> None:
    ours = make("resnet10", "pretrain")
    state, arguments = to_monai(ours, "small")
    theirs = MonaiResNet(**arguments).eval()
    theirs.load_state_dict(state)
    ours.geometry = named_geometry("small")
    volume = torch.randn(1, 1, 17, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(last_map(theirs, volume), ours(volume)[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ("pretrain", r"pools with stride \(2, 2, 2\) or not at all; pool_stride is \(1, 2, 2\)"),
        ("thumbnail", r"stage_strides is \[\(1, 1, 1\), \(1, 2, 2\)"),
        ("nodule", r"stage_strides is \[\(1, 1, 1\), \(2, 2, 2\), \(1, 1, 1\)"),
        ("medicalnet", r"stage_strides is.*'volume', 'unet' and 'small' are such"),
        (Geometry(stage_strides=VIDEO.stage_strides, dilations=((2, 2, 2),) * 4), "dilations is"),
    ],
    ids=str,
)
def test_strides_that_monai_does_not_have_are_refused(
    geometry: str | Geometry, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        to_monai(make(), geometry)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "group"}, "has no norm='group': its blocks have batch norm whatever"),
        ({"convolution": "acs"}, "has no convolution='acs'"),
        ({"project_first": True}, "has no project_first=True"),
    ],
)
def test_networks_that_neither_has_are_refused(fields: Any, message: str) -> None:
    model = make()
    model.architecture = Architecture(name="resnet10", width=4, **fields)
    with pytest.raises(WeightsError, match=f"MONAI's ResNet {message}"):
        to_monai(model)
    with pytest.raises(WeightsError, match=f"MedicalNet's ResNet {message}"):
        to_medicalnet(model)
    model.architecture = Architecture(name="p3d18", width=4)
    with pytest.raises(WeightsError, match="not of p3d18"):
        to_monai(model)


def test_bottlenecks_project_first_anyway() -> None:
    state, arguments = to_monai(make("resnet50", "volume", project_first=True))
    MonaiResNet(**arguments).load_state_dict(state)


@pytest.mark.parametrize("fields", [{"ndim": 2}, {"in_channels": 3}, {"stem_kernel": 3}], ids=str)
def test_what_medicalnet_does_not_have_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=rf"have {next(iter(fields))}=.*'torch' or 'monai'"):
        to_medicalnet(make(**fields))


def test_a_changed_network_is_refused() -> None:
    model = make()
    model.layer4 = nn.Identity()
    with pytest.raises(WeightsError, match=r"changed after it was built: layer4\.0\.conv1\.weight"):
        to_monai(model)


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_medicalnets_layout_is_read_back(
    tmp_path: Path, name: str, shortcut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "medicalnet", MedicalNetFormat())
    ours = make(name, "medicalnet", shortcut=shortcut)
    path = tmp_path / "new" / "a.pth"
    told = write_layout(Classifier(ours, num_classes=3), path, layout="medicalnet")
    assert told == "state = torch.load('a.pth', weights_only=True)['state_dict']"
    file = read_weight_file(path)
    assert (file.format, file.header.architecture) == ("medicalnet", ours.architecture)
    state = ours.state_dict()
    assert file.tensors.keys() == state.keys()
    assert all(torch.equal(file.tensors[key], tensor) for key, tensor in state.items())
    report = load_weights(make(name, "medicalnet", shortcut=shortcut), file)
    assert len(report.exact) == len(state)


def test_other_strides_are_told_of(tmp_path: Path) -> None:
    told = write_layout(make(), tmp_path / "a.pth", layout="medicalnet")
    assert "under the geometry 'volume'. MedicalNet's own code strides and dilates" in told


def test_monais_layout_comes_with_the_call(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    told = write_layout(make(), path, layout="monai", geometry="small")
    call, load = told.splitlines()
    arguments = to_monai(make(), "small")[1]
    assert call == f"network = {monai_call(arguments)}"
    assert "bias_downsample=False" in call
    theirs = eval(call.removeprefix("network = "), {"monai": monai})
    assert load == "network.load_state_dict(torch.load('a.pt', weights_only=True))"
    theirs.load_state_dict(torch.load(path, weights_only=True))


def test_our_own_names_keep_the_head(tmp_path: Path, wrap: Callable[[nn.Module], Any]) -> None:
    model = Classifier(make(), num_classes=3)
    conv = model.get_submodule("backbone.layer1.0.conv1")
    assert isinstance(conv, nn.Conv3d)
    conv.weight.data = conv.weight.data.to(memory_format=torch.channels_last_3d)
    path = tmp_path / "a.pth"
    told = write_layout(wrap(model), path)
    state = torch.load(path, weights_only=True)
    assert told == "state = torch.load('a.pth', weights_only=True)"
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert state[name].is_contiguous()
        assert type(state[name]) is Tensor
        assert not state[name].requires_grad
    before = path.read_bytes()
    write_layout(model, tmp_path / "b.pth")
    assert (tmp_path / "b.pth").read_bytes() == before


def test_nothing_unfit_is_written(tmp_path: Path) -> None:
    model = make()
    with pytest.raises(WeightsError, match=r"does not end in \.pt or \.pth.*Call it a\.pth"):
        write_layout(model, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="Unknown layout 'keras'"):
        write_layout(model, tmp_path / "a.pth", layout="keras")  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="holds no strides"):
        write_layout(model, tmp_path / "a.pth", layout="medicalnet", geometry="volume")
    with torch.no_grad():
        model.conv1.weight.view(-1)[0] = float("nan")
    with pytest.raises(WeightsError, match=r"the model: 1 of the .* in conv1\.weight are NaN"):
        write_layout(model, tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").write_text("", encoding="utf-8")
    with pytest.raises(DataError):
        write_layout(make(), tmp_path / "a" / "b.pth")
