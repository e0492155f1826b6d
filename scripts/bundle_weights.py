"""Turn a finished pre-training run into a bundled start: half precision, with licence and card.

    python scripts/bundle_weights.py tiny runs/cifar10-tiny --data FOLDER_OF_CIFAR10

The accuracy on the card is measured here, on the test images, with the file as it will ship.
"""

import argparse
import json
import tempfile
from pathlib import Path

from pydantic import JsonValue

from voxlift.core.files import write_text
from voxlift.evaluation import evaluate
from voxlift.training.run_folder import load_yaml
from voxlift.weights.bundled import BUNDLED, FOLDER
from voxlift.weights.file import WeightFile, read_weight_file, write_weight_file

LICENCE = (
    "Apache-2.0, as Voxlift itself; CIFAR-10, from which they were learnt, is a public research "
    "set that states no licence"
)
CITATION = "arXiv:2201.01426 (method); A. Krizhevsky, Learning Multiple Layers of Features, 2009"

CARD = """# {name}

{summary}. ResNet3D-18 of width {width}, stem kernel {stem},
{norm} norm, one input channel, geometry `thumbnail`. {parameters:,} parameters in the backbone;
{megabytes:.1f} MB in half precision.

| | |
|---|---|
| Data | CIFAR-10, 50,000 training photographs of 32 pixels in ten classes, from a JPEG copy |
| Recipe | `{recipe}`: {epochs} epochs, axis shuffle {axis_shuffle}, seed {seed} |
| Command | `{command}` |
| Test top-1 | {top1:.2%} (10,000 test photographs, this file, slices in their own order) |
| Test top-5 | {top5:.2%} |
| Machine | {machine}, {cores} cores, torch {torch}, {date} |
| sha256 of the full-precision model | `{sha256}` |

The test photographs were looked at once an epoch to draw the learning curve; neither recipe nor
epoch was chosen by them.

**Licence.** {licence}. Remove no notice when you pass the weights on.

**Limits.** Learnt from ten kinds of small photographs. A start for small networks and small
volumes, and for trying the method; not the paper's network, which took ImageNet and width 64.
Research software, not a medical device.

**Cite.** {citation}.
"""


def main() -> None:
    """Write the file and its card into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(BUNDLED))
    parser.add_argument("run", type=Path, help="run folder of the finished pre-training")
    parser.add_argument("--data", required=True, help="CIFAR-10 as class-per-folder images")
    arguments = parser.parse_args()
    source = read_weight_file(arguments.run / "model.safetensors")
    environment = json.loads((arguments.run / "environment.json").read_text(encoding="utf-8"))
    path = FOLDER / f"{arguments.name}.safetensors"
    _write(path, source)
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate(path, data=arguments.data, out=folder).metrics
    measured = {name: interval.value for name, interval in found.items()}
    provenance = dict(source.header.provenance)
    provenance["data"] = "CIFAR-10 (JPEG copy)"
    provenance["metrics"] = {f"test/{name}": round(value, 6) for name, value in measured.items()}
    _write(path, source, provenance)
    settings = _settings(arguments.run)
    header, summary = source.header, BUNDLED[arguments.name]
    write_text(
        FOLDER / f"{arguments.name}.md",
        CARD.format(
            name=arguments.name,
            summary=summary[0].upper() + summary[1:],
            width=header.architecture.width,
            stem=header.architecture.stem_kernel,
            norm=header.architecture.norm,
            parameters=_count_parameters(source),
            megabytes=path.stat().st_size / 1e6,
            **settings,
            command=provenance["command"],
            top1=measured["top1"],
            top5=measured["top5"],
            machine=environment["processor"],
            cores=environment["cores"],
            torch=environment["packages"]["torch"],
            date=provenance["date"],
            sha256=source.sha256,
            licence=LICENCE,
            citation=CITATION,
        ),
    )


def _write(path: Path, source: WeightFile, provenance: dict[str, JsonValue] | None = None) -> None:
    header = source.header.model_copy(
        update={
            "licence": LICENCE,
            "citation": CITATION,
            "provenance": provenance or source.header.provenance,
        }
    )
    write_weight_file(path, source.tensors, header, half=True)


def _count_parameters(source: WeightFile) -> int:
    learnt = [
        tensor
        for name, tensor in source.tensors.items()
        if name.startswith("backbone.") and name.rpartition(".")[2] in ("weight", "bias")
    ]
    return sum(tensor.numel() for tensor in learnt)


def _settings(run: Path) -> dict[str, object]:
    config = load_yaml(run / "config.yaml")
    return {
        "recipe": config["recipe"],
        "epochs": config["epochs"],
        "axis_shuffle": "on" if config["axis_shuffle"] else "off",
        "seed": config["seed"],
    }


if __name__ == "__main__":
    main()
