from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import AXIS_ORDERS, AxisOrder, named_geometry
from voxlift.lifting.image_to_volume import lift
from voxlift.nets.classifier import Classifier
from voxlift.nets.resnet import ResNet
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.tasks.pretrain import ImageBatch, PretrainTask, normalize, resize


def build(
    *,
    num_classes: int = 3,
    smoothing: float = 0.0,
    checkpointing: bool = False,
    **options: Any,
) -> PretrainTask:
    torch.manual_seed(0)
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3)
    backbone = ResNet(architecture, named_geometry("thumbnail"), checkpointing=checkpointing)
    model = Classifier(backbone, num_classes=num_classes)
    optimization = OptimizationConfig(label_smoothing=smoothing)
    return PretrainTask(model, optimization, **{"num_steps": 10, "seed": 1, **options})


@pytest.fixture
def batch() -> ImageBatch:
    generator = torch.Generator().manual_seed(2)
    return {
        "image": torch.randint(0, 256, (4, 3, 8, 8), generator=generator, dtype=torch.uint8),
        "label": torch.tensor([0, 1, 2, 1]),
        "index": torch.arange(4),
    }


class Seen(nn.Module):
    """A stand-in for the model that keeps what it is given."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.head
        self.volumes: list[Tensor] = []
        self.geometries: list[Any] = []

    def forward(self, volume: Tensor) -> Tensor:
        self.volumes.append(volume)
        self.geometries.append(self.backbone.geometry)
        return volume.new_zeros(len(volume), 3)


def watch(task: PretrainTask) -> Seen:
    seen = Seen(task.model)
    task.model = seen  # type: ignore[assignment]
    return seen


def test_photographs_are_normalised_by_the_papers_numbers() -> None:
    images = torch.tensor([[[[0]], [[114]], [[255]]]], dtype=torch.uint8)
    expected = (np.array([0, 114, 255]) - 114.495) / 57.63
    torch.testing.assert_close(
        normalize(images).flatten(), torch.tensor(expected, dtype=torch.float32)
    )


def test_the_loss_is_smoothed_cross_entropy(batch: ImageBatch) -> None:
    task = build(smoothing=0.1, slice_shuffle=False)
    loss = task.compute_loss(batch, 0)
    logits = task(batch["image"]).log_softmax(1)
    target = functional.one_hot(batch["label"], 3) * 0.9 + 0.1 / 3
    torch.testing.assert_close(loss, -(target * logits).sum(1).mean())


def test_slice_shuffle_depends_on_seed_epoch_and_batch(batch: ImageBatch) -> None:
    task, other = build(), build(seed=2)
    seen, elsewhere = watch(task), watch(other)
    for batch_idx in (0, 1, 0):
        task.compute_loss(batch, batch_idx)
    other.compute_loss(batch, 0)
    first, second, again = seen.volumes
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, elsewhere.volumes[0])
    plain = normalize(batch["image"])
    for before, after in zip(plain, first[:, 0], strict=True):
        assert {str(s.tolist()) for s in before} == {str(s.tolist()) for s in after}


def test_without_slice_shuffle_the_order_is_kept(batch: ImageBatch) -> None:
    task = build(slice_shuffle=False)
    seen = watch(task)
    task.compute_loss(batch, 0)
    assert torch.equal(seen.volumes[0][:, 0], normalize(batch["image"]))


def test_axis_shuffle_draws_all_orders_by_seed_epoch_and_batch(
    batch: ImageBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, ...]] = []

    def note(task: PretrainTask, volumes: Tensor, order: tuple[int, ...]) -> Tensor:
        drawn.append(order)
        return volumes.new_zeros(len(volumes), 3)

    monkeypatch.setattr(PretrainTask, "classify_transposed", note)
    task = build(axis_shuffle=True)
    for batch_idx in (*range(60), *range(60)):
        task.compute_loss(batch, batch_idx)
    assert drawn[:60] == drawn[60:]
    assert set(drawn) == set(AXIS_ORDERS)
    assert min(drawn.count(order) for order in AXIS_ORDERS) >= 6


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("order", AXIS_ORDERS)
def test_axis_shuffle_equals_a_transposed_volume_and_geometry(
    order: AxisOrder, checkpointing: bool
) -> None:
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    task, plain = build(checkpointing=checkpointing).double(), build().double()
    volumes = lift(images)
    backbone = plain.model.backbone
    backbone.geometry = named_geometry("thumbnail").transposed(order)
    expected = plain.model(volumes.permute(0, 1, *(2 + axis for axis in order)))
    logits = task.classify_transposed(volumes, order)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)

    for output in (logits, expected):
        output.square().sum().backward()
    task.on_train_batch_end()
    assert task.model.backbone.geometry == named_geometry("thumbnail")
    for (name, ours), theirs in zip(task.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12, msg=name)
    ours_after, theirs_after = (dict(t.model.named_buffers()) for t in (task, plain))
    torch.testing.assert_close(ours_after, theirs_after, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(task.parameters(), plain.parameters(), strict=True):
        assert ours.shape == theirs.shape


def test_validation_sees_the_photographs_as_they_lie(batch: ImageBatch) -> None:
    task = build(axis_shuffle=True)
    for batch_idx in range(4):
        task.compute_loss(batch, batch_idx)
        task.on_train_batch_end()
    task.eval()
    expected = task.model(lift(normalize(batch["image"])))
    torch.testing.assert_close(task(batch["image"]), expected, rtol=0, atol=0)


def test_images_are_resized_by_the_epoch(batch: ImageBatch) -> None:
    task = build(size_at=lambda epoch: 6 if epoch == 0 else 8, slice_shuffle=False)
    seen = watch(task)
    task.compute_loss(batch, 0)
    assert seen.volumes[0].shape == (4, 1, 3, 6, 6)
    expected = functional.interpolate(
        normalize(batch["image"]), (6, 6), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(seen.volumes[0][:, 0], expected)
    images = torch.randn(1, 3, 8, 8)
    assert resize(images, 8) is images


def test_validation_measures_loss_and_accuracy(
    batch: ImageBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, Any] = {}
    for num_classes in (3, 8):
        task = build(num_classes=num_classes).eval()
        monkeypatch.setattr(task, "log", lambda name, value, **_: logged.__setitem__(name, value))
        task.validation_step(batch, 0)
        logits = task(batch["image"])
        torch.testing.assert_close(
            logged["val/loss"], functional.cross_entropy(logits, batch["label"])
        )
        ranks = logits.argsort(dim=1, descending=True)
        right = ranks == batch["label"][:, None]
        assert logged["val/top1"].compute() == right[:, 0].float().mean()
        if num_classes > 5:
            assert logged["val/top5"].compute() == right[:, :5].any(1).float().mean()
        else:
            assert "val/top5" not in logged


def test_the_learning_rate_moves_with_each_step() -> None:
    task = build()
    configured = task.configure_optimizers()
    schedule = configured["lr_scheduler"]
    assert isinstance(schedule, dict)
    assert schedule["interval"] == "step"
    optimizer, scheduler = configured["optimizer"], schedule["scheduler"]
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [0.1 * (1 + np.cos(np.pi * k / 10)) / 2 for k in range(11)]
    assert rates == pytest.approx(expected)
