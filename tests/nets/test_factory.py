from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from voxlift.core.architecture import Architecture
from voxlift.core.detection_settings import DetectorSettings
from voxlift.core.errors import ConfigError, WeightsError
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.core.segmentation_settings import Decoder
from voxlift.nets.classifier import Classifier
from voxlift.nets.detector import Detector
from voxlift.nets.factory import (
    DECODERS,
    TASKS,
    create_backbone,
    create_model,
    list_backbones,
)
from voxlift.nets.p3d import P3DS
from voxlift.nets.resnet import RESNETS, ResNet
from voxlift.nets.unet import UNet
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

TRIPLES = (1, 2, 2)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A backbone of width 4 with a stem of 3, in the geometry of small photographs."""
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3)
    network = ResNet(architecture, named_geometry("thumbnail"))
    return save_weights(network, tmp_path / "start.safetensors")


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return dict(network.state_dict())


def test_defaults_are_the_papers() -> None:
    backbone = create_backbone("resnet10")
    assert backbone.architecture == Architecture(name="resnet10", width=64, stem_kernel=7)
    assert backbone.architecture.norm == "batch"
    assert backbone.geometry == named_geometry("pretrain")
    assert backbone.out_channels == (64, 64, 128, 256, 512)


@pytest.mark.parametrize("name", [*RESNETS, *P3DS])
def test_every_name_builds_a_backbone(name: str) -> None:
    backbone = create_backbone(name, width=4, stem=3, geometry="thumbnail")
    maps = backbone.eval()(torch.zeros(1, 1, 3, 8, 8))
    assert len(maps) == 5
    assert [m.shape[1] for m in maps] == list(backbone.out_channels)


def test_the_promised_names_are_known() -> None:
    assert list_backbones()[:3] == ["resnet10", "resnet18", "resnet34"]


def test_what_is_open_comes_from_the_file(weights: Path) -> None:
    backbone = create_backbone("resnet10", weights=weights)
    assert (backbone.architecture.width, backbone.architecture.stem_kernel) == (4, 3)
    assert backbone.geometry == named_geometry("thumbnail")
    again = create_backbone("resnet10", weights=str(weights), width=4, stem=3, norm="batch")
    torch.testing.assert_close(tensors(again), tensors(backbone), rtol=0, atol=0)


def test_explicit_geometry_wins_and_touches_no_tensor(weights: Path) -> None:
    stored = create_backbone("resnet10", weights=weights)
    by_name = create_backbone("resnet10", weights=weights, geometry="small")
    assert by_name.geometry == named_geometry("small")
    explicit = Geometry(stem_stride=TRIPLES, stage_strides=((1, 1, 1), TRIPLES, TRIPLES, TRIPLES))
    by_value = create_backbone("resnet10", weights=weights, geometry=explicit)
    assert by_value.geometry == explicit
    for other in (by_name, by_value):
        torch.testing.assert_close(tensors(other), tensors(stored), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 8}, "width=4, but 8"),
        ({"stem": 7}, "stem_kernel=3, but 7"),
        ({"norm": "group"}, "norm='batch', but 'group'"),
        ({"name": "resnet18"}, "name='resnet10', but 'resnet18'"),
    ],
)
def test_contradictions_to_the_file_are_refused(
    weights: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        create_backbone(**{"name": "resnet10", "weights": weights, **options})
    assert "start.safetensors" in str(caught.value)


def test_other_input_channels_are_adapted(weights: Path) -> None:
    one = create_backbone("resnet10", weights=weights).eval()
    two = create_backbone("resnet10", weights=weights, in_channels=2).eval()
    volume = torch.randn(1, 1, 3, 8, 8)
    # Both channels alike: the same function.
    torch.testing.assert_close(two(volume.expand(-1, 2, -1, -1, -1))[-1], one(volume)[-1])


@pytest.mark.parametrize("weights", [None, "scratch"])
def test_scratch_is_random(weights: str | None) -> None:
    torch.manual_seed(1)
    first = create_backbone("resnet10", width=4, weights=weights)
    torch.manual_seed(1)
    again = create_backbone("resnet10", width=4, weights=weights)
    torch.manual_seed(2)
    other = create_backbone("resnet10", width=4, weights=weights)
    torch.testing.assert_close(tensors(again), tensors(first), rtol=0, atol=0)
    assert not torch.equal(other.get_parameter("conv1.weight"), first.get_parameter("conv1.weight"))


def test_zero_init_and_checkpointing_reach_the_network() -> None:
    backbone = create_backbone("resnet10", width=4, zero_init_residual=True, checkpointing=True)
    assert backbone.checkpointing
    assert not backbone.get_parameter("layer1.0.norm2.weight").any()
    assert backbone.get_parameter("layer1.0.norm1.weight").all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet19"}, "'resnet19'; known are resnet10"),
        ({"geometry": "cubist"}, "'cubist'; known are pretrain"),
        ({"name": "p3d18", "num_slices": 9}, "no group transform.*resnet10.*mp3d18"),
        ({"name": "mp3d18"}, "num_slices"),
        ({"num_slices": 9, "geometry": "volume"}, "cannot stride depth"),
        ({"width": 0}, "width"),
        ({"stem": 4}, "stem_kernel"),
        ({"norm": "layer"}, "norm"),
        ({"in_channels": 0}, "in_channels"),
    ],
)
def test_impossible_wishes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_backbone(**{"name": "resnet10", "width": 4, **options})


def test_missing_weights_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"nosuch\.safetensors"):
        create_backbone("resnet10", weights="nosuch.safetensors")


def test_create_model_puts_a_head_on_any_backbone() -> None:
    backbone = create_backbone("resnet10", width=4, stem=3, geometry="small")
    model = create_model("classify", backbone=backbone, num_classes=3, dropout=0.5)
    assert isinstance(model, Classifier)
    assert model.dropout.p == 0.5
    assert model(torch.zeros(2, 1, 8, 8, 8)).shape == (2, 3)


def test_create_model_puts_a_detector_on_planes() -> None:
    backbone = create_backbone("mp3d18", width=8, num_slices=5, slice_start="mean")
    small = DetectorSettings(head="fcos", fpn_channels=32)
    model = create_model("detect", backbone=backbone, num_classes=2, detector=small)
    assert isinstance(model, Detector)
    assert model.num_classes == 2
    assert torch.equal(
        backbone.state_dict()["group_transform.1.weight"].unique(), torch.tensor([0.2])
    )
    with pytest.raises(ConfigError, match="num_slices"):
        create_model("detect", backbone=create_backbone("resnet10", width=4), num_classes=1)
    assert list(TASKS) == ["classify", "segment", "detect"]


def test_create_model_puts_a_decoder_on_any_backbone() -> None:
    backbone = create_backbone("resnet10", width=4, stem=3, geometry="small")
    model = create_model("segment", backbone=backbone, num_classes=3, deep_supervision=True)
    assert isinstance(model, UNet)
    assert model.deep_supervision
    for name, decoder in DECODERS.items():
        made = create_model("segment", backbone=backbone, num_classes=3, decoder=name)  # type: ignore[arg-type]
        assert type(made) is decoder
    assert {"unet", *DECODERS} == set(get_args(Decoder))


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("classify", {"decoder": "fcn"}, "is an option of the task 'segment'"),
        ("classify", {"deep_supervision": True}, "is an option of the task 'segment'"),
        ("segment", {"dropout": 0.5}, "dropout is an option of the task 'classify'"),
        ("segment", {"detector": DetectorSettings()}, "detector is an option of the task 'detect'"),
        ("segment", {"decoder": "fpn"}, "'fpn'; known are unet, fcn"),
        ("segment", {"decoder": "fcn", "deep_supervision": True}, "needs the decoder 'unet'"),
        ("segment", {"decoder": "cspr-unet", "deep_supervision": True}, "'cspr-unet' has one"),
        ("segment", {"num_classes": 0}, "at least one output"),
    ],
)
def test_options_of_another_head_are_refused(
    task: str, options: dict[str, Any], message: str
) -> None:
    backbone = create_backbone("resnet10", width=4, stem=3)
    with pytest.raises(ConfigError, match=message):
        create_model(task, **{"backbone": backbone, "num_classes": 2, **options})


def test_several_channels_are_told_in_the_report(weights: Path) -> None:
    """A start of one channel, given N equal ones, answers as for one, and the report says so."""
    one = create_backbone("resnet10", weights=weights).eval()
    volume = torch.randn(1, 1, 3, 8, 8)
    for count in (2, 4):
        several = create_backbone("resnet10", weights=weights, in_channels=count).eval()
        for ours, theirs in zip(
            several(volume.expand(-1, count, -1, -1, -1)), one(volume), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        report = load_weights(several, weights)
        assert list(report.adapted) == ["conv1.weight"]
        assert str(count) in report.adapted["conv1.weight"]
        assert "conv1.weight" in report.summary()
        assert report.coverage == 1


def test_create_model_refuses_what_it_does_not_know() -> None:
    backbone = create_backbone("resnet10", width=4)
    with pytest.raises(ConfigError, match="'translate'; known are classify"):
        create_model("translate", backbone=backbone, num_classes=3)
    with pytest.raises(ConfigError, match="two classes"):
        create_model("classify", backbone=backbone, num_classes=1)


def test_planes_are_made_in_another_way_than_in_the_file(tmp_path: Path) -> None:
    first = create_backbone("mp3d18", width=8, num_slices=3)
    path = save_weights(first, tmp_path / "group.safetensors")
    shapes = {"center": None, "group": (8, 5, 1, 1), "conv3d": (8, 8, 5, 1, 1)}
    volume = torch.randn(1, 1, 5, 32, 32)
    planes: list[torch.Tensor] = []
    for kind, shape in shapes.items():
        made = create_backbone(weights=path, num_slices=5, slice_transform=kind)  # type: ignore[arg-type]
        assert made.architecture.name == "mp3d18"
        found = made.state_dict().get("group_transform.1.weight")
        assert (None if found is None else tuple(found.shape)) == shape
        # Before it has learnt each takes the middle slice.
        answer = made.eval()(volume)
        planes = planes or answer
        torch.testing.assert_close(answer, planes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        made.state_dict()["conv1.weight"], first.state_dict()["conv1.weight"]
    )
