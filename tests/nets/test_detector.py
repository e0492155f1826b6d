import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from voxlift.core.architecture import Architecture
from voxlift.core.detection_settings import DetectorSettings, Head
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.nets.detection_head import Target
from voxlift.nets.detector import Detector
from voxlift.nets.factory import create_backbone
from voxlift.nets.resnet import ResNet
from voxlift.nets.slice_encoder import MP3D, SliceEncoder, SliceResNet
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

HEADS: tuple[Head, ...] = get_args(Head)
PARTS = {
    "faster-rcnn": {"objectness", "proposal_box", "class", "box"},
    "retinanet": {"class", "box"},
    "fcos": {"class", "box", "center"},
}


def encoder(
    num_slices: int = 3, *, name: str = "resnet10", geometry: str | Geometry = "pretrain"
) -> SliceEncoder:
    fields = {"name": name, "width": 4, "stem_kernel": 3, "norm": "group", "num_slices": num_slices}
    family = MP3D if name.startswith("mp3d") else SliceResNet
    return family(Architecture.model_validate(fields), named_geometry(geometry))


def build(
    head: Head = "faster-rcnn", backbone: SliceEncoder | None = None, **fields: Any
) -> Detector:
    num_classes = fields.pop("num_classes", 2)
    given = {"head": head, "fpn_channels": 32, "head_width": 16, "box_samples": 32, **fields}
    settings = DetectorSettings.model_validate(given)
    return Detector(backbone or encoder(), num_classes=num_classes, settings=settings)


def target(
    boxes: list[list[float]], labels: list[int], ignored: list[list[float]] | None = None
) -> Target:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignored": torch.tensor(ignored) if ignored else torch.zeros(0, 4),
    }


TARGETS = [
    target([[4, 4, 20, 20], [30, 8, 60, 40]], [0, 1], [[0.0, 0, 9, 9]]),
    target([], []),
]


def volumes() -> list[Tensor]:
    return [torch.randn(1, 3, 64, 70), torch.randn(1, 3, 50, 40)]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["resnet10", "mp3d18"])
def test_losses_in_training_and_boxes_in_evaluation(head: Head, name: str) -> None:
    model = build(head, encoder(name=name), score_threshold=0.0, max_boxes=9)
    losses = model.train()(volumes(), TARGETS)
    assert isinstance(losses, dict)
    assert losses.keys() == PARTS[head]
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    found = model.eval().detect(volumes())
    for image, volume in zip(found, volumes(), strict=True):
        height, width = volume.shape[-2:]
        assert image["boxes"].shape == (9, 4)
        assert image["boxes"].min() >= 0
        assert (image["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert (image["scores"].diff() <= 0).all()
        assert set(image["labels"].tolist()) <= {0, 1}


@pytest.mark.parametrize("head", HEADS)
def test_an_image_is_the_same_alone_and_in_a_batch(head: Head) -> None:
    model = build(head, score_threshold=0.0).double().eval()
    images = [torch.randn(1, 3, *size, dtype=torch.float64) for size in ((64, 64), (50, 40))]
    together = model.detect(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = model.detect([image])
        torch.testing.assert_close(alone["scores"], found["scores"], atol=1e-6, rtol=0)
        torch.testing.assert_close(alone["boxes"], found["boxes"], atol=1e-3, rtol=0)
        (as_batch,) = model.detect(image[None])
        assert torch.equal(as_batch["scores"], alone["scores"])


def test_maps_of_the_pyramid() -> None:
    model = build().eval()
    maps = model.pyramid(torch.randn(2, 1, 3, 64, 128))
    assert model.strides == (4, 8, 16, 32, 64)
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    for level, stride in zip(maps.values(), model.strides, strict=True):
        assert level.shape == (2, 32, 64 // stride, 128 // stride)


def test_levels_follow_the_geometry_that_is_set() -> None:
    model = build().eval()
    for name, strides in (("thumbnail", (1, 2, 4, 8, 16)), ("pretrain", (4, 8, 16, 32, 64))):
        model.backbone.geometry = named_geometry(name)
        assert model.strides == strides
        seen: list[Tensor] = []
        hook = model.head.get_submodule("rpn.anchor_generator").register_forward_hook(
            lambda module, inputs, anchors, seen=seen: seen.append(anchors[0])
        )
        model.detect([torch.randn(1, 3, 33, 20)])
        hook.remove()
        edge = strides[-1] * math.ceil(33 / strides[-1]), strides[-1] * math.ceil(20 / strides[-1])
        pixels = [edge[0] // stride * (edge[1] // stride) for stride in strides]
        assert len(seen[0]) == 3 * sum(pixels)
        first = [seen[0][3 * sum(pixels[:level]) + 1] for level in range(5)]
        assert [(box[2] - box[0]).item() for box in first] == [4 * stride for stride in strides]


def test_strides_that_do_not_double() -> None:
    geometry = Geometry(
        stem_stride=(1, 3, 3), stage_strides=((1, 1, 1), (1, 2, 2), (1, 1, 1), (1, 2, 2))
    )
    model = build(backbone=encoder(geometry=geometry), score_threshold=0.0)
    assert model.strides == (3, 6, 6, 12, 24)
    assert len(model.eval().detect([torch.randn(1, 3, 30, 50)])[0]["boxes"])


@pytest.mark.parametrize("head", HEADS)
def test_thresholds_can_be_set(head: Head) -> None:
    model = build(head, score_threshold=0.0, max_boxes=20).eval()
    image = [torch.randn(1, 3, 64, 64)]
    (many,) = model.detect(image)
    assert (model.score_threshold, model.max_boxes) == (0.0, 20)
    model.max_boxes = 3
    (few,) = model.detect(image)
    assert torch.equal(few["scores"], many["scores"][:3])
    model.score_threshold = float(few["scores"][1])
    (one,) = model.detect(image)
    assert torch.equal(one["boxes"], many["boxes"][:1])


@pytest.mark.parametrize("head", HEADS)
def test_boxes_are_precise_in_half_precision(head: Head) -> None:
    model = build(head, score_threshold=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train().compute_losses(volumes(), TARGETS)
        found = model.eval().detect(volumes())
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert {image["boxes"].dtype for image in found} == {torch.float32}
    edges = torch.cat([image["boxes"] for image in found]).flatten()
    assert not torch.equal(edges, edges.bfloat16().float())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (target([[4, 4, 4, 9]], [0]), r"\[4.0, 4.0, 4.0, 9.0\].*has no area"),
        (target([[4, 9, 8, 4]], [0]), "has no area"),
        (target([[math.nan, 4, 8, 9]], [0]), "has no area"),
        (target([[70, 4, 80, 9]], [0]), "outside its image of 64 x 70 pixels"),
        (target([[-9, 4, 0, 9]], [0]), "outside its image"),
        (target([[4, 4, 8, 9]], [2]), "Labels from 2 to 2 for a detector of 2 classes"),
        (target([[4, 4, 8, 9]], [-1]), "Labels from -1"),
        (target([[4, 4, 8, 9]], [0, 1]), r"\(1, 4\), labels of \(2,\)"),
        (target([], [], [[4.0, 4]]), r"ignored regions of \(1, 2\)"),
        (target([], [], [[4.0, 4, 4, 8]]), "has no area"),
    ],
)
def test_targets_that_would_train_nonsense_are_refused(wrong: Target, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build().train()(volumes(), [wrong, target([], [])])


@pytest.mark.parametrize("head", HEADS)
def test_regions_to_be_ignored_may_be_left_out(head: Head) -> None:
    model = build(head).train()
    bare: Any = [{"boxes": t["boxes"], "labels": t["labels"]} for t in TARGETS]
    assert all(loss.isfinite() for loss in model.compute_losses(volumes(), bare).values())


def test_every_volume_needs_its_target_in_training_only() -> None:
    model = build().train()
    with pytest.raises(DataError, match="2 volumes and targets of 0"):
        model(volumes())
    with pytest.raises(DataError, match="2 volumes and targets of 1"):
        model(volumes(), TARGETS[:1])
    assert len(model.eval()(volumes(), TARGETS)) == 2


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one class"):
        build(num_classes=0)
    with pytest.raises(ConfigError, match="at least 2 strides"):
        build(anchor_scale=1.0)
    plain = ResNet(Architecture(name="resnet10", width=4), named_geometry("pretrain"))
    with pytest.raises(ConfigError, match="with num_slices"):
        Detector(plain, num_classes=1)


def test_the_papers_detector() -> None:
    with torch.device("meta"):
        shape = Architecture(name="mp3d63", norm="group", num_slices=9)
        model = Detector(MP3D(shape, named_geometry("pretrain")), num_classes=1)
    fpn = sum(channels * 256 + 256 for channels in (256, 512, 1024, 2048)) + 4 * (9 * 256**2 + 256)
    rpn = 9 * 256**2 + 256 + 257 * 3 * 5
    box = (256 * 49 + 1) * 1024 + 1025 * 1024 + 1025 * (2 + 2 * 4)
    counts = [
        sum(p.numel() for p in m.parameters()) for m in (model.backbone, model.fpn, model.head)
    ]
    assert counts == [27_316_288, fpn, rpn + box]


@pytest.mark.parametrize("head", HEADS)
def test_only_the_last_group_of_the_head_has_the_number_of_classes_in_it(head: Head) -> None:
    one, two = (dict(build(head, num_classes=n).named_parameters()) for n in (1, 2))
    groups = build(head).head_groups
    for name, parameter in two.items():
        of = [group for group in groups if name.startswith(f"{group}.")]
        assert bool(of) != name.startswith("backbone."), name
        if of:
            same = one[name].shape == parameter.shape
            assert same == (max(of, key=groups.index) != groups[-1]), name


def test_a_detector_of_3_slices_becomes_one_of_9(tmp_path: Path) -> None:
    source = build(num_classes=2)
    nn.init.normal_(source.backbone.get_parameter("group_transform.1.weight"))
    save_weights(source, tmp_path / "coco.safetensors")
    model = build(backbone=encoder(9))
    report = load_weights(model, tmp_path / "coco.safetensors")
    transforms = {f"backbone.group_transform.{stage}.weight" for stage in (1, 2, 3, 4)}
    assert set(report.adapted) == transforms
    assert not report.ignored
    for name, tensor in source.state_dict().items():
        if name not in transforms:
            assert torch.equal(model.state_dict()[name], tensor), name
    # A volume whose slices are equal is to both what a picture is, as long as nothing was learnt
    # of single slices.
    assert len(model.eval().detect([torch.randn(1, 9, 64, 64)])) == 1


def test_only_the_last_layers_start_anew_for_other_classes(tmp_path: Path) -> None:
    source = build(num_classes=5)
    save_weights(source, tmp_path / "coco.safetensors")
    model = build(num_classes=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_weights(model, tmp_path / "coco.safetensors")
    assert report.coverage == 1
    last = "head.roi_heads.box_predictor."
    assert set(report.ignored) == {name for name in before if name.startswith(last)}
    for name, tensor in model.state_dict().items():
        expected = before if name.startswith(last) else source.state_dict()
        assert torch.equal(tensor, expected[name]), name


def discs(
    count: int, *, size: int, num_slices: int = 3, seed: int = 0
) -> tuple[Tensor, list[Target]]:
    """Two bright discs in noise in each image; those of class 1 have a hole."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 1, num_slices, size, size, generator=generator)
    targets = []
    y, x = torch.meshgrid(*[torch.arange(size) + 0.5] * 2, indexing="ij")
    for image in images:
        boxes, labels = [], []
        # One in the upper half, one in the lower.
        for half in (0.25, 0.75):
            radius, across, hole = torch.rand(3, generator=generator).tolist()
            radius = size * (0.09 + 0.08 * radius)
            row, column = half * size, radius + (size - 2 * radius) * across
            distance = ((y - row) ** 2 + (x - column) ** 2).sqrt()
            shape = (distance < radius) & ((distance > 0.6 * radius) | (hole < 0.5))
            image[:, :, shape] += 2
            boxes.append([column - radius, row - radius, column + radius, row + radius])
            labels.append(int(hole >= 0.5))
        targets.append(target(boxes, labels))
    return images, targets


def overfit(
    model: Detector, images: Tensor, targets: list[Target], *, steps: int, lr: float
) -> None:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 10)
        losses = model.compute_losses(images, targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()


def mistakes(model: Detector, images: Tensor, targets: list[Target]) -> tuple[int, int]:
    """Count the discs that are not found by a box of their class, and the sure boxes of nothing."""
    missed = wrong = 0
    for found, truth in zip(model.eval().detect(images), targets, strict=True):
        sure = found["scores"] > 0.5
        hits = box_iou(truth["boxes"], found["boxes"][sure]) > 0.5
        hits &= truth["labels"][:, None] == found["labels"][sure][None]
        missed += int((~hits.any(1)).sum())
        wrong += int((~hits.any(0)).sum())
    return missed, wrong


def test_a_few_steps_learn_a_few_images() -> None:
    images, targets = discs(2, size=64)
    backbone = create_backbone("resnet10", width=8, stem=3, num_slices=3, norm="group")
    assert isinstance(backbone, SliceEncoder)
    model = build(backbone=backbone, head_width=32)
    before = model.train().compute_losses(images, targets)
    overfit(model, images, targets, steps=60, lr=5e-3)
    after = model.train().compute_losses(images, targets)
    assert after["class"] < 0.5 * before["class"]
    assert after["objectness"] < 0.2 * before["objectness"]
    for found, truth in zip(model.eval().detect(images), targets, strict=True):
        assert box_iou(truth["boxes"], found["boxes"]).max(1).values.min() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_narrow_detector_learns_a_handful_of_images(head: Head) -> None:
    images, targets = discs(4, size=128)
    backbone = create_backbone("resnet18", weights="tiny", geometry="pretrain", num_slices=3)
    settings = DetectorSettings(head=head, fpn_channels=64, head_width=256, box_samples=128)
    model = Detector(backbone, num_classes=2, settings=settings)
    overfit(model, images, targets, steps=100, lr=1e-3)
    assert mistakes(model, images, targets) == (0, 0)
