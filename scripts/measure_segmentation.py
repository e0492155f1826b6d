"""Measure what starts gain in segmentation with few labelled volumes, on the hippocampus set.

Command: `uv run python scripts/measure_segmentation.py --data FOLDER`, with the folder of the
Medical Segmentation Decathlon's task 4. A fixed fifth of the volumes is never learnt from; of the
others 4, 8 or 16 are, drawn by the seed. Every start gets the same steps, batches, rate and
augmentation, and the last weights are judged. Runs that are in the result file already are kept.

The result goes to `benchmarks/results/hippocampus.json`, from which `write_results.py` and
`draw_results.py` make the page.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from voxlift.config import NetworkConfig, SegmentConfig
from voxlift.core.files import write_text
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.data.segmentation_source import open_segmentation
from voxlift.experiment import finetune
from voxlift.inference.segmentation_report import SegmentationReport
from voxlift.recipes.segmentation import hippocampus
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run_folder import describe_environment

logger = logging.getLogger("measure_segmentation")

STARTS = {
    "scratch": NetworkConfig(width=16, stem=3),
    "tiny": NetworkConfig(weights="tiny"),
    "tiny-axes": NetworkConfig(weights="tiny-axes"),
}
VALIDATIONS = 4
SPLIT_SEED = 0


@dataclass
class Command:
    """Measure starts on few labelled hippocampus volumes.

    Args:
        data: Folder of the data set.
        out: Result file; runs in it are kept.
        runs: Folder for the run folders.
        labels: Numbers of labelled volumes.
        seeds: Seeds: of the choice of volumes, the network's init and the patches.
        steps: Budgets: optimizer steps of batch 2.
        threads: CPU threads.
    """

    data: str
    out: Path = Path("benchmarks/results/hippocampus.json")
    runs: Path = Path("runs/measure-segmentation")
    labels: tuple[int, ...] = (4, 8, 16)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: tuple[int, ...] = (80, 320)
    threads: int = 2


def main() -> None:
    """Run all that is asked for and not there yet."""
    command = tyro.cli(Command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in ("voxlift", "lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.set_num_threads(command.threads)
    recipe = hippocampus()
    cases = open_segmentation(command.data, skip_bad=True, class_names=recipe.class_names)
    cases = cases.with_splits(fractions=recipe.fractions, seed=SPLIT_SEED)
    rows: list[dict[str, Any]] = []
    if command.out.is_file():
        rows = json.loads(command.out.read_text(encoding="utf-8"))["runs"]
    done = {(row["start"], row["labels"], row["steps"], row["seed"]) for row in rows}
    for steps in command.steps:
        for num_labels in command.labels:
            for seed in command.seeds:
                for start in STARTS:
                    if (start, num_labels, steps, seed) in done:
                        continue
                    config = configure(
                        recipe,
                        cases,
                        start=start,
                        num_labels=num_labels,
                        steps=steps,
                        seed=seed,
                        runs=command.runs,
                    )
                    row = measure(config, cases)
                    rows.append({"start": start, "labels": num_labels, **row})
                    logger.info("%s", {key: rows[-1][key] for key in rows[-1] if key != "curve"})
                    write_text(command.out, to_json(rows, cases))


def configure(
    recipe: SegmentConfig,
    cases: SegmentationCases,
    *,
    start: str,
    num_labels: int,
    steps: int,
    seed: int,
    runs: Path,
) -> SegmentConfig:
    """Make the config of one run; starts differ in their weights alone."""
    return recipe.model_copy(
        update={
            "out": runs / f"{steps}-{num_labels}-{start}-{seed}",
            "seed": seed,
            "steps": steps,
            "val_steps": steps // VALIDATIONS,
            "label_fraction": num_labels / len(cases.indices("train")),
            "network": STARTS[start],
        }
    )


def measure(config: SegmentConfig, cases: SegmentationCases) -> dict[str, Any]:
    """Train and judge once."""
    started = time.monotonic()
    run = finetune(config, cases=cases, overwrite=True)
    report = run.report
    assert isinstance(report, SegmentationReport)
    curve = [
        [line["step"] + 1, line["value"]]
        for line in read_metrics(run.folder / "metrics.jsonl")
        if (line["split"], line["name"]) == ("val", "dice")
    ]
    return {
        "seed": config.seed,
        "steps": config.steps,
        "dice": report.metrics.mean_dice.value,
        "hd95_mm": report.metrics.means["hd95_mm"].value,
        "structures": {
            name: each.metrics["dice"].value for name, each in report.metrics.structures.items()
        },
        "curve": curve,
        "seconds": round(time.monotonic() - started, 1),
    }


def to_json(rows: list[dict[str, Any]], cases: SegmentationCases) -> str:
    """Write the results with all that has to be known of them."""
    content = {
        "kind": "segmentation-starts",
        "data": "Medical Segmentation Decathlon, task 4 (hippocampus)",
        "num_train": len(cases.indices("train")),
        "num_judged": len(cases.indices("val")),
        "split_seed": SPLIT_SEED,
        "command": "uv run python scripts/measure_segmentation.py --data FOLDER",
        # Without the command line, which names folders of the machine.
        "environment": {k: v for k, v in describe_environment().items() if k != "command"},
        "runs": sorted(rows, key=lambda r: (r["steps"], r["labels"], r["start"], r["seed"])),
    }
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    main()
