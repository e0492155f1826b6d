import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss

from voxlift.core.detection_settings import DetectorSettings
from voxlift.nets.detection_head import HeadSettings, Target
from voxlift.nets.two_stage_head import TwoStageHead

SIZE = 64
LESION = [10.0, 10, 26, 26]
CROWD = [31.3, -1, 64, 65]


def settings(**changes: float) -> HeadSettings:
    fields = {"fpn_channels": 8, "head_width": 16, "box_samples": 64, **changes}
    return HeadSettings(
        num_levels=3, num_classes=2, detector=DetectorSettings.model_validate(fields)
    )


def maps(images: int = 1) -> dict[str, Tensor]:
    sizes = {"0": SIZE // 4, "1": SIZE // 8, "pool": SIZE // 16}
    return {
        name: torch.randn(images, 8, edge, edge, requires_grad=True) for name, edge in sizes.items()
    }


def batch(images: int = 1) -> ImageList:
    return ImageList(torch.zeros(images, 1, 3, SIZE, SIZE), [(SIZE, SIZE)] * images)


def regions(
    boxes: list[list[float]], labels: list[int], ignored: list[list[float]] | None = None
) -> Target:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignored": torch.tensor(ignored or []).reshape(-1, 4),
    }


def iou(a: list[float], b: list[float]) -> float:
    edges = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    common = max(edges[0], 0) * max(edges[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


def share(a: list[float], b: list[float]) -> float:
    edges = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    return max(edges[0], 0) * max(edges[1], 0) / ((a[2] - a[0]) * (a[3] - a[1]))


@pytest.mark.parametrize("truths", [[], [LESION], [LESION, [40.0, 20, 52, 36]]])
def test_anchors_on_regions_are_neither_boxes_nor_background(truths: list[list[float]]) -> None:
    head = TwoStageHead(settings())
    anchors = head.rpn.anchor_generator(batch(), list(maps().values()))
    target = regions(truths, [0] * len(truths), [CROWD])
    (labels,), (boxes,) = head.rpn.assign_targets_to_anchors(anchors, [target])
    best = [max(iou(anchor, truth) for anchor in anchors[0].tolist()) for truth in truths]
    for label, box, anchor in zip(labels, boxes, anchors[0].tolist(), strict=True):
        overlaps = [iou(anchor, truth) for truth in truths]
        closest = max(overlaps, default=0)
        # An anchor stands for a box if none overlaps the box more.
        is_best = any(o == pytest.approx(b) for o, b in zip(overlaps, best, strict=True))
        if closest >= 0.7 or is_best:
            expected = 1
            assert box.tolist() == truths[overlaps.index(closest)]
        elif closest >= 0.3:
            expected = -1
        else:
            expected = -1 if share(anchor, CROWD) > 0.5 else 0
        assert label == expected
    assert (labels == -1).sum() > 20
    assert (labels == 1).any() == bool(truths)


def test_proposals_on_regions_are_neither_boxes_nor_background() -> None:
    heads = TwoStageHead(settings()).roi_heads
    inside = [40.0, 20, 52, 36]
    proposals = torch.tensor([LESION, inside, [40, 40, 60, 60], [29, 0, 36, 10], [0, 40, 20, 60]])
    boxes = torch.tensor([LESION, inside, CROWD])
    matches, labels = heads.assign_targets_to_proposals(
        [proposals, proposals], [boxes, boxes[2:]], [torch.tensor([1, 2, -1]), torch.tensor([-1])]
    )
    assert [label.tolist() for label in labels] == [[1, 2, -1, -1, 0], [0, -1, -1, -1, 0]]
    assert matches[0][:2].tolist() == [0, 1]


def test_samples_never_lie_on_a_region() -> None:
    heads = TwoStageHead(settings()).roi_heads
    corners = torch.rand(300, 2) * 48
    proposals = torch.cat([corners, corners + 4 + torch.rand(300, 2) * 12], 1)
    target = {"boxes": torch.tensor([LESION, CROWD]), "labels": torch.tensor([1, -1])}
    (samples,), _, (labels,), _ = heads.select_training_samples([proposals], [target])
    assert len(samples) == 64
    assert set(labels.tolist()) == {0, 1}
    assert all(share(sample, CROWD) <= 0.5 for sample in samples.tolist())


def test_regions_without_anything_else_cost_nothing() -> None:
    head, levels = TwoStageHead(settings()).train(), maps(2)
    # Wide enough for the anchors that reach over the edge too.
    everything = [-100.0, -100, 200, 200]
    losses = head(batch(2), levels, [regions([], [], [everything])] * 2)
    assert isinstance(losses, dict)
    assert {name: loss.item() for name, loss in losses.items()} == dict.fromkeys(losses, 0.0)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.count_nonzero() == 0, name


def test_images_without_boxes_teach_the_background() -> None:
    head, levels = TwoStageHead(settings()).train(), maps(2)
    losses = head(batch(2), levels, [regions([], []), regions([], [])])
    assert isinstance(losses, dict)
    assert losses["objectness"] > 0
    assert losses["class"] > 0
    assert losses["box"] == losses["proposal_box"] == 0
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(level.grad is not None and level.grad.isfinite().all() for level in levels.values())


def test_the_number_of_samples_and_the_thresholds_are_those_asked_for() -> None:
    head = TwoStageHead(settings(box_samples=9, score_threshold=0.3, max_boxes=7)).roi_heads
    assert head.fg_bg_sampler.batch_size_per_image == 9
    assert (head.score_thresh, head.nms_thresh, head.detections_per_img) == (0.3, 0.5, 7)


def test_the_loss_of_boxes_is_quadratic_below_beta() -> None:
    """Of torchvision's beta, 1/9, the loss is torchvision's; of the paper's, 1, it is by hand."""
    proposals = [torch.tensor([LESION, [12.0, 12, 30, 26], [40.0, 40, 60, 60]])]
    targets = [{"boxes": torch.tensor([LESION]), "labels": torch.tensor([1])}]
    found = {}
    for beta in (1 / 9, 1.0):
        torch.manual_seed(0)
        heads = TwoStageHead(settings(box_beta=beta)).train().roi_heads
        seen: list[Tensor] = []
        heads.box_predictor.register_forward_hook(lambda *call, seen=seen: seen.extend(call[2]))
        levels = {name: level for name, level in maps().items() if name != "pool"}
        heads.box_roi_pool.set_strides([4, 8])
        torch.manual_seed(1)
        samples, _, labels, goals = heads.select_training_samples(proposals, targets)
        torch.manual_seed(1)
        found[beta] = heads(levels, proposals, [(SIZE, SIZE)], targets)[1]
        logits, shifts = seen
        assert len(samples[0]) == len(logits)
        theirs = fastrcnn_loss(logits, shifts, labels, goals)
        torch.testing.assert_close(found[beta]["loss_classifier"], theirs[0])
        rows = (labels[0] > 0).nonzero()[:, 0]
        errors = (shifts.reshape(len(shifts), -1, 4)[rows, labels[0][rows]] - goals[0][rows]).abs()
        parts = torch.where(errors < beta, errors**2 / (2 * beta), errors - beta / 2)
        by_hand = parts.sum() / len(logits)
        torch.testing.assert_close(found[beta]["loss_box_reg"], by_hand)
        if beta < 1:
            torch.testing.assert_close(by_hand, theirs[1])
    assert found[1.0]["loss_box_reg"] < found[1 / 9]["loss_box_reg"]


def test_proposals_of_training_and_of_evaluation() -> None:
    rpn = TwoStageHead(settings(train_proposals=7)).rpn
    assert rpn.train().post_nms_top_n() == 7
    assert rpn.eval().post_nms_top_n() == 1000
    assert rpn.train().pre_nms_top_n() == 2000
    assert TwoStageHead(settings()).rpn.train().post_nms_top_n() == 2000
