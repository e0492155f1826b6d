from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.nets.factory import create_backbone
from voxlift.weights.container import Container
from voxlift.weights.file import WeightFile, read_weight_file
from voxlift.weights.foreign.cspr import CsprFormat
from voxlift.weights.foreign.kinetics import KineticsFormat
from voxlift.weights.foreign.medicalnet import MedicalNetFormat
from voxlift.weights.formats import recognise
from voxlift.weights.load import load_weights

Maker = Callable[..., Any]
Translated = Callable[[Any, Container], WeightFile]
NATIVE: dict[str, Any] = {
    "stem_stride": (1, 2, 2),
    "pool_stride": (1, 2, 2),
    "stage_strides": ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)),
}
OTHERS = (MedicalNetFormat(), KineticsFormat())
KNOWN = CsprFormat()


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": (2, 2, 2, 2)},
        {"blocks": (2, 2, 2, 2), "project_first": True},
        {"blocks": (2, 2, 2, 2), "norm": "gn", "width": 32},
        {"blocks": (3, 4, 6, 3), "bottleneck": True},
    ],
    ids=["published", "older", "group norm", "bottlenecks"],
)
def test_ours_computes_what_theirs_does(
    make_their_resnet: Maker, make_container: Maker, translated: Translated, options: Any
) -> None:
    theirs = make_their_resnet(**NATIVE, **options)
    file = translated(KNOWN, make_container(theirs.state_dict(), extras={"meta": {}}))
    assert file.header.geometry == named_geometry("pretrain")
    ours = create_backbone(file.header.architecture.name, weights=file).double().eval()
    report = load_weights(ours, file)
    assert (report.missing, report.unused, report.coverage) == ({}, {}, 1.0)
    volume = torch.randn(2, 1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(ours(volume), theirs(volume), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_baseline_with_acs_has_to_be_declared_and_computes_what_theirs_does(
    make_their_resnet: Maker, tmp_path: Path
) -> None:
    """Its kernels are planar; theirs in 3D are written out with zeros beside the plane."""
    strides = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    theirs = make_their_resnet(blocks=(2, 2, 2, 2), pool_stride=(2, 2, 2), stage_strides=strides)
    state = {}
    for name, tensor in theirs.state_dict().items():
        state[f"backbone.{name}"] = tensor
        if tensor.ndim == 5:
            edge = tensor.shape[-1]
            flat, middle = tensor[:, :, 0].clone(), edge // 2
            state[f"backbone.{name}"] = flat
            axial, coronal, sagittal = (part for part in torch.arange(len(flat)).tensor_split(3))
            with torch.no_grad():
                tensor.zero_()
                tensor[axial, :, middle] = flat[axial]
                tensor[coronal, :, :, middle] = flat[coronal]
                tensor[sagittal, :, :, :, middle] = flat[sagittal]
    path = tmp_path / "iter_1000.pth"
    head = {"decode_head.conv_seg.weight": torch.zeros(14, 16, 1, 1)}
    torch.save({"meta": {}, "state_dict": state | head}, path)
    with pytest.raises(
        WeightsError, match=r"2D ResNet, which can be made 3D in several ways.*acs:"
    ):
        create_backbone(weights=path)
    file = read_weight_file(path, declared="acs")
    assert "give that geometry, such as geometry='unet'" in file.notes[-1]
    ours = create_backbone(weights=file, geometry="unet").double().eval()
    volume = torch.randn(1, 1, 32, 34, 33, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(ours(volume), theirs(volume), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_baseline_in_two_and_a_half_dimensions_is_refused(
    make_their_resnet: Maker, make_container: Maker
) -> None:
    state = {
        f"backbone.{name}": tensor[:, :, :1] if tensor.ndim == 5 else tensor
        for name, tensor in make_their_resnet().state_dict().items()
    }
    container = make_container(state, extras={"meta": {}})
    assert recognise(container) == "cspr"
    with pytest.raises(WeightsError, match=r"kernel of \(1, 7, 7\), one slice deep.*2\.5d:FILE"):
        KNOWN.translate(container)


def test_the_marks_of_the_authors_files(make_their_resnet: Maker, make_container: Maker) -> None:
    state = make_their_resnet().state_dict()
    groups = make_their_resnet(norm="gn", width=32).state_dict()
    below = {f"backbone.{name}": tensor for name, tensor in state.items()}
    marked = [
        make_container(below, extras={"meta": {}}),
        make_container({**below, "head.fc.weight": torch.zeros(1000, 32)}),
        make_container({**below, "neck.convs.0.weight": torch.zeros(1)}, prefix="module."),
        make_container({**below, "rpn_head.rpn_conv.weight": torch.zeros(1)}),
        make_container({**below, "roi_head.bbox_head.fc.weight": torch.zeros(1)}),
        make_container(below, sha256="5ff2ecb7" + "0" * 56),
        make_container(state, extras={"meta": {"epoch": 100}}),
        make_container(state, sha256="5ff2ecb7" + "0" * 56),
        make_container(groups),
        make_container(groups, prefix="module."),
    ]
    for container in marked:
        assert recognise(container) == "cspr"


@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone."])
@pytest.mark.parametrize(
    ("options", "found"),
    [({}, "cspr, medicalnet"), ({"in_channels": 3}, "cspr, kinetics")],
)
def test_a_backbone_alone_is_asked_about(
    make_their_resnet: Maker, make_container: Maker, prefix: str, options: Any, found: str
) -> None:
    state = {prefix + name: t for name, t in make_their_resnet(**options).state_dict().items()}
    for beside in ({}, {f"{prefix.removesuffix('backbone.')}classifier.weight": torch.zeros(2)}):
        container = make_container({**state, **beside})
        with pytest.raises(WeightsError, match=rf"several formats: {found}\..*cspr:weights\.pth"):
            recognise(container)
        translation = KNOWN.translate(container)
        assert translation.header.geometry == named_geometry("pretrain")
        assert translation.ignored.keys() == beside.keys()


def test_a_backbone_of_other_channels_is_nobodys(
    make_their_resnet: Maker, make_container: Maker
) -> None:
    state = make_their_resnet(in_channels=2).state_dict()
    with pytest.raises(WeightsError, match=r"unknown layout.*say so, as in cspr:"):
        recognise(make_container(state, prefix="backbone."))


def test_a_bare_file_has_to_be_declared(make_their_resnet: Maker, make_container: Maker) -> None:
    bare = make_container(make_their_resnet().state_dict())
    assert KNOWN.recognises(bare)
    assert OTHERS[0].recognises(bare)
    assert KNOWN.translate(bare).header.geometry == named_geometry("pretrain")
    assert OTHERS[0].translate(bare).header.geometry == named_geometry("medicalnet")
    assert OTHERS[1].translate(bare).header.geometry.stem_stride == (1, 2, 2)
    assert not KNOWN.recognises(make_container({"a": torch.ones(1)}))


def test_what_stands_beside_the_backbone_is_named(
    make_their_resnet: Maker, make_container: Maker
) -> None:
    state = {f"backbone.{n}": t for n, t in make_their_resnet().state_dict().items()}
    others = {
        "head.fc.weight": torch.zeros(1000, 32),
        "head.fc.bias": torch.zeros(1000),
        "neck.lateral_convs.0.conv.weight": torch.zeros(1),
        "rpn_head.rpn_conv.weight": torch.zeros(1),
        "decode_head.conv_seg.weight": torch.zeros(1),
        "ema_backbone_conv1_weight": torch.zeros(1),
    }
    container = make_container({**state, **others}, extras={"optimizer": {}, "meta": {}})
    translation = KNOWN.translate(container)
    assert translation.ignored.keys() == {*others, "optimizer"}
    assert "the file's 1000 classes" in translation.ignored["head.fc.weight"]
    assert "detector" in translation.ignored["neck.lateral_convs.0.conv.weight"]
    assert "segmenter" in translation.ignored["decode_head.conv_seg.weight"]
    assert "training" in translation.ignored["optimizer"]
    assert "conv1.weight" in translation.tensors
    preprocessing = translation.header.preprocessing
    assert preprocessing is not None
    assert (preprocessing.mean, preprocessing.std, preprocessing.unit) == (114.495, 57.63, "0-255")
    bare = make_container({**make_their_resnet().state_dict(), "fc.weight": torch.zeros(9, 32)})
    assert list(KNOWN.translate(bare).ignored) == ["fc.weight"]


def test_the_older_downsample_is_told_of(make_their_resnet: Maker, make_container: Maker) -> None:
    older = make_container(make_their_resnet(project_first=True).state_dict(), prefix="backbone.")
    translation = KNOWN.translate(older)
    assert translation.header.architecture.project_first
    assert "projects its shortcut too" in translation.notes[0]


def test_a_declared_file_of_another_kind_is_refused(make_container: Maker) -> None:
    with pytest.raises(WeightsError, match="holds no 3D ResNet as CSPR saves it"):
        KNOWN.translate(make_container({"backbone.conv1_custom.weight": torch.ones(1)}))
