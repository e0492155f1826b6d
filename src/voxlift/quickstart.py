"""The whole story in minutes, offline: photographs, few labelled volumes, and what was gained."""

import csv
import json
import logging
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxlift.config import FinetuneConfig, MachineConfig, NetworkConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.files import write_text
from voxlift.data.classification_batches import VolumeAugmentation
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.classification_source import open_classification
from voxlift.data.image_source import open_images
from voxlift.data.phantoms import nodule_set
from voxlift.experiment import finetune, pretrain
from voxlift.figures.learning_curves import plot_learning_curves
from voxlift.figures.lift import plot_lift, plot_lifted_with_kernels
from voxlift.figures.slices import plot_planes
from voxlift.metrics.bootstrap import Interval, bootstrap_interval
from voxlift.metrics.curves import steps_to_reach
from voxlift.metrics.weighted import weighted_auroc
from voxlift.recipes.pretraining import photographs
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.training.run_folder import describe_environment
from voxlift.weights.bundled import BUNDLED, bundled_path
from voxlift.weights.file import read_weight_file

logger = logging.getLogger(__name__)

NUM_TRAIN, NUM_VAL, NUM_TEST = 32, 48, 160
SIZE_VOXELS = (24, 24, 24)
NUM_SEEDS = 3
NUM_STEPS, BATCH_SIZE, VAL_STEPS = 40, 8, 10
SHORT_EPOCHS = 1
CT_WINDOW_HU = (-1000.0, 400.0)
STARTS = ("scratch", "tiny", "tiny-axes", "photographs")


@dataclass(frozen=True)
class StartResult:
    """What one start achieved, over all seeds.

    Args:
        start: Its name.
        auroc: Mean AUROC on the test cases over the seeds, with a bootstrap interval over patients.
        auroc_by_seed: AUROC of each seed.
        gain: Difference of AUROC to scratch, paired by case and seed; None for scratch.
        steps_to_target: Steps until the mean validation AUROC is what scratch ends with.
        curve: Mean validation AUROC over the seeds, at each validated step.
    """

    start: str
    auroc: Interval
    auroc_by_seed: tuple[float, ...]
    gain: Interval | None
    steps_to_target: int | None
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class QuickstartResult:
    """A table, sentences and commands to be shown.

    Args:
        title: Heading of the table.
        columns: Its columns.
        rows: Its rows, as text.
        sentences: What was and was not gained.
        next_commands: What to type next.
        results: The numbers behind the table.
        folder: Where everything was written.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]
    next_commands: tuple[str, ...]
    results: tuple[StartResult, ...]
    folder: Path


def quickstart(
    *,
    data: str | None = None,
    out: str | Path = "runs/quickstart",
    seed: int = 0,
    overwrite: bool = False,
    num_steps: int = NUM_STEPS,
    num_seeds: int = NUM_SEEDS,
) -> QuickstartResult:
    """Compare starts on few labelled volumes, with the same budget and seeds.

    A short pre-training on ten photographs is run first, as a demonstration; then each start is
    fine-tuned: scratch, the bundled `tiny` and `tiny-axes`, and that short pre-training.

    Args:
        data: Labelled volumes (see `FinetuneConfig`); None simulates CT nodules.
        out: Folder for runs, figures and `quickstart.json`.
        seed: First of the seeds.
        overwrite: Replace what an earlier quickstart left there.
        num_steps: Steps of each fine-tuning.
        num_seeds: Fine-tunings of each start.

    Raises:
        ConfigError: If the folder is not empty.
        DataError: If the volumes cannot be read, or are of more than two classes.
    """
    folder = Path(out)
    _check_folder(folder, overwrite=overwrite)
    for start in BUNDLED.keys() & set(STARTS):
        bundled_path(start)
    cases = _open_cases(data, seed)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    logger.info("1 of 3: pre-training briefly on ten photographs")
    demonstration = photographs().model_copy(
        update={"out": folder / "pretrain", "seed": seed, "epochs": SHORT_EPOCHS}
    )
    short = _finished(pretrain(demonstration))
    model = short.folder / "model.safetensors"
    _draw_idea(folder, model, cases)
    starts = {start: start for start in STARTS} | {"photographs": str(model)}
    logger.info("2 of 3: fine-tuning %d starts with %d seeds each", len(starts), num_seeds)
    runs = {
        start: [
            _finetune(
                weights,
                cases,
                folder / "finetune" / f"{start}-{number}",
                seed=seed + number,
                num_steps=num_steps,
            )
            for number in range(num_seeds)
        ]
        for start, weights in starts.items()
    }
    logger.info("3 of 3: comparing")
    patients = [cases.groups[index] for index in cases.indices("test")]
    results = _compare(runs, groups=patients, seed=seed)
    _write(folder, results, short.metrics, seed=seed, num_steps=num_steps, cases=cases)
    return _tell(results, folder, data, cases=cases, num_seeds=num_seeds)


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise ConfigError(
            f"{folder} is not empty. Replace its results with --overwrite, or choose another "
            "folder with --out."
        )
    if not (folder / "quickstart.json").is_file() and not (folder / "pretrain").is_dir():
        raise ConfigError(
            f"{folder} holds no quickstart, so --overwrite will not delete it. Choose another "
            "folder with --out."
        )


def _open_cases(data: str | None, seed: int) -> ClassificationCases:
    """Open the user's volumes, or simulate smooth and spiculated nodules in three splits."""
    if data is not None:
        cases = open_classification(data, published_split="ignore")
        if (number := len(cases.class_names)) != 2:
            raise DataError(f"{data} has {number} classes; quickstart takes two, finetune more.")
        return cases.with_splits(seed=seed)
    counts = {"train": NUM_TRAIN, "val": NUM_VAL, "test": NUM_TEST}
    nodules = nodule_set(sum(counts.values()), seed=seed, size_voxels=SIZE_VOXELS)
    return ClassificationCases.from_arrays(
        nodules.volumes,
        nodules.labels,
        class_names=("smooth", "spiculated"),
        splits=[split for split, count in counts.items() for _ in range(count)],
        masks=nodules.masks,
        origin="simulated nodules",
    )


def _finetune(
    weights: str, cases: ClassificationCases, out: Path, *, seed: int, num_steps: int
) -> Path:
    logger.info("Fine-tuning %s", out.name)
    scratch = weights == "scratch"
    config = FinetuneConfig(
        recipe="quickstart",
        data=cases.origin,
        out=out,
        seed=seed,
        epochs=num_steps,
        steps=num_steps,
        batch_size=BATCH_SIZE,
        val_steps=VAL_STEPS,
        machine=MachineConfig(progress=False),
        # The same network for all: that of the bundled starts.
        network=NetworkConfig(
            weights=weights, width=16 if scratch else None, stem=3 if scratch else None
        ),
        augmentation=VolumeAugmentation(flip_axes=("depth", "height", "width"), shift_voxels=2),
        optimization=OptimizationConfig(
            optimizer="adamw", lr=1e-3, weight_decay=0.05, decay_norms=False, warmup=0.1
        ),
    )
    return _finished(finetune(config, cases=cases)).folder


def _finished(run: Run) -> Run:
    if run.stopped_by:
        signal.raise_signal(run.stopped_by)
    return run


def _compare(
    runs: dict[str, list[Path]], *, groups: Sequence[str], seed: int
) -> tuple[StartResult, ...]:
    """Put the runs of all starts side by side; every run judged the same test cases."""
    answers = {start: [_read_answers(path) for path in paths] for start, paths in runs.items()}
    labels = answers["scratch"][0][0]
    scores = {start: np.stack([a[1] for a in each], axis=1) for start, each in answers.items()}
    curves = {start: _mean_curve(paths) for start, paths in runs.items()}
    target = curves["scratch"][1][-1]
    results = []
    for start in runs:
        gain = None
        if start != "scratch":
            gain = bootstrap_interval(
                lambda y, ours, theirs: mean_auroc(y, ours) - mean_auroc(y, theirs),
                labels,
                scores[start],
                scores["scratch"],
                groups=groups,
                labels=labels,
                seed=seed,
            )
        steps, values = curves[start]
        results.append(
            StartResult(
                start=start,
                auroc=bootstrap_interval(
                    mean_auroc, labels, scores[start], groups=groups, labels=labels, seed=seed
                ),
                auroc_by_seed=tuple(
                    mean_auroc(labels, column[:, None]) for column in scores[start].T
                ),
                gain=gain,
                steps_to_target=steps_to_reach(steps, values, target),
                curve=tuple(zip(steps, values, strict=True)),
            )
        )
    return tuple(results)


def mean_auroc(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> float:
    """AUROC of class 1, averaged over the columns (seeds) of `scores`."""
    ones = np.ones((1, len(labels)))
    return float(np.mean([weighted_auroc(column, labels == 1, ones)[0] for column in scores.T]))


def _read_answers(run: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Read label and probability of class 1 of each test case from a run's predictions."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    labels = np.array([names.index(row["label"]) for row in rows])
    return labels, np.array([float(row[f"p_{names[1]}"]) for row in rows])


def _mean_curve(runs: Sequence[Path]) -> tuple[list[int], list[float]]:
    """Average the validation AUROC of several runs at each step."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for line in read_metrics(run / "metrics.jsonl"):
            if (line["split"], line["name"]) == ("val", "auroc"):
                found.setdefault(line["step"] + 1, []).append(line["value"])
    steps = sorted(found)
    return steps, [float(np.mean(found[step])) for step in steps]


def _draw_idea(folder: Path, model: Path, cases: ClassificationCases) -> None:
    """Draw photographs as thin volumes, the kernels learnt from them, and some volumes."""
    figures = folder / "figures"
    images = open_images("photographs", split="val")
    chosen = [images.read(index) for index in range(4)]
    plot_lift(chosen[0], figures / "lift.png")
    kernels = read_weight_file(model).tensors["backbone.conv1.weight"].float().numpy()
    plot_lifted_with_kernels(chosen, kernels, figures / "photographs_and_kernels.png")
    examples = [int(np.flatnonzero(cases.labels == label)[0]) for label in (0, 1)]
    volumes = [cases.read_volume(index) for index in examples]
    plot_planes(
        [volume.array for volume in volumes],
        figures / "volumes.png",
        titles=[cases.class_names[cases.labels[index]] for index in examples],
        spacing_mm=volumes[0].spacing_mm,
        window_hu=CT_WINDOW_HU if volumes[0].array.min() < 0 else None,
    )


def _write(
    folder: Path,
    results: Sequence[StartResult],
    pretraining: dict[str, float],
    *,
    seed: int,
    num_steps: int,
    cases: ClassificationCases,
) -> None:
    content = {
        "data": cases.describe(),
        "seed": seed,
        "steps": num_steps,
        "batch_size": BATCH_SIZE,
        "pretraining_on_photographs": pretraining,
        "starts": [
            {
                "start": result.start,
                "auroc": result.auroc.model_dump(mode="json"),
                "auroc_by_seed": result.auroc_by_seed,
                "gain_over_scratch": result.gain.model_dump(mode="json") if result.gain else None,
                "steps_to_scratch_final": result.steps_to_target,
                "validation_curve": result.curve,
            }
            for result in results
        ],
        "environment": describe_environment(),
    }
    write_text(folder / "quickstart.json", json.dumps(content, indent=2) + "\n")
    plot_learning_curves(
        {
            result.start: ([s for s, _ in result.curve], [v for _, v in result.curve])
            for result in results
        },
        folder / "figures" / "learning_curves.png",
        title="Validation AUROC, mean over seeds",
        value_name="AUROC",
    )


def _tell(
    results: Sequence[StartResult],
    folder: Path,
    data: str | None,
    *,
    cases: ClassificationCases,
    num_seeds: int,
) -> QuickstartResult:
    """Put the numbers into a table and into words."""
    rows = []
    for result in results:
        gain = "" if result.gain is None else _span(result.gain, sign="+")
        reached = "not reached" if result.steps_to_target is None else str(result.steps_to_target)
        rows.append((result.start, _span(result.auroc), gain, reached))
    better = [r.start for r in results if r.gain and r.gain.low > 0]
    worse = [r.start for r in results if r.gain and r.gain.high < 0]
    level = [r.start for r in results if r.gain and r.gain.low <= 0 <= r.gain.high]
    sentences = []
    if better:
        sentences.append(f"Better than scratch on these volumes: {', '.join(better)}.")
    if worse:
        sentences.append(f"Worse than scratch on these volumes: {', '.join(worse)}.")
    if level:
        sentences.append(
            f"No difference that {num_seeds} seeds and {len(cases.indices('test'))} test cases "
            f"could show: {', '.join(level)}."
        )
    end = next(r for r in results if r.start == "scratch").steps_to_target or 0
    faster = [r.start for r in results if r.steps_to_target is not None and r.steps_to_target < end]
    sentences.append(
        f"Sooner than scratch where scratch ended: {', '.join(faster)}."
        if faster
        else "No start reached sooner what scratch ended with."
    )
    what = "your volumes" if data else "simulated nodules, which say little about real patients"
    sentences.append(f"This is a small comparison on {what}; repeat it with your data and seeds.")
    return QuickstartResult(
        title=f"{cases.describe()}; {num_seeds} seeds",
        columns=("start", "AUROC (95 %)", "against scratch (95 %)", "steps to scratch's end"),
        rows=tuple(rows),
        sentences=tuple(sentences),
        next_commands=(
            "voxlift quickstart --data YOUR.csv --out runs/mine",
            "voxlift finetune --data YOUR.csv --weights tiny --out runs/first",
            "voxlift pretrain --recipe cifar10-tiny --data FOLDER_OF_CLASSES",
        ),
        results=tuple(results),
        folder=folder,
    )


def _span(interval: Interval, *, sign: str = "") -> str:
    return f"{interval.value:{sign}.3f} ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"
