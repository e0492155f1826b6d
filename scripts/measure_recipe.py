"""Run a recipe of segmentation and keep its verdict, time and machine as a result file.

Command: `uv run python scripts/measure_recipe.py hippocampus --data FOLDER --skip-bad`. The result
goes to `benchmarks/results/recipe-NAME.json`, from which `scripts/write_results.py` writes the
page, and the figures of the run are copied beside the page.
"""

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from voxlift.config import SegmentConfig
from voxlift.core.files import write_text
from voxlift.experiment import finetune
from voxlift.inference.segmentation_report import SegmentationReport
from voxlift.recipes.registry import finetune_recipe
from voxlift.training.run_folder import describe_environment

FIGURES = ("learning_curves", "worst_cases", "dice")


@dataclass
class Command:
    """Run a recipe of segmentation and keep its verdict.

    Args:
        recipe: Name of the recipe.
        data: The data.
        skip_bad: List unreadable files and go on without them.
        resume: Go on with an interrupted run; the time is then that of the last part.
        runs: Folder for the run folder.
        results: Folder for the result file.
        figures: Folder for the figures.
    """

    recipe: tyro.conf.Positional[str]
    data: str
    skip_bad: bool = False
    resume: bool = False
    runs: Path = Path("runs")
    results: Path = Path("benchmarks/results")
    figures: Path = Path("docs/results/images")


def main() -> None:
    """Run, judge, write."""
    command = tyro.cli(Command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = finetune_recipe(command.recipe)
    assert isinstance(recipe, SegmentConfig)
    config = recipe.model_copy(
        update={
            "data": command.data,
            "skip_bad": command.skip_bad,
            "out": command.runs / command.recipe,
        }
    )
    started = time.monotonic()
    run = finetune(config, resume=command.resume, overwrite=not command.resume)
    minutes = (time.monotonic() - started) / 60
    report = run.report
    assert isinstance(report, SegmentationReport)
    content = {
        "kind": "segmentation-recipe",
        "recipe": command.recipe,
        "command": f"voxlift finetune --recipe {command.recipe} --data FOLDER"
        + (" --skip-bad" if command.skip_bad else ""),
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "start": config.network.weights,
        "minutes": round(minutes, 1),
        # Without the command line, which names folders of the machine.
        "environment": {k: v for k, v in describe_environment().items() if k != "command"},
        "report": report.model_dump(mode="json"),
    }
    path = command.results / f"recipe-{command.recipe}.json"
    write_text(path, json.dumps(content, indent=1) + "\n")
    command.figures.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        shutil.copy(
            run.folder / "figures" / f"{name}.png", command.figures / f"{command.recipe}-{name}.png"
        )


if __name__ == "__main__":
    main()
