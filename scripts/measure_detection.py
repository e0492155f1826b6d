"""Measure what starts gain in lesion detection, on simulated scans in the layout of DeepLesion.

Command: `uv run python scripts/measure_detection.py --photographs FOLDER`, with the first 128
images of COCO and their boxes (COCO128, `images/` and `instances.json`). It

1. pre-trains a detector on those boxes by the recipe `coco-small`, all classes as one, and judges
   it on the images that it learnt from: does it learn at all?
2. simulates scans with lesions, `write_deeplesion_like(num_patients=150, seed=0, size=128)`;
3. fine-tunes by the recipe `detect-few` from scratch, from the bundled `tiny`, and from the
   detector of step 1. Starts differ in their weights alone: steps, batches, rate, augmentation and
   the order of images are the same, and the last weights are judged on the test patients.

Runs that are in the result file already are kept. The result goes to
`benchmarks/results/detection.json`, from which `write_results.py` and `draw_results.py` make the
page.
"""

import json
import logging
import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import tyro

from voxlift.config import DetectConfig, NetworkConfig
from voxlift.core.files import write_text
from voxlift.data.deeplesion_phantoms import write_deeplesion_like
from voxlift.data.detection_cases import DetectionCases
from voxlift.data.detection_source import open_detection
from voxlift.evaluation import evaluate
from voxlift.experiment import finetune, pretrain
from voxlift.inference.detection_report import DetectionReport
from voxlift.inference.froc_file import load_froc
from voxlift.recipes.detection import coco_small, detect_few
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run_folder import describe_environment

logger = logging.getLogger("measure_detection")

SCRATCH, TINY, DETECTOR = "scratch", "tiny", "photograph detector"
NUM_PATIENTS, DATA_SEED, SIZE = 150, 0, 128
VALIDATIONS = 6


@dataclass
class Command:
    """Measure starts on simulated lesions.

    Args:
        photographs: Folder of COCO128.
        out: Result file; runs in it are kept.
        runs: Folder for data and run folders.
        starts: Which starts.
        fractions: Shares of the training patients.
        steps: Budgets: optimizer steps of batch 4.
        seeds: Seeds: of the network's init, of the choice of patients and of the batches.
        threads: CPU threads.
    """

    photographs: str
    out: Path = Path("benchmarks/results/detection.json")
    runs: Path = Path("runs/measure-detection")
    starts: tuple[str, ...] = (SCRATCH, TINY, DETECTOR)
    fractions: tuple[float, ...] = (1.0,)
    steps: tuple[int, ...] = (300,)
    seeds: tuple[int, ...] = (0, 1, 2)
    threads: int = 2


def main() -> None:
    """Run all that is asked for and not there yet."""
    command = tyro.cli(Command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in ("voxlift", "lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.set_num_threads(command.threads)
    content: dict[str, Any] = {"pretraining": None, "runs": []}
    if command.out.is_file():
        content = json.loads(command.out.read_text(encoding="utf-8"))
    detector = command.runs / "photographs"
    if DETECTOR in command.starts and content["pretraining"] is None:
        content["pretraining"] = pretrain_detector(command.photographs, detector)
    data = command.runs / "lesions"
    if not data.is_dir():
        write_deeplesion_like(data, num_patients=NUM_PATIENTS, seed=DATA_SEED, size=SIZE)
    cases = open_detection(data, class_agnostic=True)
    rows = content["runs"]
    done = {(row["start"], row["fraction"], row["steps"], row["seed"]) for row in rows}
    for steps in command.steps:
        for fraction in command.fractions:
            for seed in command.seeds:
                for start in command.starts:
                    if (start, fraction, steps, seed) in done:
                        continue
                    config = configure(
                        str(data),
                        network=network_of(start, detector),
                        fraction=fraction,
                        steps=steps,
                        seed=seed,
                        out=command.runs / f"{steps}-{fraction:g}-{start.replace(' ', '-')}-{seed}",
                    )
                    rows.append({"start": start, "fraction": fraction, **measure(config, cases)})
                    shown = {key: rows[-1][key] for key in ("start", "seed", "sensitivity", "ap50")}
                    logger.info("%s", shown)
                    write_text(command.out, to_json(content, cases))


def network_of(start: str, detector: Path) -> NetworkConfig:
    """Make the network of a start; the shapes are those of `tiny` for all."""
    if start == SCRATCH:
        return NetworkConfig(backbone="resnet18", width=16, stem=3)
    weights = "tiny" if start == TINY else str(detector / "model.safetensors")
    return NetworkConfig(weights=weights)


def pretrain_detector(photographs: str, folder: Path) -> dict[str, Any]:
    """Learn boxes in photographs, unless that was done, and judge on the images learnt from."""
    config = coco_small().model_copy(update={"data": photographs, "out": folder})
    run = pretrain(config, resume=folder.is_dir())
    judged = evaluate(run.folder, data=photographs, out=run.folder / "training", split="train")
    logger.info("Photographs: %s", judged.metrics)
    return {
        "recipe": config.recipe,
        "minutes": minutes_of(folder),
        "training_images": {name: each.value for name, each in judged.metrics.items()},
        "held_out_images": run.metrics,
        "curve": curve_of(run.folder, "loss", split="train"),
    }


def configure(
    data: str, *, network: NetworkConfig, fraction: float, steps: int, seed: int, out: Path
) -> DetectConfig:
    """Make the config of one run."""
    recipe = detect_few()
    return recipe.model_copy(
        update={
            "data": data,
            "out": out,
            "seed": seed,
            "steps": steps,
            "val_steps": steps // VALIDATIONS,
            "label_fraction": fraction,
            "keep": "last",
            "network": network,
            "slices": recipe.slices.model_copy(update={"image_size": SIZE}),
        }
    )


def measure(config: DetectConfig, cases: DetectionCases) -> dict[str, Any]:
    """Train and judge once."""
    started = time.monotonic()
    run = finetune(config, cases=cases, overwrite=True)
    report = run.report
    assert isinstance(report, DetectionReport)
    curve = load_froc(run.folder).all_classes
    metrics = report.metrics
    return {
        "seed": config.seed,
        "steps": config.steps,
        "rates": list(metrics.false_positives_per_image),
        "sensitivity": [each.value for each in metrics.sensitivity],
        "intervals": [[each.low, each.high] for each in metrics.sensitivity],
        "mean_sensitivity": metrics.mean_sensitivity.value,
        "ap50": metrics.average_precision_50,
        # Every eighth point is enough for a picture.
        "froc": list(zip(curve.grid, curve.grid_sensitivity, strict=True))[::8],
        "curve": curve_of(run.folder, "sensitivity", split="val"),
        "seconds": round(time.monotonic() - started, 1),
    }


def minutes_of(folder: Path) -> float:
    """Read from the log of a run how long it took until its model was saved."""
    text = (folder / "log.txt").read_text(encoding="utf-8").partition(" INFO Saved ")[0]
    times = [datetime.fromisoformat(time) for time in re.findall(r"^(\d{4}-.{14})", text, re.M)]
    return round((times[-1] - times[0]).total_seconds() / 60, 1)


def curve_of(folder: Path, name: str, *, split: str) -> list[tuple[int, float]]:
    """Read one metric over the steps of a run."""
    return [
        (line["step"] + 1, line["value"])
        for line in read_metrics(folder / "metrics.jsonl")
        if (line["split"], line["name"]) == (split, name)
    ]


def to_json(content: dict[str, Any], cases: DetectionCases) -> str:
    """Write the results with all that has to be known of them."""
    order = ("steps", "fraction", "start", "seed")
    written = {
        "kind": "detection-starts",
        "data": f"simulated, write_deeplesion_like(num_patients={NUM_PATIENTS}, "
        f"seed={DATA_SEED}, size={SIZE})",
        "num_images": {split: len(cases.indices(split)) for split in ("train", "val", "test")},
        "num_lesions": {
            split: sum(len(cases.cases[index].truth) for index in cases.indices(split))
            for split in ("train", "val", "test")
        },
        "command": "uv run python scripts/measure_detection.py --photographs FOLDER",
        # Without the command line, which names folders of the machine.
        "environment": {k: v for k, v in describe_environment().items() if k != "command"},
        "pretraining": content["pretraining"],
        "runs": sorted(content["runs"], key=lambda row: [row[key] for key in order]),
    }
    return json.dumps(written, indent=1) + "\n"


if __name__ == "__main__":
    main()
