"""Files of `torch.save` under our own names: with a description of themselves, and without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.inference.conversion import convert_weights
from voxlift.inference.saved_model import load_model
from voxlift.nets.factory import create_backbone, create_model
from voxlift.nets.resnet import ResNet
from voxlift.weights.file import read_weight_file
from voxlift.weights.header import HeadDescription
from voxlift.weights.layouts import write_layout
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights


def make(name: str = "resnet10", geometry: str = "volume", **fields: Any) -> ResNet:
    architecture = Architecture.model_validate({"name": name, "width": 4, **fields})
    return ResNet(architecture, named_geometry(geometry)).eval()


def assert_alike(model: nn.Module, other: nn.Module) -> None:
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"width": 4, "norm": "group", "geometry": "nodule"}),
        ("resnet10", {"width": 4, "num_slices": 5}),
        ("p3d18", {"width": 4}),
        ("segresnet", {"width": 8}),
    ],
)
def test_what_convert_writes_says_what_it_is(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    backbone = create_backbone(name, **options)
    start = save_weights(
        backbone, tmp_path / "a.safetensors", licence="CC0", preprocessing=Preprocessing()
    )
    convert_weights(str(start), tmp_path / "b.pth", to="torch")
    file = read_weight_file(tmp_path / "b.pth")
    assert file.format == "voxlift"
    assert file.header == read_weight_file(start).header.model_copy(
        update={"provenance": file.header.provenance}
    )
    convert_weights(str(tmp_path / "b.pth"), tmp_path / "c.safetensors")
    again = read_weight_file(tmp_path / "c.safetensors")
    assert again.header.geometry == backbone.geometry
    assert (again.header.licence, again.header.preprocessing) == ("CC0", Preprocessing())
    slices = {key: value for key, value in options.items() if key == "num_slices"}
    assert_alike(create_backbone(weights=again, **slices), backbone)


def test_a_whole_model_comes_back(tmp_path: Path) -> None:
    model = create_model("classify", backbone=make(), num_classes=2)
    start = save_weights(
        model,
        tmp_path / "a.safetensors",
        head=HeadDescription(task="classify", num_classes=2, class_names=("a", "b")),
        preprocessing=Preprocessing(size_voxels=(8, 8, 8)),
    )
    convert_weights(str(start), tmp_path / "b.pth")
    convert_weights(str(tmp_path / "b.pth"), tmp_path / "c.safetensors")
    again = load_model(tmp_path / "c.safetensors")
    assert again.class_names == ("a", "b")
    assert_alike(again.networks[0], model)


def test_its_notes_are_in_nobodys_way(tmp_path: Path) -> None:
    model = create_model("classify", backbone=make(), num_classes=2)
    write_layout(model, tmp_path / "a.pth")
    fresh = create_model("classify", backbone=make(), num_classes=2)
    fresh.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True))
    assert_alike(fresh, model)
    fresh.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True), assign=True)
    assert_alike(fresh, model)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm": "group", "shortcut": "A"},
        {"name": "resnet50", "width": 2, "in_channels": 2, "stem_kernel": 3},
        {"project_first": True},
        {"ndim": 2, "in_channels": 3},
    ],
    ids=str,
)
def test_a_bare_state_dict_is_recognised_by_its_names(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    model = create_model("classify", backbone=make(**fields), num_classes=3)
    backbone: Any = model.backbone
    for state in (backbone.state_dict(), {"module." + n: t for n, t in model.state_dict().items()}):
        path = tmp_path / "a.pth"
        torch.save({"state_dict": state, "optimizer": {}}, path)
        file = read_weight_file(path)
        assert file.format == "torch"
        assert file.header.architecture == backbone.architecture
        assert file.header.geometry == named_geometry("pretrain")
        assert "under which strides" in file.notes[0]
        assert file.ignored.keys() == {"optimizer"}
        fresh = make(**fields)
        assert load_weights(fresh, file).coverage == 1
        assert_alike(fresh, backbone)
    whole = create_model("classify", backbone=make(**fields), num_classes=3)
    load_weights(whole, path, head="required")
    assert_alike(whole, model)


def test_what_it_cannot_infer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(create_backbone("p3d18", width=4).state_dict(), path)
    with pytest.raises(WeightsError, match=r"kernel of \(1, 7, 7\).*only ResNets are understood"):
        read_weight_file(path)
    torch.save(create_backbone("resnet10", width=4, num_slices=3).state_dict(), path)
    with pytest.raises(WeightsError, match=r"is there, which such.*write it with voxlift\.save"):
        read_weight_file(path)
    torch.save({"conv1.weight": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match="no ResNet under Voxlift's names"):
        read_weight_file(path, declared="torch")
    write_layout(make(), path)
    with pytest.raises(WeightsError, match=r"says itself what it is: give it without torch:"):
        read_weight_file(path, declared="torch")


def test_a_description_that_was_edited_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write_layout(make(), path)
    state = torch.load(path, weights_only=True)
    state._metadata[""]["voxlift"] = "{"
    torch.save(state, path)
    with pytest.raises(WeightsError, match="the Voxlift header is no JSON"):
        read_weight_file(path)
    state._metadata = {1: 2, "": [3]}
    torch.save(state, path)
    assert read_weight_file(path).format == "torch"


def test_medicalnets_layout_holds_no_description(tmp_path: Path) -> None:
    start = save_weights(make(), tmp_path / "a.safetensors")
    header = read_weight_file(start).header
    with pytest.raises(WeightsError, match="holds tensors alone"):
        write_layout(make(), tmp_path / "b.pth", layout="medicalnet", header=header)
