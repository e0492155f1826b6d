from collections.abc import Iterator
from typing import Any

import lightning
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import named_geometry
from voxlift.data.classification_batches import VolumeBatch
from voxlift.nets.classifier import Classifier
from voxlift.nets.norm import apply_norm_mode
from voxlift.nets.resnet import ResNet
from voxlift.tasks.classify import ClassifyTask
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.training.quiet import quiet_lightning


def build(
    *, num_classes: int = 2, smoothing: float = 0.0, dropout: float = 0.0, **options: Any
) -> ClassifyTask:
    torch.manual_seed(0)
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3)
    backbone = ResNet(architecture, named_geometry("small"))
    model = Classifier(backbone, num_classes=num_classes, dropout=dropout)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    optimization = OptimizationConfig(optimizer="adamw", lr=0.01, label_smoothing=smoothing)
    return ClassifyTask(model, optimization, **{"num_steps": 10, **options})


def make_batch(num_classes: int = 2, size: int = 6) -> VolumeBatch:
    generator = torch.Generator().manual_seed(size)
    return {
        "image": torch.randn(size, 1, 8, 8, 8, generator=generator),
        "label": torch.arange(size) % num_classes,
        "index": torch.arange(size),
    }


class Batches:
    """A loader of batches that are there already."""

    def __init__(self, *batches: VolumeBatch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[VolumeBatch]:
        return iter(self.batches)


def fit(task: ClassifyTask, *, steps: int) -> None:
    """Train on the same batch."""
    with quiet_lightning():
        trainer = make_trainer(max_epochs=1, num_sanity_val_steps=0, log_every_n_steps=1)
        trainer.fit(task, Batches(*[make_batch()] * steps), Batches(make_batch()))


def make_trainer(**options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def tensors(task: ClassifyTask, part: str) -> dict[str, Tensor]:
    module = task.model.get_submodule(part)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_weighted_cross_entropy(smoothing: float) -> None:
    weights = [0.5, 2.0, 3.0]
    task = build(num_classes=3, smoothing=smoothing, class_weights=weights).eval()
    batch = make_batch(3)
    log_p = task(batch["image"]).log_softmax(1)
    w = torch.tensor(weights)
    picked = w[batch["label"]]
    hard = -(picked * log_p[range(6), batch["label"]]).sum() / picked.sum()
    soft = -(w * log_p).sum(1).mean() * 6 / picked.sum() / 3
    expected = (1 - smoothing) * hard + smoothing * soft
    torch.testing.assert_close(task.compute_loss(batch, 0), expected)


def test_without_weights_all_classes_count_alike() -> None:
    task = build().eval()
    batch = make_batch()
    expected = functional.cross_entropy(task(batch["image"]), batch["label"])
    torch.testing.assert_close(task.compute_loss(batch, 0), expected)
    # The weights are no part of the model that is saved.
    assert "class_weights" not in build(class_weights=[1.0, 2.0]).state_dict()


def test_only_the_head_learns_while_it_warms_up() -> None:
    task = build(head_warmup=0.2, num_steps=10)
    backbone, head = tensors(task, "backbone"), tensors(task, "head")
    assert task.warmup_steps == 2
    fit(task, steps=2)
    torch.testing.assert_close(tensors(task, "backbone"), backbone, rtol=0, atol=0)
    assert not torch.equal(tensors(task, "head")["weight"], head["weight"])


def test_the_backbone_learns_once_the_head_is_warm() -> None:
    task = build(head_warmup=0.2, num_steps=10)
    backbone = tensors(task, "backbone")
    fit(task, steps=3)
    after = tensors(task, "backbone")
    assert task.model.backbone.training
    assert not torch.equal(after["conv1.weight"], backbone["conv1.weight"])
    # One training step has updated the running statistics once.
    assert after["norm1.num_batches_tracked"] == 1


def test_frozen_norms_stay_frozen_in_training() -> None:
    task = build(head_warmup=0.2)
    apply_norm_mode(task.model.backbone, "frozen")
    before = tensors(task, "backbone")
    fit(task, steps=4)
    after = tensors(task, "backbone")
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(after[f"norm1.{name}"], before[f"norm1.{name}"])
    assert not torch.equal(after["norm1.weight"], before["norm1.weight"])


def test_early_layers_learn_slower() -> None:
    task = build(layer_decay=0.5)
    optimizer = task.configure_optimizers()["optimizer"]
    rate_of = {p: group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    model = task.model
    rates = {
        name: rate_of[parameter] / 0.01
        for name, parameter in model.named_parameters()
        if name.endswith(("conv1.weight", "head.weight", "backbone.norm1.bias"))
    }
    assert rates == pytest.approx(
        {
            "head.weight": 1,
            "backbone.layer4.0.conv1.weight": 1 / 2,
            "backbone.layer3.0.conv1.weight": 1 / 4,
            "backbone.layer2.0.conv1.weight": 1 / 8,
            "backbone.layer1.0.conv1.weight": 1 / 16,
            "backbone.conv1.weight": 1 / 32,
            "backbone.norm1.bias": 1 / 32,
        }
    )


@pytest.mark.parametrize("num_classes", [2, 3])
def test_validation_judges_all_batches_at_once(num_classes: int) -> None:
    task = build(num_classes=num_classes, dropout=0.9, class_weights=[1.0] * num_classes)
    batches = [make_batch(num_classes, size) for size in (6, 9)]
    with quiet_lightning():
        (found,) = make_trainer().validate(task, Batches(*batches), verbose=False)
    task.eval()
    with torch.no_grad():
        logits = torch.cat([task(batch["image"]) for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])
    p = logits.softmax(1)
    assert found["val/accuracy"] == pytest.approx(float((p.argmax(1) == labels).float().mean()))
    assert found["val/loss"] == pytest.approx(float(functional.cross_entropy(logits, labels)))
    areas = [roc_auc_score(labels == k, p[:, k]) for k in range(num_classes)]
    assert found["val/auroc"] == pytest.approx(sum(areas) / num_classes)
