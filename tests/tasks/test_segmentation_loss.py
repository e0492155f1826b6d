import itertools
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from voxlift.core.label_scheme import IGNORED, LabelScheme
from voxlift.tasks.segmentation_loss import LossConfig, LossName, SegmentationLoss

SIZE = (2, 3, 4)
CLASSES = LabelScheme(names=("background", "liver", "tumour"), values=(0, 1, 2), ignore_value=9)
REGIONS = CLASSES.with_regions({"whole": (1, 2), "core": (2,)})
SCHEMES = {"classes": CLASSES, "regions": REGIONS}
NAMES: tuple[str, ...] = get_args(LossName)
EPS = 1e-5


def make(labels: LabelScheme, name: str = "dice-ce", **fields: Any) -> SegmentationLoss:
    return SegmentationLoss(LossConfig.model_validate({"loss": name, **fields}), labels)


def make_sample(
    labels: LabelScheme, *, size: tuple[int, ...] = SIZE, batch: int = 2, ignored: bool = True
) -> tuple[Tensor, Tensor]:
    """Logits, and class numbers of all classes, a third of them not labelled if wanted."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(batch, labels.num_outputs, *size, generator=generator)
    classes = torch.randint(0, 3, (batch, *size), generator=generator, dtype=torch.uint8)
    if ignored:
        classes[torch.rand(batch, *size, generator=generator) < 1 / 3] = IGNORED
    return logits, classes


def wanted_masks(labels: LabelScheme, classes: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
    """The truth of each output, by hand."""
    if labels.is_overlapping:
        return [(classes == 1) | (classes == 2), classes == 2]
    return [classes == 0, classes == 1, classes == 2]


def by_hand(labels: LabelScheme, logits: Tensor, classes: Tensor) -> tuple[float, float]:
    """Dice and cross-entropy, one voxel after the other."""
    x = logits.double().numpy()
    numbers = classes.numpy()
    labelled = numbers != IGNORED
    wanted = wanted_masks(labels, numbers)
    if labels.is_overlapping:
        p = 1 / (1 + np.exp(-x))
        errors = [
            np.where(mask, -np.log(p[:, k]), -np.log(1 - p[:, k])) for k, mask in enumerate(wanted)
        ]
        entropy = np.mean([error[labelled] for error in errors])
        judged = range(2)
    else:
        p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        entropy = np.mean(
            [-np.log(p[b, numbers[b, d, h, w], d, h, w]) for b, d, h, w in np.argwhere(labelled)]
        )
        judged = range(1, 3)
    dice = []
    for k in judged:
        found, true = p[:, k][labelled], wanted[k][labelled]
        overlap = 2 * (found * true).sum()
        dice.append(1 - (overlap + EPS) / (found.sum() + true.sum() + EPS))
    return float(np.mean(dice)), float(entropy)


@pytest.mark.parametrize("ignored", [False, True], ids=["all-labelled", "some-ignored"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_dice_and_cross_entropy_are_those_by_hand(scheme: str, ignored: bool) -> None:
    labels = SCHEMES[scheme]
    logits, classes = make_sample(labels, ignored=ignored)
    dice, entropy = by_hand(labels, logits, classes)
    assert make(labels, "dice")(logits, classes).item() == pytest.approx(dice, rel=1e-5)
    assert make(labels, "ce")(logits, classes).item() == pytest.approx(entropy, rel=1e-5)
    both = make(labels, dice_weight=0.3, ce_weight=2.0)(logits, classes)
    assert both.item() == pytest.approx(0.3 * dice + 2 * entropy, rel=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NAMES)
def test_ignored_voxels_change_nothing(name: str, scheme: str) -> None:
    labels = SCHEMES[scheme]
    loss = make(labels, name)
    logits, classes = make_sample(labels)
    ignored = (classes == IGNORED).unsqueeze(1).expand_as(logits)
    found = []
    for value in (0.0, -3.0, 1e4):
        changed = logits.clone()
        changed[ignored] = value
        changed[:, 0][classes == IGNORED] += 5
        changed.requires_grad_()
        computed = loss(changed, classes)
        computed.backward()
        assert changed.grad is not None
        assert not changed.grad[ignored].any()
        found.append((computed.item(), changed.grad[~ignored]))
    for value, gradient in found[1:]:
        assert value == pytest.approx(found[0][0], rel=1e-6)
        torch.testing.assert_close(gradient, found[0][1])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_that_nobody_labelled_teaches_nothing(name: str, scheme: str) -> None:
    labels = SCHEMES[scheme]
    logits, classes = make_sample(labels)
    logits.requires_grad_()
    computed = make(labels, name)(logits, torch.full_like(classes, IGNORED))
    computed.backward()
    assert torch.isfinite(computed)
    assert logits.grad is not None
    assert not logits.grad.any()


def true_logits(labels: LabelScheme, classes: Tensor) -> Tensor:
    """Logits of 1 where each output is, and -1 elsewhere."""
    masks = wanted_masks(labels, classes.numpy())
    return torch.stack([torch.from_numpy(np.where(mask, 1.0, -1.0)) for mask in masks], 1).float()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_falls_as_the_logits_approach_the_truth(name: str, scheme: str) -> None:
    labels = SCHEMES[scheme]
    loss = make(labels, name)
    _, classes = make_sample(labels)
    truth = true_logits(labels, classes)
    course = [loss(factor * truth, classes).item() for factor in (-5.0, -1.0, 0.0, 1.0, 3.0, 9.0)]
    assert np.isfinite(course).all()
    assert all(later < earlier for earlier, later in itertools.pairwise(course))
    assert course[-1] == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_patch_of_background_is_no_trouble(name: str, scheme: str) -> None:
    labels = SCHEMES[scheme]
    logits, classes = make_sample(labels)
    logits.requires_grad_()
    computed = make(labels, name)(logits, torch.zeros_like(classes))
    computed.backward()
    assert torch.isfinite(computed)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_focal_loss_is_the_one_of_the_paper() -> None:
    """-(1 - p)^2 log p of the true class, here averaged over the outputs as well, as MONAI does."""
    logits, classes = make_sample(CLASSES)
    labelled = classes != IGNORED
    p = logits.softmax(1)
    true = p.gather(1, classes.long().where(labelled, 0).unsqueeze(1)).squeeze(1)[labelled]
    expected = (-((1 - true) ** 2) * true.log()).mean() / 3
    found = make(CLASSES, "dice-focal", dice_weight=0.0)(logits, classes)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_generalised_dice_weighs_classes_by_their_volume() -> None:
    logits, classes = make_sample(CLASSES)
    labelled = classes != IGNORED
    p = logits.softmax(1)
    above = below = torch.zeros(())
    for k in (1, 2):
        found, true = p[:, k][labelled], (classes == k)[labelled].float()
        above = above + 2 * (found * true).sum() / true.sum() ** 2
        below = below + (found.sum() + true.sum()) / true.sum() ** 2
    expected = 1 - (above + EPS) / (below + EPS)
    found = make(CLASSES, "generalized-dice-ce", ce_weight=0.0)(logits, classes)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_coarser_levels_count_half_as_much_each() -> None:
    size = (8, 8, 8)
    logits, classes = make_sample(CLASSES, size=size)
    levels = [
        logits,
        *(torch.randn(2, 3, n, n, n, generator=torch.Generator().manual_seed(n)) for n in (4, 2)),
    ]
    loss = make(CLASSES)
    alone = [loss(levels[0], classes)]
    for step, level in zip((2, 4), levels[1:], strict=True):
        # The middle of each coarse voxel is the corner of fine ones; the later one stands for it.
        nearest = classes[:, step // 2 :: step, step // 2 :: step, step // 2 :: step]
        alone.append(loss(level, nearest))
    expected = (alone[0] + alone[1] / 2 + alone[2] / 4) / 1.75
    torch.testing.assert_close(loss(levels, classes), expected)
    torch.testing.assert_close(loss([logits], classes), loss(logits, classes))


def test_levels_of_odd_sizes_and_ignored_voxels() -> None:
    logits, classes = make_sample(CLASSES, size=(5, 7, 9))
    level = torch.randn(2, 3, 3, 4, 5, requires_grad=True)
    computed = make(CLASSES)([logits, level], classes)
    computed.backward()
    assert torch.isfinite(computed)
    assert level.grad is not None
    assert level.grad.any()


def test_half_precision_is_computed_in_full() -> None:
    logits, classes = make_sample(CLASSES)
    half = logits.bfloat16()
    computed = make(CLASSES)(half, classes)
    assert computed.dtype == torch.float32
    torch.testing.assert_close(computed, make(CLASSES)(half.float(), classes))


def test_nothing_of_it_is_saved_with_a_model() -> None:
    loss = make(REGIONS, "generalized-dice-focal")
    assert loss.state_dict() == {}
    assert not list(loss.parameters())


@pytest.mark.parametrize(
    "fields", [{"loss": "hinge"}, {"dice_weight": -1}, {"ce_weight": -0.5}, {"alpha": 1}]
)
def test_settings_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LossConfig.model_validate(fields)


def test_dice_of_the_papers_organs_is_that_by_hand() -> None:
    """With the background, each patch alone, squares in the denominator; the mean over all."""
    logits, classes = make_sample(CLASSES, ignored=False)
    x, numbers = logits.double().numpy(), classes.numpy()
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    losses = []
    for patch in range(len(x)):
        for k in range(3):
            found, true = p[patch, k], (numbers[patch] == k).astype(float)
            overlap = 2 * (found * true).sum()
            losses.append(1 - (overlap + EPS) / ((found**2).sum() + (true**2).sum() + EPS))
    paper = {"dice_background": True, "dice_per_case": True, "dice_squared": True}
    assert make(CLASSES, "dice", **paper)(logits, classes).item() == pytest.approx(
        np.mean(losses), rel=1e-5
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_way_of_dice_counts_unlabelled_voxels_for_nothing(scheme: str) -> None:
    logits, classes = make_sample(SCHEMES[scheme])
    changed = torch.where((classes == IGNORED)[:, None], logits + 5, logits)
    for way in ("dice_background", "dice_per_case", "dice_squared"):
        loss = make(SCHEMES[scheme], "dice", **{way: True})
        assert loss(logits, classes).item() == pytest.approx(loss(changed, classes).item())


def test_squares_are_for_plain_dice() -> None:
    with pytest.raises(ValidationError, match="dice_squared goes with dice, not with gen"):
        LossConfig(loss="generalized-dice-ce", dice_squared=True)
