from pathlib import Path

import pytest
import torch

from voxlift.core.errors import ConfigError, WeightsError
from voxlift.nets.factory import create_backbone, create_model, own_geometry
from voxlift.nets.swin_unetr import Swin
from voxlift.weights.file import read_weight_file
from voxlift.weights.header import HeadDescription
from voxlift.weights.load import load_weights
from voxlift.weights.parts import take_part
from voxlift.weights.save import save_weights


@pytest.fixture(params=["", "_v2"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_transformer_starts_from_the_whole_network(version: str, tmp_path: Path) -> None:
    whole = create_backbone(f"swinunetr{version}", width=12, in_channels=2)
    path = save_weights(whole, tmp_path / "whole.safetensors")
    part = create_backbone(f"swin{version}", weights=path, in_channels=2)
    assert part.architecture.width == 12
    for name, tensor in part.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], rtol=0, atol=0)
    assert own_geometry(f"swin{version}", path) == (
        Swin.default_geometry(part.architecture),
        f"The geometry is that of swin{version} in the weight file.",
    )


def test_what_is_left_is_told(version: str, tmp_path: Path) -> None:
    backbone = create_backbone(f"swinunetr{version}", width=12)
    model = create_model("classify", backbone=backbone, num_classes=2)
    head = HeadDescription(task="classify", num_classes=2)
    file = read_weight_file(save_weights(model, tmp_path / "model.safetensors", head=head))
    part = take_part(file, f"swin{version}")
    left_out = set(file.tensors) - set(part.tensors)
    assert left_out == {n for n in file.tensors if n.startswith("backbone.encoder")}
    assert left_out == set(part.ignored)
    assert "head.weight" in part.tensors
    assert (part.sha256, part.header.head) == (file.sha256, head)
    target = create_backbone(f"swin{version}", width=12)
    report = load_weights(target, part)
    assert report.coverage == 1
    assert not report.unused
    assert any("taken out of the swinunetr" in note for note in report.notes)


def test_nothing_else_is_part_of_anything(tmp_path: Path) -> None:
    file = read_weight_file(
        save_weights(create_backbone("swin", width=12), tmp_path / "swin.safetensors")
    )
    for name in (None, "swin", "swin_v2", "swinunetr", "resnet10"):
        assert take_part(file, name) is file
    with pytest.raises(WeightsError, match="holds a network with name='swin'"):
        create_backbone("swinunetr", weights=file)
    whole = create_backbone("swinunetr", width=12)
    path = save_weights(whole, tmp_path / "whole.safetensors")
    with pytest.raises(WeightsError, match="holds a network with name='swinunetr'"):
        create_backbone("swin_v2", weights=path)
    with pytest.raises(ConfigError, match="strides of its own"):
        create_backbone("swin", weights=path, geometry="small")
