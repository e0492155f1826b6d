"""Pyramid and proposals of MP3D's detectors, against their function written out in plain torch."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from voxlift.core.detection_settings import DetectorSettings
from voxlift.core.report import LoadReport
from voxlift.nets.detector import Detector
from voxlift.nets.slice_encoder import MP3D
from voxlift.weights.file import read_weight_file
from voxlift.weights.load import load_weights

Tensors = dict[str, Tensor]
WIDTH, CHANNELS, STRIDES = 4, 8, (4, 8, 16, 32, 64)


def make_backbone() -> Tensors:
    """Random numbers under the names of the file; the backbone has tests of its own."""
    tensors: Tensors = {"conv1_custom.weight": torch.randn(WIDTH, 1, 1, 7, 7)}
    norms = {"norm1": WIDTH}
    before, index = WIDTH, 0
    for stage in range(4):
        after = WIDTH * 2**stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            second = before if index % 3 == 1 else after
            shapes = ((before, 1, 3, 3), (second, 3, 1, 1), (after, 1, 3, 3), (after, 3, 1, 1))
            for number, shape in enumerate(shapes, start=1):
                tensors[f"{name}.conv{number}.weight"] = torch.randn(after, *shape) / 4
                norms[f"{name}.norm_{number}"] = after
            if before != after:
                tensors[f"{name}.downsample.0.weight"] = torch.randn(after, before, 1, 1, 1)
                norms[f"{name}.downsample.1"] = after
            before, index = after, index + 1
        tensors[f"groupconv_{stage + 1}.weight"] = torch.randn(after, 3, 1, 1)
    for name, channels in norms.items():
        tensors |= {f"{name}.weight": torch.rand(channels), f"{name}.bias": torch.rand(channels)}
    return tensors


def make_heads(box_head: str = "roi_head.bbox_head", *, num_levels: int = 4) -> Tensors:
    tensors: Tensors = {}

    def conv(name: str, *shape: int) -> None:
        tensors[f"{name}.weight"] = torch.randn(shape) / math.prod(shape[1:]) ** 0.5
        tensors[f"{name}.bias"] = torch.randn(shape[0])

    for level in range(4):
        conv(f"neck.lateral_convs.{level}.conv", CHANNELS, WIDTH * 2**level, 1, 1)
    for level in range(num_levels):
        conv(f"neck.fpn_convs.{level}.conv", CHANNELS, CHANNELS, 3, 3)
    conv("rpn_head.rpn_conv", CHANNELS, CHANNELS, 3, 3)
    conv("rpn_head.rpn_cls", 3, CHANNELS, 1, 1)
    conv("rpn_head.rpn_reg", 12, CHANNELS, 1, 1)
    conv(f"{box_head}.shared_fcs.0", 16, CHANNELS * 49)
    conv(f"{box_head}.shared_fcs.1", 16, 16)
    conv(f"{box_head}.fc_cls", 2, 16)
    conv(f"{box_head}.fc_reg", 4, 16)
    return tensors


def load(folder: Path, heads: Tensors) -> tuple[Detector, LoadReport]:
    state = {f"backbone.{name}": tensor for name, tensor in make_backbone().items()}
    path = folder / "detector.pth"
    torch.save({"meta": {}, "state_dict": state | heads}, path)
    file = read_weight_file(path)
    backbone = MP3D(file.header.architecture, file.header.geometry)
    settings = DetectorSettings(fpn_channels=CHANNELS, head_width=16)
    model = Detector(backbone, num_classes=1, settings=settings)
    report = load_weights(model, file)
    return model.double().eval(), report


def taken(report: LoadReport) -> set[str]:
    return {name.split(".")[0] for name in report.exact if not name.startswith("backbone.")}


def reference_pyramid(tensors: Tensors, planes: list[Tensor]) -> list[Tensor]:
    """From the coarsest down, add what is below twice as large; pool for one more level."""

    def conv(name: str, x: Tensor, padding: int) -> Tensor:
        weight, bias = (tensors[f"neck.{name}.conv.{part}"].double() for part in ("weight", "bias"))
        return functional.conv2d(x, weight, bias, padding=padding)

    merged = [conv(f"lateral_convs.{level}", plane, 0) for level, plane in enumerate(planes)]
    for level in (2, 1, 0):
        height, width = merged[level].shape[-2:]
        below = merged[level + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
        merged[level] = merged[level] + below[:, :, :height, :width]
    maps = [conv(f"fpn_convs.{level}", plane, 1) for level, plane in enumerate(merged)]
    return [*maps, maps[-1][:, :, ::2, ::2]]


def reference_proposals(tensors: Tensors, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Score and box of every anchor of the first image: levels, rows, columns, ratios in turn."""
    part = {name: t.double() for name, t in tensors.items() if name.startswith("rpn_head.")}

    def conv(name: str, x: Tensor, padding: int) -> Tensor:
        weight, bias = part[f"rpn_head.{name}.weight"], part[f"rpn_head.{name}.bias"]
        return functional.conv2d(x, weight, bias, padding=padding)

    scores, boxes = [], []
    for level, stride in zip(maps, STRIDES, strict=True):
        hidden = conv("rpn_conv", level, 1).clamp(min=0)
        logits, shifts = conv("rpn_cls", hidden, 0)[0], conv("rpn_reg", hidden, 0)[0]
        for row in range(level.shape[2]):
            for column in range(level.shape[3]):
                for number, ratio in enumerate((0.5, 1.0, 2.0)):
                    scores.append(1 / (1 + math.exp(-logits[number, row, column])))
                    height, width = 4 * stride * ratio**0.5, 4 * stride / ratio**0.5
                    dx, dy, dw, dh = shifts[4 * number : 4 * number + 4, row, column].tolist()
                    x, y = column * stride + dx * width, row * stride + dy * height
                    width, height = width * math.exp(dw), height * math.exp(dh)
                    boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return torch.tensor(scores), torch.tensor(boxes)


@torch.no_grad()
def test_the_same_pyramid_and_the_same_proposals(tmp_path: Path) -> None:
    heads = make_heads()
    # Small enough that no box is clipped to the largest that either detector allows.
    heads["rpn_head.rpn_reg.weight"] /= 10
    heads["rpn_head.rpn_reg.bias"] /= 10
    model, report = load(tmp_path, heads)
    assert taken(report) == {"fpn", "head"}
    volume = torch.randn(1, 1, 3, 64, 128, dtype=torch.float64)
    maps = model.pyramid(volume)
    expected = reference_pyramid(heads, list(model.backbone(volume)))
    torch.testing.assert_close(list(maps.values()), expected, rtol=1e-9, atol=1e-9)

    rpn: Any = model.head.rpn
    levels = list(maps.values())
    logits, shifts = concat_box_prediction_layers(*rpn.head(levels))
    anchors = rpn.anchor_generator(ImageList(volume, [(64, 128)]), levels)
    boxes = rpn.box_coder.decode(shifts, [each.double() for each in anchors])[:, 0]
    scores, wanted = reference_proposals(heads, expected)
    torch.testing.assert_close(logits[:, 0].sigmoid(), scores.double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(boxes, wanted.double(), rtol=1e-5, atol=1e-4)


def test_the_report_says_what_is_taken_and_why_not_the_rest(tmp_path: Path) -> None:
    _, report = load(tmp_path, make_heads())
    assert any("taken from behind the backbone: fpn, head.rpn" in note for note in report.notes)
    assert any("4 strides, ratios 0.5, 1 and 2" in note for note in report.notes)
    left = {name: why for name, why in report.ignored.items() if name.startswith("roi_head.")}
    assert len(left) == 8
    assert all("at other points (RoIAlign)" in why for why in left.values())


def test_of_older_files_only_the_pyramid_is_taken(tmp_path: Path) -> None:
    _, report = load(tmp_path, make_heads("bbox_head"))
    assert taken(report) == {"fpn"}
    assert "anchors of version 1" in report.ignored["rpn_head.rpn_cls.weight"]
    assert "RoIAlign" in report.ignored["bbox_head.fc_cls.weight"]


@pytest.mark.parametrize("case", ["learnt coarsest level", "norm", "softmax"])
def test_other_parts_are_left_with_the_reason(tmp_path: Path, case: str) -> None:
    heads = make_heads(num_levels=5 if case == "learnt coarsest level" else 4)
    if case == "norm":
        heads["neck.fpn_convs.0.gn.weight"] = torch.ones(CHANNELS)
    if case == "softmax":
        heads["rpn_head.rpn_cls.weight"] = torch.zeros(6, CHANNELS, 1, 1)
    _, report = load(tmp_path, heads)
    assert taken(report) == ({"fpn"} if case == "softmax" else set())
    assert "one sigmoid score" in report.ignored["rpn_head.rpn_cls.weight"]
    if case != "softmax":
        assert "its pyramid is another" in report.ignored["neck.lateral_convs.0.conv.weight"]
