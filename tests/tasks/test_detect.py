from collections.abc import Iterator, Sequence
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.detection_settings import DetectorSettings
from voxlift.core.geometry import named_geometry
from voxlift.data.detection_batches import DetectionBatch
from voxlift.metrics.average_precision import average_precision
from voxlift.metrics.froc import froc
from voxlift.nets.detection_head import Detection, Target
from voxlift.nets.detector import Detector
from voxlift.nets.slice_encoder import SliceResNet
from voxlift.tasks.detect import DetectTask, detector_layer_factor, image_boxes, judge
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.training.quiet import quiet_lightning

RATES = (0.5, 1.0, 2.0, 4.0)


class Oracle(nn.Module):
    """Answer for each image in turn what it was told."""

    def __init__(self, answers: Sequence[Detection]) -> None:
        super().__init__()
        self.answers = answers

    def detect(self, volumes: Sequence[Tensor]) -> list[Detection]:
        return [self.answers[int(volume.flatten()[0])] for volume in volumes]


def build(model: nn.Module | None = None, **options: Any) -> DetectTask:
    torch.manual_seed(0)
    if model is None:
        architecture = Architecture(
            name="resnet10", width=4, stem_kernel=3, norm="group", num_slices=3
        )
        backbone = SliceResNet(architecture, named_geometry("pretrain"))
        settings = DetectorSettings(fpn_channels=16, head_width=16, box_samples=32)
        model = Detector(backbone, num_classes=2, settings=settings)
    optimization = OptimizationConfig(optimizer="adamw", lr=0.01)
    return DetectTask(model, optimization, **{"num_steps": 10, **options})  # type: ignore[arg-type]


def target(boxes: list[list[float]], labels: list[int], ignored: list[list[float]]) -> Target:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignored": torch.tensor(ignored).reshape(-1, 4),
    }


def found(rows: list[list[float]], labels: list[int]) -> Detection:
    table = torch.tensor(rows).reshape(-1, 5)
    return {
        "boxes": table[:, :4],
        "scores": table[:, 4],
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def batch(volumes: list[Tensor], targets: list[Target]) -> DetectionBatch:
    return {
        "volumes": volumes,
        "targets": targets,
        "indices": torch.arange(len(volumes)),
        "scales": torch.ones(len(volumes), 4),
    }


def training_batch() -> DetectionBatch:
    generator = torch.Generator().manual_seed(0)
    volumes = [torch.randn(1, 3, *size, generator=generator) for size in ((64, 64), (50, 60))]
    volumes[0][..., 10:30, 12:36] += 3
    return batch(volumes, [target([[12.0, 10, 36, 30]], [1], []), target([], [], [])])


class Batches:
    """A loader of batches that are there already."""

    def __init__(self, *batches: DetectionBatch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[DetectionBatch]:
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


def validate(task: DetectTask, *batches: DetectionBatch) -> dict[str, float]:
    with quiet_lightning():
        (measures,) = make_trainer().validate(task, Batches(*batches), verbose=False)
    return dict(measures)


TARGETS = [
    target([[0.0, 0, 10, 10], [20, 20, 40, 40]], [0, 1], [[50.0, 50, 80, 80]]),
    target([], [], []),
    target([[5.0, 5, 9, 9]], [0], []),
]
ANSWERS = [
    found(
        [
            [20, 20, 40, 41, 0.9],  # Found.
            [0, 0, 10, 10, 0.8],  # Of the wrong class.
            [55, 55, 70, 70, 0.7],  # On a region that is ignored.
            [0, 0, 10, 9, 0.3],  # Found.
        ],
        [1, 1, 0, 0],
    ),
    found([[1, 1, 5, 5, 0.5]], [0]),
    found([], []),
]


def numbered(*numbers: int) -> DetectionBatch:
    volumes = [torch.full((1, 3, 8, 8), float(number)) for number in numbers]
    return batch(volumes, [TARGETS[number] for number in numbers])


def test_all_images_are_judged_together() -> None:
    measures = validate(build(Oracle(ANSWERS)), numbered(0, 1), numbered(2))
    boxes: dict[str, Any] = {
        "predictions": [
            np.concatenate([a["boxes"], a["scores"][:, None]], 1).astype(float) for a in ANSWERS
        ],
        "prediction_labels": [a["labels"].numpy() for a in ANSWERS],
        "truths": [[*t["boxes"].tolist(), *t["ignored"].tolist()] for t in TARGETS],
        "truth_labels": [[0, 1, 0], [], [0]],
        "truth_ignored": [[False, False, True], [], [False]],
    }
    curve = froc(**boxes, false_positives_per_image=RATES)
    expected = {
        "val/ap50": average_precision(**boxes).value,
        "val/sensitivity": curve.mean_sensitivity,
        **{f"val/sensitivity_at_{r:g}": s for r, s in zip(RATES, curve.sensitivity, strict=True)},
    }
    assert measures == pytest.approx(expected, abs=1e-6)
    # By hand: one of the three is found before any mistake, a second after two of them.
    assert measures["val/sensitivity_at_0.5"] == pytest.approx(1 / 3, abs=1e-6)
    assert measures["val/sensitivity_at_1"] == pytest.approx(2 / 3, abs=1e-6)


def test_each_validation_begins_afresh() -> None:
    task = build(Oracle(ANSWERS))
    first = validate(task, numbered(0, 1))
    assert validate(task, numbered(2))["val/sensitivity"] == 0
    assert validate(task, numbered(0, 1)) == first


def test_where_there_is_nothing_to_find_all_is_0() -> None:
    measures = validate(build(Oracle(ANSWERS)), numbered(1))
    assert set(measures.values()) == {0.0}
    assert len(measures) == 2 + len(RATES)


def test_regions_to_be_ignored_come_behind_the_true_boxes() -> None:
    image = image_boxes(ANSWERS[0], TARGETS[0])
    assert image.truths.tolist() == [[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 80, 80]]
    assert image.truth_labels.tolist() == [0, 1, 0]
    assert image.ignored.tolist() == [False, False, True]
    assert judge([image], rates=(4,))["sensitivity_at_4"] == 1


def test_the_rates_are_those_asked_for() -> None:
    task = build(Oracle(ANSWERS), false_positives_per_image=(0.125, 8))
    names = set(validate(task, numbered(0, 1, 2)))
    assert names == {
        "val/ap50",
        "val/sensitivity",
        "val/sensitivity_at_0.125",
        "val/sensitivity_at_8",
    }


def test_a_few_steps_lower_the_loss_and_its_parts_are_logged() -> None:
    task = build(num_steps=15)
    before = task.train().compute_loss(training_batch(), 0).item()
    with quiet_lightning():
        trainer = make_trainer(max_epochs=1, num_sanity_val_steps=0, log_every_n_steps=1)
        trainer.fit(task, Batches(*[training_batch()] * 15), Batches(training_batch()))
    logged = trainer.callback_metrics
    parts = [logged[f"train/loss_{n}"] for n in ("objectness", "proposal_box", "class", "box")]
    torch.testing.assert_close(torch.stack(parts).sum(), logged["train/loss"])
    assert task.train().compute_loss(training_batch(), 0).item() < 0.5 * before
    assert 0 <= logged["val/ap50"] <= 1


def test_transforms_of_slices_and_the_head_learn_at_the_full_rate() -> None:
    task = build(layer_decay=0.5)
    optimizer = task.configure_optimizers()["optimizer"]
    rate_of = {p: group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = {name: rate_of[p] / 0.01 for name, p in task.model.named_parameters()}
    assert rates["backbone.conv1.weight"] == pytest.approx(1 / 32)
    assert rates["backbone.layer4.0.conv1.weight"] == pytest.approx(1 / 2)
    rest = {
        rate
        for name, rate in rates.items()
        if not name.startswith("backbone.") or "group_transform" in name
    }
    assert rest == {1.0}
    assert detector_layer_factor("backbone.group_transform.1.weight", 0.1) == 1


def test_only_the_model_is_saved() -> None:
    assert all(name.startswith("model.") for name in build().state_dict())
