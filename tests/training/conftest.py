"""A small run: 24 generated photographs, a network of width 4, six steps an epoch."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from voxlift.config import MachineConfig, NetworkConfig, PretrainConfig
from voxlift.core.architecture import Architecture
from voxlift.core.geometry import named_geometry
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.image_batches import image_loader
from voxlift.data.image_source import open_images
from voxlift.nets.classifier import Classifier
from voxlift.nets.resnet import ResNet
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.tasks.pretrain import PretrainTask
from voxlift.training.engine import Monitor, count_steps, train
from voxlift.training.run_folder import RunFolder, open_run_folder
from voxlift.weights.save import describe_target
from voxlift.weights.target import find_target

SIZE = 8
CLASSES = ("checked", "plain", "striped")


class RecordedTask(PretrainTask):
    """A pre-training task that remembers the loss and the images of each batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []
        self.indices: list[list[int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        self.indices.append(batch["index"].tolist())
        return loss


@dataclass
class SmallRun:
    """What `run_small` did."""

    stopped_by: signal.Signals | None
    task: RecordedTask
    folder: RunFolder

    @property
    def finished(self) -> bool:
        return self.stopped_by is None


RunSmall = Callable[..., SmallRun]


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (SIZE, SIZE, 3))
                if name == "striped":
                    pixels[::2] = 0
                elif name == "plain":
                    pixels[:] = pixels[0, 0]
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture
def small_config(image_folder: Path, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(
        data=str(image_folder),
        out=tmp_path / "run",
        seed=3,
        epochs=3,
        batch_size=4,
        image_size=SIZE,
        network=NetworkConfig(backbone="resnet10", width=4, stem=3, geometry="thumbnail"),
        augmentation=ImageAugmentation(crop="pad", pad_pixels=1),
        optimization=OptimizationConfig(lr=0.05, warmup=0.1, label_smoothing=0.1),
        machine=MachineConfig(device="cpu", precision="fp32"),
    )


def build_task(config: PretrainConfig, *, num_steps: int) -> RecordedTask:
    torch.manual_seed(config.seed)
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3)
    backbone = ResNet(architecture, named_geometry("thumbnail"))
    return RecordedTask(
        Classifier(backbone, num_classes=len(CLASSES), dropout=0.2),
        config.optimization,
        num_steps=num_steps,
        seed=config.seed,
        slice_shuffle=config.slice_shuffle,
        axis_shuffle=config.axis_shuffle,
    )


@pytest.fixture
def run_small() -> RunSmall:
    """Run a config from its photographs to the end of the training."""

    def run(
        config: PretrainConfig,
        *callbacks: Callback,
        resume: bool = False,
        overwrite: bool = False,
        change_task: Callable[[RecordedTask], object] = lambda task: None,
    ) -> SmallRun:
        folder = open_run_folder(config, resume=resume, overwrite=overwrite)
        train_loader, val_loader = (
            image_loader(
                open_images(config.data, split=split),
                batch_size=config.batch_size,
                size=config.image_size,
                augmentation=(
                    config.augmentation if split == "train" else ImageAugmentation.for_evaluation()
                ),
                seed=config.seed,
                workers=config.machine.workers,
                shuffle=split == "train",
            )
            for split in ("train", "val")
        )
        num_steps = count_steps(config, batches_per_epoch=len(train_loader))
        task = build_task(config, num_steps=num_steps)
        change_task(task)
        stopped_by = train(
            task,
            train_loader,
            val_loader,
            config=config,
            folder=folder,
            monitor=Monitor("val/loss", higher_is_better=False),
            num_steps=num_steps,
            header=describe_target(find_target(task.model)),
            resume=resume,
            callbacks=callbacks,
        )
        return SmallRun(stopped_by, task, folder)

    return run
