"""Measure by which statistics and which pooling the features of starts are worth most.

Command: `uv run python scripts/measure_features.py`. Nodules are simulated anew for each seed; 16,
32 or 96 of them are learnt from, and 160 others judged. Each start is asked with the running
statistics of batch norm that its file has and with those of the training volumes, and for each way
of pooling. A linear probe and k nearest neighbours answer, as in `voxlift probe`.

The result goes to `benchmarks/results/features.json`. It is why `FeatureOptions` has its defaults.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
import tyro

from voxlift.config import FinetuneConfig
from voxlift.core.files import write_text
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.phantoms import CLASS_NAMES, nodule_set
from voxlift.data.prepared_volumes import PreparedVolumes
from voxlift.inference.embedding import (
    Pool,
    Start,
    gather_on,
    make_start,
    on_device,
    pool_maps,
    read_start,
    scratch_architecture,
)
from voxlift.inference.feature_classifiers import TrainingFeatures, classify_features, make_folds
from voxlift.metrics.paired import macro_auroc
from voxlift.probing import ProbeOptions
from voxlift.training.classification import ClassificationData, open_classification_data
from voxlift.training.run_folder import describe_environment

logger = logging.getLogger("measure_features")

STARTS = ("scratch", "tiny", "tiny-axes")
STATISTICS = ("file", "data")
Floats = npt.NDArray[np.floating]


@dataclass
class Command:
    """Measure features of simulated nodules.

    Args:
        out: Result file.
        labels: Numbers of labelled nodules.
        judged: Nodules that are judged.
        seeds: Of the nodules, the folds and the random network.
        size: Edge of the volumes in voxels of 1 mm.
        threads: CPU threads.
    """

    out: Path = Path("benchmarks/results/features.json")
    labels: tuple[int, ...] = (16, 32, 96)
    judged: int = 160
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    size: int = 24
    threads: int = 2


def main() -> None:
    """Measure everything and write it."""
    command = tyro.cli(Command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("voxlift").setLevel(logging.WARNING)
    torch.set_num_threads(command.threads)
    rows: list[dict[str, Any]] = []
    for seed in command.seeds:
        for num_labels in command.labels:
            rows += measure(
                seed=seed, num_labels=num_labels, judged=command.judged, size=command.size
            )
            write_text(command.out, to_json(rows, command))
        logger.info("seed %d done", seed)
    for line in summarise(rows):
        logger.info("%s", line)


def measure(*, seed: int, num_labels: int, judged: int, size: int) -> list[dict[str, Any]]:
    """Judge all starts, statistics and poolings on one draw of nodules."""
    data = open_nodules(seed=seed, num_labels=num_labels, judged=judged, size=size)
    known, asked = (
        PreparedVolumes(data.cases, part, preprocessing=data.preprocessing)
        for part in (data.train, data.test)
    )
    labels, truth = data.cases.labels[data.train], data.cases.labels[data.test]
    groups = [data.cases.groups[i] for i in data.train]
    fold = make_folds(labels, groups, seed=seed, class_names=data.cases.class_names)
    rows = []
    for name in STARTS:
        for statistics in STATISTICS:
            file = read_start(name)
            architecture = scratch_architecture(None, width=16, stem=3)
            start = make_start(
                name, file, geometry=data.geometry, architecture=architecture, seed=seed
            )
            if statistics == "data":
                gather_on(start, known)
            mine, theirs = features_of(start, known), features_of(start, asked)
            for pool in get_args(Pool):
                train = TrainingFeatures(mine[pool].astype(np.float64), labels, 2, fold)
                for verdict in classify_features(train, theirs[pool]):
                    area = macro_auroc(verdict.probabilities, truth, np.ones((1, len(truth))))
                    rows.append(
                        {
                            "seed": seed,
                            "labels": num_labels,
                            "start": name,
                            "statistics": statistics,
                            "pool": pool,
                            "method": verdict.method,
                            "setting": verdict.setting,
                            "auroc": round(float(area[0]), 5),
                        }
                    )
    return rows


def open_nodules(*, seed: int, num_labels: int, judged: int, size: int) -> ClassificationData:
    """Simulate nodules, and propose preprocessing and strides from those that are learnt from."""
    nodules = nodule_set(num_labels + judged, seed=seed, size_voxels=(size, size, size))
    cases = ClassificationCases.from_arrays(
        nodules.volumes,
        nodules.labels,
        class_names=CLASS_NAMES,
        splits=["train"] * num_labels + ["test"] * judged,
        origin="simulated nodules",
    )
    config = FinetuneConfig(data="simulated", seed=seed, fractions=(1.0, 0.0, 0.0), folds=2)
    return open_classification_data(config, cases)


def features_of(start: Start, volumes: PreparedVolumes) -> dict[str, Floats]:
    """Compute the features of volumes by every way of pooling."""
    parts: dict[str, list[Floats]] = {pool: [] for pool in get_args(Pool)}
    with torch.inference_mode():
        for batch in on_device(start, volumes, ProbeOptions().batch_size):
            maps = list(start.backbone(batch))
            for pool in parts:
                parts[pool].append(pool_maps(maps, pool).numpy())  # type: ignore[arg-type]
    return {pool: np.concatenate(each) for pool, each in parts.items()}


def mean_auroc(rows: list[dict[str, Any]], **fields: str) -> float:
    """Average the rows that have these values, but for those of scratch."""
    chosen = [
        row["auroc"]
        for row in rows
        if row["start"] != "scratch" and all(row[key] == value for key, value in fields.items())
    ]
    return float(np.mean(chosen))


def summarise(rows: list[dict[str, Any]]) -> list[str]:
    """Say, for each method and pooling, the mean AUROC of the starts by either statistics."""
    lines = []
    for method in ("linear", "k-nn"):
        for pool in get_args(Pool):
            by_file, by_data = (
                mean_auroc(rows, method=method, pool=pool, statistics=statistics)
                for statistics in STATISTICS
            )
            lines.append(f"{method}, {pool}: file {by_file:.3f}, data {by_data:.3f}")
    return lines


def to_json(rows: list[dict[str, Any]], command: Command) -> str:
    """Write the rows with what they were measured by."""
    content = {
        "kind": "features",
        "data": "simulated nodules",
        "num_judged": command.judged,
        "size_voxels": [command.size] * 3,
        "command": "uv run python scripts/measure_features.py",
        "summary": summarise(rows),
        # Without the command line, which names folders of the machine.
        "environment": {k: v for k, v in describe_environment().items() if k != "command"},
        "rows": rows,
    }
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    main()
