"""Fixtures shared by all tests: generated photographs and volumes, and small runs on them."""

import csv
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from voxlift.cli import main
from voxlift.config import DetectConfig, FinetuneConfig, PretrainConfig, SegmentConfig
from voxlift.data.deeplesion_phantoms import write_deeplesion_like
from voxlift.data.phantoms import CLASS_NAMES, NoduleParameters, nodule_set
from voxlift.data.volumes import Volume, write_volume
from voxlift.experiment import finetune, pretrain
from voxlift.tasks.classify import ClassifyTask
from voxlift.tasks.detect import DetectTask
from voxlift.tasks.pretrain import PretrainTask
from voxlift.tasks.segment import SegmentTask
from voxlift.training.metrics_file import MetricsLog
from voxlift.training.run import Run

# How long an example takes says more about the machine than about the code.
settings.register_profile("voxlift", deadline=None)
settings.load_profile("voxlift")

# Workers that compute with as many threads as there are cores each would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


@pytest.fixture
def data_folder() -> Path:
    """The folder of the real data sets named by VOXLIFT_DATA."""
    folder = os.environ.get("VOXLIFT_DATA")
    if not folder:
        pytest.skip("VOXLIFT_DATA is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photograph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of eight pictures of 12 x 12 pixels; without a validation part."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for name in ("checked", "plain", "striped"):
        (folder / name).mkdir()
        for number in range(8):
            pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            if name == "plain":
                pixels[:] = pixels[0, 0]
            if name == "striped":
                pixels[::2] = 0
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def nodule_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty simulated nodules of 12^3 voxels of twenty patients, and `nodules.csv` for them."""
    folder = tmp_path_factory.mktemp("nodules")
    parameters = NoduleParameters(radius_mm=(2.0, 3.0), max_shift_mm=1.0)
    nodules = nodule_set(30, seed=0, size_voxels=(12, 12, 12), parameters=parameters)
    with (folder / "nodules.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "group"])
        for number, (array, label) in enumerate(zip(nodules.volumes, nodules.labels, strict=True)):
            path = Path("volumes", f"{number:02d}.nii.gz")
            write_volume(folder / path, Volume(array, spacing_mm=(1.0, 1.0, 1.0)))
            # Ten patients have two nodules, ten have one.
            rows.writerow([path, CLASS_NAMES[label], f"person-{number % 20}"])
    return folder


@pytest.fixture(scope="session")
def small_pretraining(
    photograph_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> PretrainConfig:
    """Four steps on the pictures, by a network of width 4."""
    return PretrainConfig.model_validate(
        {
            "data": str(photograph_folder),
            "out": tmp_path_factory.mktemp("pretrained") / "run",
            "seed": 3,
            "epochs": 2,
            "batch_size": 9,
            "val_fraction": 0.25,
            "image_size": 8,
            "network": {"backbone": "resnet10", "width": 4, "stem": 3},
            "augmentation": {"crop": "pad", "pad_pixels": 1},
            "machine": {"device": "cpu", "precision": "fp32"},
        }
    )


@pytest.fixture(scope="session")
def pretrained(small_pretraining: PretrainConfig) -> Run:
    """The run of `small_pretraining`; not to be changed."""
    return pretrain(small_pretraining)


@pytest.fixture(scope="session")
def small_finetuning(
    pretrained: Run, nodule_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> FinetuneConfig:
    """Four steps on the nodules, from the pre-trained network."""
    return FinetuneConfig.model_validate(
        {
            "data": str(nodule_folder / "nodules.csv"),
            "out": tmp_path_factory.mktemp("finetuned") / "run",
            "seed": 5,
            "steps": 4,
            "val_steps": 2,
            "batch_size": 6,
            "fractions": (0.5, 0.25, 0.25),
            "network": {"backbone": "resnet10", "weights": str(pretrained.model_path)},
            "augmentation": {"shift_voxels": 1, "flip_axes": ("width",)},
            "optimization": {"optimizer": "adamw", "lr": 1e-3},
            "machine": {"device": "cpu", "precision": "fp32"},
        }
    )


@pytest.fixture(scope="session")
def finetuned(small_finetuning: FinetuneConfig) -> Run:
    """The run of `small_finetuning`; not to be changed."""
    return finetune(small_finetuning)


@pytest.fixture(scope="session")
def ball_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight volumes of 12 to 14 voxels with a ball and a brighter bead, as a Decathlon task."""
    folder = tmp_path_factory.mktemp("Task99_Balls")
    generator = np.random.default_rng(0)
    listed = []
    for number in range(8):
        size = (12, 13, 14)
        grid = np.indices(size)
        middles = {1: np.array([5, 5, 5]), 2: np.array([8, 9, 10])}
        mask = np.zeros(size, np.uint8)
        for value, radius in ((1, 3.5), (2, 2.5)):
            middle = middles[value] + generator.uniform(-1, 1, 3)
            away = np.linalg.norm(grid - middle[:, None, None, None], axis=0)
            mask[away < radius] = value
        image = (300.0 * mask + generator.normal(100, 60, size)).astype(np.int16)
        names = {part: f"{part}/balls_{number:02d}.nii.gz" for part in ("imagesTr", "labelsTr")}
        for part, array in (("imagesTr", image), ("labelsTr", mask)):
            volume = Volume(array, (1.5, 1.0, 1.0), (10.0, 20.0, number))
            write_volume(folder / names[part], volume)
        listed.append({"image": f"./{names['imagesTr']}", "label": f"./{names['labelsTr']}"})
    description = {
        "name": "Balls",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "ball", "2": "bead"},
        "training": listed,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="session")
def small_segmentation(
    ball_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> SegmentConfig:
    """Six steps on the balls, by a network of width 4 from scratch."""
    return SegmentConfig.model_validate(
        {
            "data": str(ball_folder),
            "out": tmp_path_factory.mktemp("segmented") / "run",
            "seed": 5,
            "steps": 6,
            "val_steps": 3,
            "batch_size": 2,
            "fractions": (0.5, 0.25, 0.25),
            "network": {"backbone": "resnet10", "width": 4, "stem": 3, "geometry": "small"},
            "scan": {"patch_voxels": (8, 8, 8)},
            "optimization": {"optimizer": "adamw", "lr": 0.02},
            "machine": {"device": "cpu", "precision": "fp32"},
        }
    )


@pytest.fixture(scope="session")
def segmented(small_segmentation: SegmentConfig) -> Run:
    """The run of `small_segmentation`; not to be changed."""
    return finetune(small_segmentation)


@pytest.fixture(scope="session")
def lesion_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write simulated scans in the layout of DeepLesion: a dozen key slices of six patients."""
    folder = tmp_path_factory.mktemp("lesions") / "DeepLesion"
    return write_deeplesion_like(
        folder, num_patients=6, seed=1, size=64, reach_mm=5.0, intervals_mm=(2.5,)
    )


@pytest.fixture(scope="session")
def small_detection(lesion_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DetectConfig:
    """Six steps on the lesions, by a network of width 4 from scratch that sees five slices."""
    return DetectConfig.model_validate(
        {
            "data": str(lesion_folder),
            "out": tmp_path_factory.mktemp("detected") / "run",
            "seed": 5,
            "steps": 6,
            "val_steps": 3,
            "batch_size": 2,
            "network": {"backbone": "resnet10", "width": 4, "stem": 3},
            "slices": {"num_slices": 5, "image_size": 64},
            "detector": {"fpn_channels": 16, "head_width": 16, "box_samples": 32},
            "augmentation": {"flip_x": 0.5, "flip_slices": 0.5},
            "optimization": {"optimizer": "adamw", "lr": 0.002},
            "machine": {"device": "cpu", "precision": "fp32"},
        }
    )


@pytest.fixture(scope="session")
def detected(small_detection: DetectConfig) -> Run:
    """The run of `small_detection`; not to be changed."""
    return finetune(small_detection)


@pytest.fixture
def _messages_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command does to logging and warnings for its own process."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    names = ("voxlift", "lightning", "lightning.pytorch", "lightning.fabric")
    before = [(log, log.level, list(log.handlers)) for log in map(logging.getLogger, names)]
    yield
    for log, level, handlers in before:
        log.setLevel(level)
        log.handlers[:] = handlers


@pytest.fixture
def command(_messages_as_before: None) -> Callable[..., int]:
    """Run a command as in a shell, and return its exit code."""

    def run(*words: Any) -> int:
        try:
            return main([str(word) for word in words])
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


class PowerCut(BaseException):
    """What a kill does to the process, as far as a test can: nothing of the run gets it."""


class Events:
    """Do something at one of the events of a run: a step, a validation step, a write.

    Args:
        patch: What the events are hooked by.
        at: Number of the event, from 0; None only counts them.
        of: Name of the events that are counted; None for all.
        happens: What is done there.
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        *,
        at: int | None,
        of: str | None,
        happens: Callable[[], object],
    ) -> None:
        self.names: list[str] = []
        self.at = at
        self.of = of
        self.happens = happens
        for kind in (PretrainTask, ClassifyTask, SegmentTask, DetectTask):
            self._hook(patch, kind, "training_step")
            self._hook(patch, kind, "validation_step")
        self._hook(patch, MetricsLog, "write")
        self._hook(patch, Path, "replace")

    def _hook(self, patch: pytest.MonkeyPatch, kind: Any, method: str) -> None:
        original = getattr(kind, method)

        def hooked(*args: Any, **kwargs: Any) -> Any:
            name = f"{method} {args[1].name}" if method == "replace" else method
            self._pass(f"before {name}")
            result = original(*args, **kwargs)
            self._pass(f"after {name}")
            return result

        patch.setattr(kind, method, hooked)

    def _pass(self, name: str) -> None:
        if self.of not in (None, name):
            return
        self.names.append(name)
        if len(self.names) - 1 == self.at:
            self.happens()


@pytest.fixture
def events() -> Iterator[Callable[..., Events]]:
    """Make `Events` that replace those made before, and are gone after the test."""
    with pytest.MonkeyPatch.context() as patch:

        def make(
            *,
            at: int | None = None,
            of: str | None = None,
            happens: Callable[[], object] = lambda: None,
        ) -> Events:
            patch.undo()
            return Events(patch, at=at, of=of, happens=happens)

        yield make


@pytest.fixture
def cut_power() -> Callable[[], None]:
    def cut() -> None:
        raise PowerCut

    return cut
