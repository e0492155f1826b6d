"""Small runs of all tasks: their losses, their metrics, and the files that they leave.

The runs are computed in double precision: rounding, which differs between processors and is
amplified by each step, then stays small. Test cases are evaluated in single precision as always. On
a processor as that of the golden values everything is compared to `TOLERANCE`. Elsewhere the losses
of the first three steps are; later ones to `LATER`, since the first weights and the data, which are
made in single precision, differ by 1e-8 there (with the vector code of PyTorch, oneDNN and NumPy
turned off, losses of later steps differed by up to 2.5e-4), and metrics, which jump when the rank
of a box or the class of a voxel changes, to `METRICS`.
"""

import json
import math
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import voxlift
from voxlift import DetectConfig, FinetuneConfig, PretrainConfig, Run, SegmentConfig

TOLERANCE = 1e-6
LATER = 1e-3
METRICS = 0.1
STEPS = 20
STEP_LOSS = "loss of each step"
NUMBERED = re.compile(r"events\.out\.tfevents\..+")
CPU = {"device": "cpu", "precision": "fp32"}

Golden = Callable[..., None]


class Losses(Callback):
    """Note the loss of every training batch; hand the network back in single precision."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: object, pl_module: object, outputs: Any, *_: object
    ) -> None:
        del trainer, pl_module
        self.values.append(outputs["loss"].item())

    def teardown(self, trainer: object, pl_module: lightning.LightningModule, stage: str) -> None:
        del trainer, stage
        pl_module.float()


@pytest.fixture(scope="module")
def losses() -> Iterator[Losses]:
    """Compute all runs of this module in double precision, in one thread, and note their losses."""
    noted = Losses()
    make = lightning.Trainer.__init__

    def make_double(trainer: lightning.Trainer, **options: Any) -> None:
        callbacks = [*options.pop("callbacks", ()), noted]
        make(trainer, **options | {"precision": "64-true", "callbacks": callbacks})

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning.Trainer, "__init__", make_double)
        # The trainer makes double the default type of its steps.
        patch.setattr(torch.Tensor, "float", lambda tensor: tensor.to(torch.get_default_dtype()))
        torch.set_num_threads(1)
        yield noted
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pretrain_config(
    photograph_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "data": str(photograph_folder),
            "out": tmp_path_factory.mktemp("golden") / "pretrain",
            "seed": 11,
            "steps": STEPS,
            "val_steps": STEPS // 2,
            "batch_size": 6,
            "val_fraction": 0.25,
            "image_size": 8,
            "axis_shuffle": True,
            "network": {"backbone": "resnet10", "width": 4, "stem": 3},
            "augmentation": {"crop": "random-resized", "brightness": 0.2, "contrast": 0.2},
            "optimization": {"optimizer": "sgd", "lr": 0.02, "weight_decay": 1e-4},
            "machine": CPU,
        }
    )


@pytest.fixture(scope="module")
def classify_config(
    nodule_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "data": str(nodule_folder / "nodules.csv"),
            "out": tmp_path_factory.mktemp("golden") / "classify",
            "seed": 12,
            "steps": STEPS,
            "val_steps": STEPS // 2,
            "batch_size": 3,
            "fractions": (0.5, 0.25, 0.25),
            "network": {"weights": "tiny"},
            "volume": {"size_voxels": (6, 8, 8)},
            "augmentation": {"shift_voxels": 1, "flip_axes": ("width",)},
            "optimization": {"optimizer": "adamw", "lr": 1e-4, "weight_decay": 0.01},
            "layer_decay": 0.8,
            "machine": CPU,
        }
    )


@pytest.fixture(scope="module")
def segment_config(ball_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SegmentConfig:
    return SegmentConfig.model_validate(
        {
            "data": str(ball_folder),
            "out": tmp_path_factory.mktemp("golden") / "segment",
            "seed": 13,
            "steps": STEPS,
            "val_steps": STEPS // 2,
            "batch_size": 2,
            "fractions": (0.5, 0.25, 0.25),
            "network": {"backbone": "resnet10", "width": 4, "stem": 3, "geometry": "small"},
            "scan": {"patch_voxels": (8, 8, 8)},
            # Turned masks have voxels at which rounding chooses the class.
            "augmentation": {"rotation_degrees": 0, "scaling": (1, 1), "deform_chance": 0},
            "optimization": {"optimizer": "sgd", "lr": 0.001},
            "machine": CPU,
        }
    )


@pytest.fixture(scope="module")
def detect_config(lesion_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DetectConfig:
    return DetectConfig.model_validate(
        {
            "data": str(lesion_folder),
            "out": tmp_path_factory.mktemp("golden") / "detect",
            "seed": 14,
            "steps": STEPS,
            "val_steps": STEPS // 2,
            "batch_size": 2,
            "network": {"backbone": "resnet10", "width": 4, "stem": 3},
            "slices": {"num_slices": 3, "image_size": 64},
            "detector": {"head": "retinanet", "fpn_channels": 16, "head_width": 16},
            "augmentation": {"flip_x": 0.5, "flip_slices": 0.5},
            "optimization": {"optimizer": "sgd", "lr": 0.001},
            "machine": CPU,
        }
    )


def file_names(folder: Path) -> list[str]:
    """List the files of a folder; what is named after host, time and process is generalised."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(NUMBERED.sub("events.out.tfevents.*", path.as_posix()) for path in paths)


def processor() -> str:
    """Name what rounding depends on."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", path.read_text()) if path.is_file() else []
    kind = names[0] if names else platform.machine()
    return f"{kind}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare lists of numbers by their names, as exactly as the processors allow."""
    assert found.keys() == expected.keys()
    alike = found["processor"] == expected["processor"]
    for name in expected.keys() - {"processor"}:
        ours, theirs = found[name], expected[name]
        assert len(ours) == len(theirs), name
        if alike or "lr" in name:
            near = pytest.approx(theirs, rel=TOLERANCE, abs=1e-12)
        elif "loss" in name:
            near = pytest.approx(theirs, rel=LATER)
        else:
            near = pytest.approx(theirs, rel=METRICS, abs=METRICS)
        assert ours == near, name
        if name == STEP_LOSS:
            assert ours[:3] == pytest.approx(theirs[:3], rel=TOLERANCE)


@pytest.mark.parametrize("task", ["pretrain", "classify", "segment", "detect"])
def test_run(
    task: str,
    losses: Losses,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    golden_entry: Golden,
) -> None:
    config = request.getfixturevalue(f"{task}_config")
    losses.values.clear()
    run: Run = (voxlift.pretrain if task == "pretrain" else voxlift.finetune)(config)
    assert len(losses.values) == STEPS
    assert all(map(math.isfinite, losses.values))
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    logged: dict[str, Any] = {STEP_LOSS: list(losses.values), "processor": processor()}
    for line in lines:
        if line["name"] not in ("samples_per_second", "images_per_second"):
            logged.setdefault(f"{line['split']}/{line['name']}", []).append(line["value"])
    logged |= {f"final {name}": [value] for name, value in run.metrics.items()}
    golden_entry("values.json", task, logged, compare=close)
    golden_entry("files.json", task, file_names(run.folder))

    voxlift.evaluate(run.folder, data=config.data, out=tmp_path / "evaluate", device="cpu")
    golden_entry("files.json", f"{task}, evaluate", file_names(tmp_path / "evaluate"))
    if task != "pretrain":
        scan = tmp_path / "scan.nii.gz"
        values = np.random.default_rng(0).integers(-200, 200, (12, 40, 40), dtype=np.int16)
        voxlift.write_volume(scan, voxlift.Volume(values, spacing_mm=(2.5, 1.0, 1.0)))
        voxlift.predict(run.folder, [scan], out=tmp_path / "predict", device="cpu")
        golden_entry("files.json", f"{task}, predict", file_names(tmp_path / "predict"))


def test_two_stages(
    detect_config: DetectConfig, losses: Losses, tmp_path: Path, golden_entry: Golden
) -> None:
    """Three steps alone: soon rounding chooses between proposals of nearly the same score."""
    detector = detect_config.detector.model_copy(update={"head": "faster-rcnn", "box_samples": 32})
    changes = {"out": tmp_path / "run", "steps": 3, "val_steps": 3, "detector": detector}
    losses.values.clear()
    run = voxlift.finetune(detect_config.model_copy(update=changes))
    assert len(losses.values) == 3
    logged = {STEP_LOSS: list(losses.values), "processor": processor()}
    golden_entry("values.json", "detect in two stages", logged, compare=close)
    golden_entry("files.json", "detect", file_names(run.folder))


def test_run_of_folds(
    classify_config: FinetuneConfig, tmp_path: Path, golden_entry: Golden
) -> None:
    network = classify_config.network.model_copy(update={"weights": "scratch", "width": 4})
    changes = {"out": tmp_path / "run", "folds": 2, "steps": 2, "val_steps": 1, "network": network}
    run = voxlift.finetune(classify_config.model_copy(update=changes))
    golden_entry("files.json", "classify with folds", file_names(run.folder))
