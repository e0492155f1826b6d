"""Write and execute the notebook of the quickstart.

Command: `uv run python scripts/build_notebook.py`. It takes as long as the quickstart and writes
`examples/quickstart.ipynb` with all outputs.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from voxlift.core.files import write_text

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
CELL_SECONDS = 1200

logger = logging.getLogger("build_notebook")

CELLS: tuple[tuple[str, str], ...] = (
    (
        "markdown",
        """# The quickstart of Voxlift

From ten photographs to a classifier of simulated CT nodules, on a laptop, without network. It is
the same as `uv run voxlift quickstart`, step by step.

This is research software, not a medical device.""",
    ),
    (
        "code",
        """from pathlib import Path

import torch
from IPython.display import Image, Markdown

import voxlift
from voxlift.data.image_source import open_images
from voxlift.quickstart import quickstart""",
    ),
    (
        "markdown",
        """## The lift

The three colour channels of a photograph become the three slices of a thin volume with one
channel. Nothing is computed: it is a view of the same memory.""",
    ),
    (
        "code",
        """photograph = open_images("photographs", split="val").read(0)
images = torch.from_numpy(photograph).permute(2, 0, 1)[None]
volumes = voxlift.lift(images)
tuple(images.shape), tuple(volumes.shape)""",
    ),
    (
        "markdown",
        """## Run it

A small 3D network is pre-trained briefly on the ten photographs. Then four starts are fine-tuned to
tell smooth from spiculated nodules from a few labelled volumes, with the same budget and the
same seeds: scratch, the two bundled starts, and the brief pre-training.""",
    ),
    ("code", 'result = quickstart(out="runs/quickstart")'),
    ("code", 'Image("runs/quickstart/figures/lift.png")'),
    ("markdown", "How the brief pre-training went, and the kernels that it learned:"),
    ("code", 'Image("runs/quickstart/pretrain/figures/learning_curves.png")'),
    ("code", 'Image("runs/quickstart/figures/photographs_and_kernels.png")'),
    ("markdown", "A smooth and a spiculated nodule, in three planes each:"),
    ("code", 'Image("runs/quickstart/figures/volumes.png")'),
    (
        "markdown",
        """## What was gained

AUROC on the test cases, averaged over the seeds, with 95 % intervals; the difference to scratch,
paired by case and seed; and the steps after which the validation AUROC was what scratch ended
with.""",
    ),
    (
        "code",
        """rows = [result.columns, tuple("---" for _ in result.columns), *result.rows]
Markdown("\\n".join(f"| {' | '.join(row)} |" for row in rows))""",
    ),
    ("code", 'Image("runs/quickstart/figures/learning_curves.png")'),
    ("code", 'Markdown("\\n".join(f"- {sentence}" for sentence in result.sentences))'),
    (
        "markdown",
        """## Use a model

Every run left a `model.safetensors` that knows its preprocessing and its classes. `predict` applies
it to files.""",
    ),
    (
        "code",
        """from voxlift.data.phantoms import CLASS_NAMES, nodule_phantom

for label, name in enumerate(CLASS_NAMES):
    phantom = nodule_phantom(label=label, size_voxels=(24, 24, 24), seed=1000)
    voxlift.write_volume(Path("scans", f"{name}.nii.gz"), voxlift.Volume(phantom.array))
answers = voxlift.predict(
    "runs/quickstart/finetune/tiny-0", ["scans"], out="runs/predictions", device="cpu"
)
[(answer.path.name, answer.class_name, answer.probabilities) for answer in answers.predictions]""",
    ),
    (
        "markdown",
        """## Next

With volumes of your own (`voxlift quickstart --data YOUR.csv`), or one start alone
(`voxlift finetune --data YOUR.csv --weights tiny`). The documentation says how the data may be laid
out.""",
    ),
)


def build() -> dict[str, Any]:
    """Make the notebook, not executed, in the form of its JSON file."""
    cells: list[dict[str, Any]] = []
    for number, (kind, source) in enumerate(CELLS):
        cell: dict[str, Any] = {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": source,
        }
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run all cells in an empty folder.

    Raises:
        CalledProcessError: If a cell raises an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "quickstart.ipynb")
        path.write_text(json.dumps(notebook), encoding="utf-8")
        options = ["--to=notebook", "--execute", "--inplace", "--log-level=ERROR"]
        settings = [f"--ExecutePreprocessor.timeout={CELL_SECONDS}"]
        settings += ["--ExecutePreprocessor.record_timing=False"]
        command = [sys.executable, "-m", "nbconvert", *options, *settings, str(path)]
        subprocess.run(command, check=True)
        executed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    executed["metadata"] = notebook["metadata"]
    return executed


def main() -> None:
    """Build, execute and write the notebook."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=NOTEBOOK, help="file to write")
    path = parser.parse_args().out
    write_text(path, json.dumps(execute(build()), indent=1) + "\n")
    logger.info("%s", path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
