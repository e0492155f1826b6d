import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import named_geometry
from voxlift.core.label_scheme import LabelScheme
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.segmentation_settings import Decoder, SegmentationSettings
from voxlift.inference.export import export_model
from voxlift.inference.exportable import open_exportable
from voxlift.inference.saved_model import SavedModel, load_model
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import create_backbone, create_model
from voxlift.nets.resnet import ResNet
from voxlift.training.hardware import prepare_memory_format
from voxlift.weights.file import read_weight_file
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.save import save_weights

SUFFIXES = (".onnx", ".pt2")
SIZE = (8, 12, 16)
MakeModel = Callable[..., SavedModel]
SaveModel = Callable[..., Path]
RunExported = Callable[[Path, Tensor], dict[str, Tensor]]
HeaderIn = Callable[[Path], WeightHeader]
AssertAgrees = Callable[[Path, nn.Module, Tensor], None]


@pytest.fixture
def assert_agrees(run_exported: RunExported) -> AssertAgrees:
    """Compare an exported file with the network that it was made of."""

    def compare(path: Path, network: nn.Module, volumes: Tensor) -> None:
        with torch.no_grad():
            expected = network(volumes)
        found = run_exported(path, volumes)
        expected = expected if isinstance(expected, list) else [expected]
        assert len(found) == len(expected)
        for one, other in zip(found.values(), expected, strict=True):
            assert one.shape == other.shape
            assert (one - other).abs().max() <= 1e-4 * other.abs().max()

    return compare


def backbone(**options: Any) -> Encoder:
    fields = {"geometry": "small", "width": 4, "stem": 3, **options}
    return create_backbone("resnet10", **fields).eval()


def segmenter(decoder: Decoder = "unet") -> nn.Module:
    return create_model(
        "segment", backbone=backbone(geometry="unet"), num_classes=2, decoder=decoder
    ).eval()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_saved_classifier_answers_for_any_batch(
    suffix: str, save_model: SaveModel, tmp_path: Path, assert_agrees: AssertAgrees
) -> None:
    saved = save_model(tmp_path / "model.safetensors", threshold=0.4)
    path = tmp_path / f"model{suffix}"
    report = export_model(saved, path)
    network = load_model(saved).networks[0]
    for batch in (1, 2, 5):
        assert_agrees(path, network, torch.randn(batch, 1, 8, 8, 8))
    assert report.path == path
    assert report.input_shape == ("batch", 1, 8, 8, 8)
    assert report.outputs == {"logits": ("batch", 2)}
    assert report.largest_difference <= 1e-4
    assert report.num_bytes == path.stat().st_size
    assert report.checked_shapes == ((1, 1, 8, 8, 8), (3, 1, 8, 8, 8))
    assert "logits: batch x 2" in str(report)
    assert {each.name for each in tmp_path.iterdir()} == {path.name, saved.name}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_header_travels_along(suffix: str, tmp_path: Path, header_in: HeaderIn) -> None:
    network = create_model("classify", backbone=backbone(), num_classes=2)
    preprocessing = Preprocessing(unit="HU", intensity="window", window=(-1000, 400), mean=0.5)
    head = HeadDescription(task="classify", num_classes=2, class_names=("no", "yes"), threshold=0.3)
    saved = save_weights(
        network,
        tmp_path / "model.safetensors",
        preprocessing=preprocessing,
        head=head,
        provenance={"data": "simulated"},
        licence="CC BY 4.0",
        citation="A paper.",
    )
    path = tmp_path / f"model{suffix}"
    export_model(saved, path, size_voxels=SIZE)
    found, file = header_in(path), read_weight_file(saved)
    assert found.provenance == {"data": "simulated", "exported_from": file.sha256}
    assert found.model_copy(update={"provenance": {}}) == file.header.model_copy(
        update={"provenance": {}}
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_backbone_gives_its_maps_by_name(
    suffix: str, tmp_path: Path, assert_agrees: AssertAgrees, run_exported: RunExported
) -> None:
    network = backbone()
    path = tmp_path / f"backbone{suffix}"
    report = export_model(network, path, size_voxels=SIZE)
    assert list(run_exported(path, torch.randn(2, 1, *SIZE))) == [
        "map1",
        "map2",
        "map3",
        "map4",
        "map5",
    ]
    assert_agrees(path, network, torch.randn(2, 1, *SIZE))
    assert report.outputs["map1"] == ("batch", 4, 8, 12, 16)
    assert report.outputs["map5"] == ("batch", 32, 1, 2, 2)


@pytest.mark.parametrize(("suffix", "kind"), [(".pt2", "backbone"), (".onnx", "unet")])
def test_free_sizes_down_to_the_smallest(
    suffix: str, kind: str, tmp_path: Path, assert_agrees: AssertAgrees
) -> None:
    network = backbone() if kind == "backbone" else segmenter()
    path = tmp_path / f"free{suffix}"
    report = export_model(network, path, size_voxels=SIZE, dynamic="all")
    smallest = (9, 9, 9) if kind == "backbone" else (17, 17, 17)
    assert report.smallest_size == smallest
    assert report.input_shape == ("batch", 1, "depth", "height", "width")
    for size in (smallest, (24, 19, 33)):
        assert_agrees(path, network, torch.randn(1, 1, *size))
    if kind == "backbone":
        assert report.outputs["map5"] == ("batch", 32, "depth/8", "height/8", "width/8")
        assert "smallest size: 9 x 9 x 9" in report.summary()
    else:
        assert report.outputs == {"logits": ("batch", 2, "depth", "height", "width")}


def test_a_size_below_the_smallest_is_refused_by_the_program(
    tmp_path: Path, run_exported: RunExported
) -> None:
    path = tmp_path / "free.pt2"
    export_model(backbone(), path, size_voxels=SIZE, dynamic="all")
    with pytest.raises(AssertionError, match="Guard failed"):
        run_exported(path, torch.randn(1, 1, 8, 9, 9))


@pytest.mark.parametrize("norm", ["group", "batch_always"])
def test_norms_of_every_kind(norm: str, tmp_path: Path, assert_agrees: AssertAgrees) -> None:
    network = backbone(norm=norm)
    export_model(network, tmp_path / "norm.onnx", size_voxels=(16, 16, 16))
    assert_agrees(tmp_path / "norm.onnx", network, torch.randn(2, 1, 16, 16, 16))


@pytest.mark.parametrize("decoder", ["fcn", "cspr-fcn", "cspr-unet"])
def test_a_segmenter_is_exported_for_its_window(
    decoder: Decoder, tmp_path: Path, header_in: HeaderIn
) -> None:
    labels = LabelScheme(names=("background", "liver"), values=(0, 1))
    settings = SegmentationSettings(
        labels=labels, channel_names=("CT",), window_voxels=(16, 16, 24), decoder=decoder
    )
    head = HeadDescription(
        task="segment",
        num_classes=2,
        class_names=labels.output_names,
        settings=settings.model_dump(mode="json"),
    )
    saved = save_weights(
        segmenter(decoder), tmp_path / "s.safetensors", preprocessing=Preprocessing(), head=head
    )
    report = export_model(saved, tmp_path / "s.onnx")
    assert report.outputs == {"logits": ("batch", 2, 16, 16, 24)}
    assert SegmentationSettings.model_validate(header_in(tmp_path / "s.onnx").head.settings) == (  # type: ignore[union-attr]
        settings
    )


def test_a_bundled_start_with_and_without_its_head(tmp_path: Path, header_in: HeaderIn) -> None:
    report = export_model("tiny", tmp_path / "tiny.pt2", dynamic="none", batch_size=2)
    assert report.input_shape == (2, 1, 3, 32, 32)
    assert report.outputs == {"logits": (2, 10)}
    report = export_model("tiny", tmp_path / "tiny.pt2", backbone_only=True, dynamic="none")
    assert report.outputs["map5"] == (1, 128, 3, 4, 4)
    found = header_in(tmp_path / "tiny.pt2")
    assert found.head is None
    assert found.licence is not None
    assert report.notes == ()


def test_a_planar_network(tmp_path: Path, assert_agrees: AssertAgrees) -> None:
    architecture = Architecture(name="resnet10", ndim=2, width=4, stem_kernel=3)
    network = ResNet(architecture, named_geometry("small")).eval()
    report = export_model(network, tmp_path / "planar.onnx", size_voxels=SIZE, dynamic="all")
    assert report.input_shape == ("batch", 1, "height", "width")
    assert_agrees(tmp_path / "planar.onnx", network, torch.randn(1, 1, 21, 30))


def test_maps_of_other_axes_than_the_volumes_are_exported_for_one_size(tmp_path: Path) -> None:
    network = create_backbone("mp3d18", width=8, num_slices=3)
    path = tmp_path / "mp3d.pt2"
    with pytest.raises(ConfigError, match="exported for one size"):
        export_model(network, path, size_voxels=(3, 64, 64), dynamic="all")
    report = export_model(network, path, size_voxels=(3, 64, 64), dynamic="none")
    assert report.largest_difference <= 1e-4


def test_a_model_in_any_state_is_left_in_it(tmp_path: Path, assert_agrees: AssertAgrees) -> None:
    network = create_model("classify", backbone=backbone(checkpointing=True), num_classes=2)
    prepare_memory_format(network.train().bfloat16(), "cpu")
    network.backbone.compile(backend="eager")  # type: ignore[union-attr]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = export_model(network, tmp_path / "model.pt2", size_voxels=SIZE)
    assert report.notes == (
        "its numbers are bfloat16; exported as float32",
        "it was in training mode; exported in evaluation mode",
    )
    assert all(module.training for module in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert_agrees(tmp_path / "model.pt2", network.float().eval(), torch.randn(1, 1, *SIZE))


def test_compiled_models_are_looked_through(tmp_path: Path, assert_agrees: AssertAgrees) -> None:
    network = create_model("classify", backbone=backbone(), num_classes=2).eval()
    whole = torch.compile(network, backend="eager")
    export_model(whole, tmp_path / "a.pt2", size_voxels=SIZE, dynamic="none")  # type: ignore[arg-type]
    plain = network.backbone
    network.backbone = torch.compile(plain, backend="eager")  # type: ignore[arg-type, assignment]
    export_model(network, tmp_path / "b.pt2", size_voxels=SIZE, dynamic="none")
    network.backbone = plain
    for name in ("a.pt2", "b.pt2"):
        assert_agrees(tmp_path / name, network, torch.randn(1, 1, *SIZE))


def test_a_module_may_be_described(
    make_model: MakeModel, tmp_path: Path, header_in: HeaderIn
) -> None:
    model = make_model("a", "b")
    path = tmp_path / "model.pt2"
    export_model(model.networks[0], path, preprocessing=model.preprocessing, head=model.head)
    assert header_in(path).head == model.head
    assert header_in(path).preprocessing == model.preprocessing
    export_model(model, tmp_path / "same.pt2")
    assert header_in(tmp_path / "same.pt2") == header_in(path)
    with pytest.raises(ConfigError, match="describe a module in memory"):
        export_model(model, path, preprocessing=model.preprocessing)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_module_may_bring_the_header_of_its_file(
    suffix: str, tmp_path: Path, header_in: HeaderIn
) -> None:
    network = create_model("classify", backbone=backbone(), num_classes=2)
    header = WeightHeader(
        architecture=Architecture(name="resnet18"),
        geometry=named_geometry("pretrain"),
        preprocessing=Preprocessing(size_voxels=SIZE),
        head=HeadDescription(task="classify", num_classes=2, threshold=0.3),
        provenance={"data": "simulated"},
        licence="CC BY-NC 4.0, non-commercial",
        citation="A paper.",
    )
    path = tmp_path / f"model{suffix}"
    export_model(network, path, dynamic="none", header=header)
    found = header_in(path)
    own = {"architecture": backbone().architecture, "geometry": backbone().geometry}
    assert found == header.model_copy(update=own)
    named = HeadDescription(task="classify", num_classes=2, class_names=("no", "yes"))
    opened = open_exportable(network, header=header, head=named)
    assert opened.header == found.model_copy(update={"head": named})
    assert open_exportable(network, header=header, backbone_only=True).header.head is None
    with pytest.raises(ConfigError, match="header describe a module in memory"):
        export_model("tiny", path, header=header)


def test_reports_are_json(tmp_path: Path) -> None:
    report = export_model(backbone(), tmp_path / "a.pt2", size_voxels=SIZE, dynamic="none")
    assert json.loads(report.model_dump_json())["outputs"]["map1"] == [1, 4, 8, 12, 16]
    assert np.isfinite(report.largest_difference)
