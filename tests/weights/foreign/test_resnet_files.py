"""Files as they lie on a disk, with all formats of ResNets known at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import video

from voxlift.core.errors import WeightsError
from voxlift.nets.factory import create_backbone
from voxlift.weights.file import read_weight_file
from voxlift.weights.foreign.cspr import CsprFormat
from voxlift.weights.foreign.kinetics import KineticsFormat
from voxlift.weights.foreign.medicalnet import MedicalNetFormat
from voxlift.weights.foreign.torchvision_video import TorchvisionVideoFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.load import load_weights

Maker = Callable[..., Any]


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "cspr", CsprFormat())
    monkeypatch.setitem(FORMATS, "medicalnet", MedicalNetFormat())
    monkeypatch.setitem(FORMATS, "kinetics", KineticsFormat())
    monkeypatch.setitem(FORMATS, "torchvision_video", TorchvisionVideoFormat())


def below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def optimizer_state(network: torch.nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("name", ["published", "raw", "bare"])
def test_cspr(make_their_resnet: Maker, tmp_path: Path, name: str) -> None:
    theirs = make_their_resnet(
        stem_stride=(1, 2, 2),
        pool_stride=(1, 2, 2),
        stage_strides=((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)),
    )
    state, path = theirs.state_dict(), tmp_path / f"{name}.pth"
    head = {"head.fc.weight": torch.zeros(1000, 32), "head.fc.bias": torch.zeros(1000)}
    meta = {"mmcv_version": "1.0", "epoch": 100}
    files: dict[str, dict[str, Any]] = {
        "published": {"meta": meta, "state_dict": state},
        "raw": {
            "meta": meta,
            "state_dict": {**below(state, "backbone."), **head},
            "optimizer": optimizer_state(theirs),
        },
        "bare": {"state_dict": state},
    }
    torch.save(files[name], path)
    declared = "cspr" if name == "bare" else None
    file = read_weight_file(path, declared=declared)
    assert file.format == "cspr"
    assert file.ignored.keys() == ({*head, "optimizer"} if name == "raw" else set())
    ours = create_backbone("resnet10", weights=file).double().eval()
    volume = torch.randn(1, 1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(volume)[-1], theirs(volume)[-1], rtol=1e-6, atol=1e-12)


def test_a_bare_file_is_asked_about(make_their_resnet: Maker, tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(make_their_resnet().state_dict(), path)
    with pytest.raises(WeightsError, match=r"several formats: cspr, medicalnet\. Say which"):
        read_weight_file(path)
    assert read_weight_file(path, declared="medicalnet").header.licence == "MIT"


def test_medicalnet(make_their_resnet: Maker, tmp_path: Path) -> None:
    theirs = make_their_resnet(
        shortcut="A",
        blocks=(2, 2, 2, 2),
        stem_stride=(2, 2, 2),
        stage_strides=((1, 1, 1), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
        dilations=(1, 1, 2, 4),
    )
    path = tmp_path / "resnet_18_23dataset.pth"
    torch.save({"state_dict": below(theirs.state_dict(), "module.")}, path)
    file = read_weight_file(path)
    assert file.format == "medicalnet"
    ours = create_backbone("resnet18", weights=file).double().eval()
    volume = torch.randn(1, 1, 16, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(volume)[-1], theirs(volume)[-1], rtol=1e-6, atol=1e-12)


def test_kinetics(make_their_resnet: Maker, tmp_path: Path) -> None:
    theirs = make_their_resnet(
        in_channels=3,
        shortcut="A",
        blocks=(2, 2, 2, 2),
        stem_stride=(1, 2, 2),
        stage_strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    )
    state = {**theirs.state_dict(), "fc.weight": torch.zeros(400, 32), "fc.bias": torch.zeros(400)}
    path = tmp_path / "resnet-18-kinetics.pth"
    content = {
        "arch": "resnet-18",
        "epoch": 200,
        "state_dict": below(state, "module."),
        "optimizer": optimizer_state(theirs),
    }
    torch.save(content, path)
    file = read_weight_file(path)
    assert file.format == "kinetics"
    assert file.ignored.keys() == {"module.fc.weight", "module.fc.bias", "optimizer"}
    ours = create_backbone("resnet18", weights=file, in_channels=3).double().eval()
    volume = torch.randn(1, 3, 16, 40, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(volume)[-1], theirs(volume)[-1], rtol=1e-6, atol=1e-12)


def test_torchvision(randomised: Maker, tmp_path: Path) -> None:
    theirs = randomised(video.mc3_18(weights=None))
    path = tmp_path / "mc3_18.pth"
    torch.save(theirs.state_dict(), path)
    file = read_weight_file(path)
    assert (file.format, file.header.licence) == ("torchvision_video", None)
    ours = create_backbone("resnet18", weights=file)
    report = load_weights(ours, file)
    assert report.coverage == 1.0
    assert report.adapted["conv1.weight"].endswith("3 input channels summed into one")
