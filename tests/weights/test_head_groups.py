"""What a detector takes of another's head: the parts in order, up to the first that differs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.detection_settings import DetectorSettings, Head
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.report import LoadReport
from voxlift.nets.detector import Detector
from voxlift.nets.slice_encoder import SliceResNet
from voxlift.weights.load import load_weights
from voxlift.weights.match import match_tensors
from voxlift.weights.save import save_weights
from voxlift.weights.target import find_target

Make = Callable[..., Any]

HEADS: tuple[Head, ...] = get_args(Head)
PREDICTORS = {
    "faster-rcnn": "head.roi_heads.box_predictor.",
    "retinanet": "head.net.head.classification_head.cls_logits.",
    "fcos": "head.net.head.classification_head.cls_logits.",
}


def detector(head: Head, *, num_classes: int = 2, seed: int = 0, **fields: Any) -> Detector:
    """A detector of width 8 whose every number is random and its own."""
    architecture = Architecture(name="resnet10", width=8, stem_kernel=3, norm="group", num_slices=3)
    backbone = SliceResNet(architecture, named_geometry("pretrain"))
    given = {"head": head, "fpn_channels": 8, "head_width": 8, **fields}
    settings = DetectorSettings.model_validate(given)
    model = Detector(backbone, num_classes=num_classes, settings=settings).eval()
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def load(
    tmp_path: Path, trained: nn.Module, fresh: nn.Module, **options: Any
) -> tuple[LoadReport, set[str]]:
    """Load one into the other; return the report, and the names taken, which has to be true."""
    before = snapshot(fresh)
    report = load_weights(fresh, save_weights(trained, tmp_path / "a.safetensors"), **options)
    after, theirs = fresh.state_dict(), trained.state_dict()
    taken = {name for name in after if not torch.equal(after[name], before[name])}
    assert all(torch.equal(after[name], theirs[name]) for name in taken)
    assert taken == set(report.exact)
    accounted = {*report.exact, *report.adapted, *report.skipped, *report.ignored}
    assert accounted == {*theirs, *after}
    assert report.is_complete
    assert report.coverage == 1
    return report, {name for name in taken if not name.startswith("backbone.")}


def heads_of(model: nn.Module, *starts: str) -> set[str]:
    return {
        name
        for name in model.state_dict()
        if not name.startswith("backbone.") and name.startswith(starts or "")
    }


@pytest.mark.parametrize("head", HEADS)
def test_a_detector_for_the_same_classes_is_taken_whole(tmp_path: Path, head: Head) -> None:
    model = detector(head, seed=2)
    report, taken = load(tmp_path, detector(head, seed=1), model)
    assert taken == heads_of(model)
    assert not report.ignored
    assert f"taken from behind the backbone: {', '.join(model.head_groups)}" in report.notes


@pytest.mark.parametrize("head", HEADS)
def test_for_other_classes_only_the_last_layers_start_anew(tmp_path: Path, head: Head) -> None:
    model = detector(head, num_classes=1, seed=2)
    report, taken = load(tmp_path, detector(head, num_classes=80, seed=1), model)
    left = heads_of(model, PREDICTORS[head])
    assert left
    assert taken == heads_of(model) - left
    assert report.ignored.keys() == left
    assert all(why.startswith("head left as it is: (") for why in report.ignored.values())
    biases = {"faster-rcnn": "(81,) in the file, (2,)", "retinanet": "(720,) in the file, (9,)"}
    assert biases.get(head, "(80,) in the file, (1,)") in str(report)


@pytest.mark.parametrize(
    ("theirs", "ours"), [(one, two) for one in HEADS for two in HEADS if one != two]
)
def test_of_another_kind_of_head_the_pyramid_is_taken(
    tmp_path: Path, theirs: Head, ours: Head
) -> None:
    model, trained = detector(ours, seed=2), detector(theirs, seed=1)
    report, taken = load(tmp_path, trained, model)
    assert taken == heads_of(model, "fpn.")
    assert report.ignored.keys() == heads_of(model, "head.") | heads_of(trained, "head.")
    for name in heads_of(model, "head.") - trained.state_dict().keys():
        assert report.ignored[name] == "head left as it is: the file has none such"
    for name in trained.state_dict().keys() - model.state_dict().keys():
        assert "for which the model has no place" in report.ignored[name]
    assert "taken from behind the backbone: fpn" in report.notes


def test_behind_a_pyramid_of_another_width_nothing_is_taken(tmp_path: Path) -> None:
    model = detector("faster-rcnn", fpn_channels=16, seed=2)
    report, taken = load(tmp_path, detector("faster-rcnn", seed=1), model)
    assert not taken
    assert report.ignored.keys() == heads_of(model)
    why = report.ignored["fpn.inner_blocks.0.0.weight"]
    assert why == "head left as it is: (8, 8, 1, 1) in the file, (16, 8, 1, 1) in the model"
    # It would fit, but on other features than it was trained on.
    why = report.ignored["head.roi_heads.box_predictor.cls_score.weight"]
    assert why == "head left as it is: fpn, which it stands on, is left"
    why = report.ignored["head.rpn.head.cls_logits.bias"]
    assert why == "head left as it is: fpn, which it stands on, is left"
    assert not any("behind the backbone" in note for note in report.notes)


def test_box_layers_of_another_width_leave_the_proposals(tmp_path: Path) -> None:
    model = detector("faster-rcnn", head_width=16, seed=2)
    report, taken = load(tmp_path, detector("faster-rcnn", seed=1), model)
    assert taken == heads_of(model, "fpn.", "head.rpn.")
    assert report.ignored.keys() == heads_of(model, "head.roi_heads.")
    bias = report.ignored["head.roi_heads.box_predictor.cls_score.bias"]
    assert bias == "head left as it is: head.roi_heads.box_head, which it stands on, is left"


def test_other_anchors_leave_the_rest_of_the_head(tmp_path: Path) -> None:
    model = detector("faster-rcnn", anchor_ratios=(0.5, 1, 2, 4), seed=2)
    report, taken = load(tmp_path, detector("faster-rcnn", seed=1), model)
    assert taken == heads_of(model, "fpn.")
    conv = report.ignored["head.rpn.head.conv.0.0.weight"]
    assert conv == "head left as it is: other parts of it do not fit"


@pytest.mark.parametrize("head", HEADS)
def test_a_head_can_be_required_or_declined(tmp_path: Path, head: Head) -> None:
    trained = detector(head, num_classes=3, seed=1)
    path = save_weights(trained, tmp_path / "a.safetensors")
    model = detector(head, num_classes=2, seed=2)
    before = snapshot(model)
    with pytest.raises(WeightsError, match="the heads differ, and head='required' was asked for"):
        load_weights(model, path, head="required")
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    same = detector(head, num_classes=3, seed=2)
    assert set(load_weights(same, path, head="required").exact) == set(same.state_dict())
    report, taken = load(tmp_path, trained, detector(head, num_classes=3, seed=2), head="none")
    assert not taken
    assert set(report.ignored.values()) == {"head left as it is, as asked"}


def test_what_is_named_is_skipped_and_the_rest_taken(tmp_path: Path) -> None:
    model = detector("faster-rcnn", seed=2)
    report, taken = load(tmp_path, detector("faster-rcnn", seed=1), model, skip=["head.rpn"])
    assert report.skipped.keys() == heads_of(model, "head.rpn.")
    assert taken == heads_of(model) - heads_of(model, "head.rpn.")


def test_a_backbone_alone_leaves_the_head(tmp_path: Path) -> None:
    model = detector("retinanet", seed=2)
    path = save_weights(detector("retinanet", seed=1).backbone, tmp_path / "a.safetensors")
    report = load_weights(model, path)
    assert report.ignored.keys() == heads_of(model)
    assert set(report.ignored.values()) == {"head left as it is: the file has none such"}


def test_a_compiled_detector_is_looked_through(tmp_path: Path, wrap: Make) -> None:
    plain = detector("fcos", num_classes=1, seed=2)
    groups = plain.head_groups
    path = save_weights(detector("fcos", num_classes=4, seed=1), tmp_path / "a.safetensors")
    inner: Any = detector("fcos", num_classes=1, seed=2)
    inner.head = wrap(inner.head)
    assert find_target(plain).head_groups == groups
    assert find_target(inner).head_groups == groups
    assert find_target(wrap(plain)).head_groups == groups
    expected = load_weights(plain, path).exact
    assert load_weights(inner, path).exact == expected
    assert load_weights(wrap(detector("fcos", num_classes=1, seed=2)), path).exact == expected


def test_models_without_groups_take_a_head_whole_or_not_at_all(make_classifier: Make) -> None:
    assert find_target(make_classifier()).head_groups == ()
    ours = {"head.a.weight": torch.zeros(2), "head.b.weight": torch.zeros(2)}
    theirs = {"backbone.c": torch.ones(1), "head.a.weight": torch.ones(2)}
    theirs["head.b.weight"] = torch.ones(3)
    options: dict[str, Any] = {"prefix": "backbone.", "skip": ["c"]}
    match = match_tensors(theirs, ours, **options)
    assert not match.tensors
    assert match.ignored["head.a.weight"] == "head left as it is: other parts of it do not fit"
    match = match_tensors(theirs, ours, head_groups=["head.a", "head.b"], **options)
    assert list(match.tensors) == ["head.a.weight"]
    assert match.head_parts == ["head.a"]


def test_what_is_in_no_group_comes_last() -> None:
    ours = {"head.a.weight": torch.zeros(2), "head.scale": torch.zeros(2)}
    theirs = {"backbone.c": torch.ones(1), "head.a.weight": torch.ones(2)}
    theirs["head.scale"] = torch.ones(2)
    options: dict[str, Any] = {"prefix": "backbone.", "skip": ["c"], "head_groups": ["head.a"]}
    assert match_tensors(theirs, ours, **options).tensors.keys() == ours.keys()
    theirs["head.a.weight"] = torch.ones(3)
    match = match_tensors(theirs, ours, **options)
    assert not match.tensors
    assert match.ignored["head.scale"] == (
        "head left as it is: head.a, which it stands on, is left"
    )
