from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from voxlift.core.detection_settings import DetectorSettings
from voxlift.nets.detection_head import HeadSettings, Target, lies_on
from voxlift.nets.one_stage_head import OneStageHead, fcos_head, retinanet_head

SIZE = 64
LESION, INSIDE, CROWD = [10.0, 10, 26, 26], [40.0, 20, 56, 36], [32.0, 0, 64, 64]
MAKERS = [retinanet_head, fcos_head]
Maker = Callable[[HeadSettings], OneStageHead]


def settings(channels: int = 32, *, max_boxes: int = 100) -> HeadSettings:
    return HeadSettings(
        num_levels=3,
        num_classes=2,
        detector=DetectorSettings(
            fpn_channels=channels,
            head_width=16,
            score_threshold=0.0,
            max_boxes=max_boxes,
            box_samples=64,
        ),
    )


def maps() -> dict[str, Tensor]:
    sizes = {"0": SIZE // 4, "1": SIZE // 8, "pool": SIZE // 16}
    return {name: torch.randn(1, 32, edge, edge) for name, edge in sizes.items()}


def batch(size: tuple[int, int] = (SIZE, SIZE)) -> ImageList:
    return ImageList(torch.zeros(1, 1, 3, SIZE, SIZE), [size])


def target(boxes: list[list[float]], ignored: list[list[float]]) -> Target:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.zeros(len(boxes), dtype=torch.int64),
        "ignored": torch.tensor(ignored).reshape(-1, 4),
    }


@pytest.mark.parametrize("make", MAKERS)
def test_logits_on_regions_are_of_no_account_but_for_boxes_there(make: Maker) -> None:
    head = make(settings()).train()
    levels = list(maps().values())
    outputs = head.net.head(levels)
    (anchors,) = head.net.anchor_generator(batch(), levels)
    counts = [len(anchors) * 16 // 21, len(anchors) * 4 // 21, len(anchors) // 21]
    more = (counts,) if make is fcos_head else ()

    def class_loss(logits: Tensor, *, boxes: list[list[float]]) -> Tensor:
        loss: Tensor = head.net.compute_loss(
            [target(boxes, [CROWD])], {**outputs, "cls_logits": logits}, [anchors], *more
        )["classification"]
        return loss

    for boxes in ([], [LESION], [LESION, INSIDE]):
        logits = outputs["cls_logits"].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(class_loss(logits, boxes=boxes), logits)
        moved = gradient[0].abs().sum(1) > 0
        on_region = lies_on(anchors, torch.tensor([CROWD]))
        near = torch.zeros_like(moved)
        if boxes:
            near = box_iou(anchors, torch.tensor(boxes)).max(1).values > 0
        # All that is away from the region teaches, but for what RetinaNet leaves undecided.
        assert moved[~on_region & ~near].all()
        assert not moved[on_region & ~near].any()
        assert moved[on_region].any() == (INSIDE in boxes)


@pytest.mark.parametrize("make", MAKERS)
def test_a_region_that_covers_all_costs_nothing(make: Maker) -> None:
    head = make(settings()).train()
    losses = head(batch(), maps(), [target([], [[-200.0, -200, 300, 300]])])
    assert isinstance(losses, dict)
    assert {name: loss.item() for name, loss in losses.items()} == dict.fromkeys(losses, 0.0)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("make", MAKERS)
def test_no_box_lies_in_the_padding(make: Maker) -> None:
    head = make(settings(max_boxes=1000)).eval()
    with torch.no_grad():
        (found,) = head(batch((20, 33)), maps(), None)
    assert isinstance(found, dict)
    boxes = found["boxes"]
    assert len(boxes) == len(found["scores"]) == len(found["labels"]) > 0
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([33, 20, 33, 20])).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("make", MAKERS)
def test_heads_of_any_width_take_a_single_pixel(make: Maker) -> None:
    for channels in (6, 17, 32):
        head = make(settings(channels)).train()
        pixel = torch.randn(1, channels, 1, 1)
        assert all(value.isfinite().all() for value in head.net.head([pixel]).values())
        # A norm over each channel alone would have made nothing of it.
        tower = head.net.head.classification_head.conv
        assert channels == 6 or tower(pixel).count_nonzero() > 0


def test_the_full_width_is_normalised_in_32_groups() -> None:
    norms = [m for m in fcos_head(settings(256)).modules() if isinstance(m, nn.GroupNorm)]
    assert [norm.num_groups for norm in norms] == [32] * 8
