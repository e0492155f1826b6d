from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import named_geometry
from voxlift.core.label_scheme import IGNORED, LabelScheme
from voxlift.data.segmentation_batches import SegmentationBatch
from voxlift.inference.sliding_window import WindowSettings
from voxlift.nets.resnet import ResNet
from voxlift.nets.unet import UNet
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.tasks.segment import SegmentTask
from voxlift.tasks.segmentation_loss import LossConfig, SegmentationLoss
from voxlift.training.quiet import quiet_lightning

LABELS = LabelScheme(names=("background", "a", "b"), values=(0, 1, 2))
REGIONS = LABELS.with_regions({"whole": (1, 2), "core": (2,)})
SIZE = (9, 8, 10)


class Copy(nn.Module):
    """Answer what the image says: its values are class numbers."""

    def __init__(self, labels: LabelScheme) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.overlapping = labels.is_overlapping

    def forward(self, volumes: Tensor) -> Tensor:
        if self.overlapping:
            return self.scale * torch.cat([volumes - 0.5, volumes - 1.5], 1)
        return -self.scale * (volumes - torch.arange(3.0).reshape(1, 3, 1, 1, 1)) ** 2


def build(
    model: nn.Module | None = None, *, labels: LabelScheme = LABELS, **options: Any
) -> SegmentTask:
    torch.manual_seed(0)
    if model is None:
        architecture = Architecture(name="resnet10", width=4, stem_kernel=3)
        backbone = ResNet(architecture, named_geometry("small"))
        model = UNet(backbone, num_classes=labels.num_outputs, deep_supervision=True)
    return SegmentTask(
        model,
        OptimizationConfig(optimizer="adamw", lr=0.01),
        loss=LossConfig(),
        labels=labels,
        **{
            "num_steps": 10,
            "window": WindowSettings(size_voxels=(8, 8, 8), overlap=0.25),
            **options,
        },
    )


def make_batch(size: int = 2, *, seed: int = 0) -> SegmentationBatch:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (size, *SIZE), generator=generator, dtype=torch.uint8)
    image = label.unsqueeze(1).float()
    return {"image": image, "label": label, "index": torch.arange(size)}


class Batches:
    """A loader of batches that are there already."""

    def __init__(self, *batches: SegmentationBatch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[SegmentationBatch]:
        return iter(self.batches)


def make_trainer(**options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def validate(task: SegmentTask, *batches: SegmentationBatch) -> dict[str, float]:
    with quiet_lightning():
        (found,) = make_trainer().validate(task, Batches(*batches), verbose=False)
    return dict(found)


def dice(found: Tensor, truth: Tensor) -> float:
    return 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["classes", "regions"])
def test_the_loss_is_that_of_all_levels(labels: LabelScheme) -> None:
    task = build(labels=labels).train()
    batch = make_batch()
    logits = task.model(batch["image"])
    assert len(logits) == 4
    expected = SegmentationLoss(LossConfig(), labels)(logits, batch["label"])
    # Batch norm in training normalises by the batch, so the same comes out again.
    torch.testing.assert_close(task.compute_loss(batch, 0), expected)


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["classes", "regions"])
def test_a_perfect_answer_has_a_dice_of_one(labels: LabelScheme) -> None:
    task = build(Copy(labels), labels=labels)
    found = validate(task, make_batch(1), make_batch(1, seed=1))
    names = labels.structures
    assert found == {"val/dice": 1.0, **{f"val/dice_{name}": 1.0 for name in names}}


def test_dice_is_averaged_over_cases_and_then_over_structures() -> None:
    batches = [make_batch(1, seed=seed) for seed in range(3)]
    for seed, batch in enumerate(batches):
        noise = torch.randn(batch["image"].shape, generator=torch.Generator().manual_seed(seed))
        batch["image"] = batch["image"] + noise
    # One structure is in one case only.
    for batch in batches[:2]:
        batch["label"][batch["label"] == 2] = 0
        batch["image"] = batch["image"].clamp(max=1.4)
    # What nobody labelled is not judged.
    batches[0]["label"][:, :3] = IGNORED
    found = validate(build(Copy(LABELS)), *batches)
    scores: dict[int, list[float]] = {1: [], 2: []}
    for batch in batches:
        judged = batch["label"] != IGNORED
        answer = batch["image"][:, 0].round().clamp(0, 2)
        for k, values in scores.items():
            pair = (answer == k) & judged, (batch["label"] == k)
            if pair[0].any() or pair[1].any():
                values.append(dice(*pair))
    assert [len(values) for values in scores.values()] == [3, 1]
    means = [float(np.mean(values)) for values in scores.values()]
    assert found["val/dice_a"] == pytest.approx(means[0], abs=1e-6)
    assert found["val/dice_b"] == pytest.approx(means[1], abs=1e-6)
    assert found["val/dice"] == pytest.approx(np.mean(means), abs=1e-6)


def test_cases_without_any_structure_count_nothing() -> None:
    batch = make_batch(1)
    batch["label"][:] = 0
    batch["image"][:] = 0
    assert validate(build(Copy(LABELS)), batch) == {"val/dice": 0.0}
    # The next validation begins afresh.
    task = build(Copy(LABELS))
    validate(task, batch)
    assert validate(task, make_batch(1))["val/dice"] == 1.0


def test_cases_of_any_size_are_validated_by_windows() -> None:
    for size in ((3, 4, 5), (17, 8, 21)):
        label = torch.zeros((1, *size), dtype=torch.uint8)
        label[:, 1:3, 1:3, 1:3] = 2
        batch: SegmentationBatch = {
            "image": label.unsqueeze(1).float(),
            "label": label,
            "index": torch.zeros(1, dtype=torch.int64),
        }
        assert validate(build(Copy(LABELS)), batch) == {"val/dice": 1.0, "val/dice_b": 1.0}


def test_a_few_steps_lower_the_loss() -> None:
    task = build(num_steps=15)
    before = task.train().compute_loss(make_batch(), 0).item()
    with quiet_lightning():
        trainer = make_trainer(max_epochs=1, num_sanity_val_steps=0, log_every_n_steps=1)
        trainer.fit(task, Batches(*[make_batch()] * 15), Batches(make_batch(1)))
    assert task.train().compute_loss(make_batch(), 0).item() < 0.8 * before
    assert "val/dice" in trainer.callback_metrics


def test_early_layers_learn_slower_and_the_decoder_at_the_full_rate() -> None:
    task = build(layer_decay=0.5)
    optimizer = task.configure_optimizers()["optimizer"]
    rate_of = {p: group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = {name: rate_of[p] / 0.01 for name, p in task.model.named_parameters()}
    assert rates["backbone.conv1.weight"] == pytest.approx(1 / 32)
    assert rates["backbone.layer4.0.conv1.weight"] == pytest.approx(1 / 2)
    decoder = {rate for name, rate in rates.items() if not name.startswith("backbone")}
    assert decoder == {1.0}


def test_only_the_model_is_saved() -> None:
    assert all(name.startswith("model.") for name in build().state_dict())
