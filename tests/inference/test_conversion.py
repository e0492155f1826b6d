from pathlib import Path

import pytest
import torch

from voxlift.core.errors import ConfigError, WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.inference.conversion import convert_weights
from voxlift.inference.saved_model import load_model
from voxlift.nets.factory import create_backbone, create_model
from voxlift.weights.file import read_header
from voxlift.weights.header import HeadDescription, parse_header
from voxlift.weights.save import save_weights


@pytest.fixture
def backbone_file(tmp_path: Path) -> Path:
    backbone = create_backbone("resnet10", width=4, stem=3, geometry="small", in_channels=3)
    return save_weights(
        backbone,
        tmp_path / "backbone.safetensors",
        licence="CC0",
        preprocessing=Preprocessing(in_channels=3),
    )


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    backbone = create_backbone("resnet10", width=4, stem=3, geometry="small")
    return save_weights(
        create_model("classify", backbone=backbone, num_classes=2),
        tmp_path / "model.safetensors",
        preprocessing=Preprocessing(size_voxels=(8, 8, 8)),
        head=HeadDescription(task="classify", num_classes=2, class_names=("a", "b")),
    )


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.safetensors", "voxlift"),
        ("a.pth", "torch"),
        ("a.pt", "torch"),
        ("a.pt2", "torch-export"),
    ],
)
def test_the_ending_says_what_is_written(
    tmp_path: Path, model_file: Path, name: str, target: str
) -> None:
    result = convert_weights(str(model_file), tmp_path / name)
    assert (result.path, result.target) == (tmp_path / name, target)
    assert result.path.stat().st_size > 0
    assert result.sentences


def test_channels_and_geometry_are_changed_on_the_way(tmp_path: Path, backbone_file: Path) -> None:
    out = tmp_path / "one.safetensors"
    convert_weights(
        str(backbone_file), out, in_channels=1, channels="mean", geometry="volume", half=True
    )
    header = read_header(out)
    assert header.architecture.in_channels == 1
    assert header.preprocessing == Preprocessing(in_channels=1)
    assert header.geometry == named_geometry("volume")
    assert header.licence == "CC0"
    three = create_backbone(weights=backbone_file, in_channels=3)
    one = create_backbone(weights=out)
    torch.testing.assert_close(
        one.get_parameter("conv1.weight"),
        three.get_parameter("conv1.weight").mean(1, keepdim=True),
        rtol=2e-3,
        atol=1e-4,
    )


def test_a_whole_model_keeps_its_head(tmp_path: Path, model_file: Path) -> None:
    out = tmp_path / "again.safetensors"
    convert_weights(str(model_file), out)
    again, before = load_model(out), load_model(model_file)
    volume = torch.randn(1, 1, 8, 8, 8)
    torch.testing.assert_close(again.probabilities(volume), before.probabilities(volume))
    assert again.class_names == ("a", "b")


def test_a_foreign_file_says_where_it_came_from(tmp_path: Path) -> None:
    foreign, out = tmp_path / "resnet.pth", tmp_path / "back.safetensors"
    wide = save_weights(
        create_backbone("resnet10", width=4, geometry="medicalnet"), tmp_path / "wide.safetensors"
    )
    convert_weights(str(wide), foreign, to="medicalnet")
    told = convert_weights(f"medicalnet:{foreign}", out)
    header = read_header(out)
    assert header.provenance["converted_from"] == "resnet.pth"
    assert header.provenance["format"] == "medicalnet"
    assert len(str(header.provenance["sha256"])) == 64
    assert header.licence is not None
    assert header.licence.startswith("MIT")
    assert "create_backbone" in told.sentences


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_an_export_keeps_licence_and_origin(
    tmp_path: Path, backbone_file: Path, suffix: str
) -> None:
    out = tmp_path / f"a{suffix}"
    convert_weights(str(backbone_file), out, in_channels=1, size_voxels=(8, 8, 8))
    if suffix == ".onnx":
        import onnx

        text = {entry.key: entry.value for entry in onnx.load(out).metadata_props}["voxlift"]
    else:
        extra = {"voxlift": ""}
        torch.export.load(out, extra_files=extra)
        text = extra["voxlift"]
    header = parse_header(text, where=str(out))
    assert header.licence == "CC0"
    assert header.preprocessing == Preprocessing(in_channels=1)
    assert header.architecture.in_channels == 1


def test_impossible_wishes_are_refused_and_nothing_is_written(
    tmp_path: Path, backbone_file: Path, model_file: Path
) -> None:
    for source, name, options, message in (
        (backbone_file, "a.npz", {}, "known endings are .safetensors"),
        (backbone_file, "a.pth", {"half": True}, "half is an option"),
        (backbone_file, "a.pth", {"size_voxels": (8, 8, 8)}, "size_voxels is an option"),
        (model_file, "a.safetensors", {"in_channels": 2}, "was judged with them"),
        (backbone_file, "backbone.safetensors", {}, "there already"),
        (backbone_file, "backbone.safetensors", {"overwrite": True}, "the source itself"),
        (backbone_file, "a.safetensors", {"in_channels": 0}, "in_channels is 0"),
    ):
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises(ConfigError, match=message):
            convert_weights(str(source), tmp_path / name, **options)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    with pytest.raises(WeightsError, match="no such file"):
        convert_weights("nowhere.pth", tmp_path / "a.safetensors")
    convert_weights(str(model_file), tmp_path / "backbone.safetensors", overwrite=True)
    assert load_model(tmp_path / "backbone.safetensors").class_names == ("a", "b")
