"""Where a model comes from, in the words that travel with it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import JsonValue
from torch import nn

from voxlift.config import RunConfig
from voxlift.core.preprocessing import Preprocessing
from voxlift.training.run_folder import processor_name
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.remote import is_remote
from voxlift.weights.save import describe_target
from voxlift.weights.source import split_format
from voxlift.weights.target import find_target

Command = Literal["pretrain", "finetune"]


def describe_model(
    model: nn.Module,
    config: RunConfig,
    metrics: Mapping[str, float],
    *,
    preprocessing: Preprocessing,
    head: HeadDescription,
    command: Command = "finetune",
) -> WeightHeader:
    """Write the header of a model of a run; without metrics, that of its checkpoints."""
    return describe_target(
        find_target(model),
        preprocessing=preprocessing,
        head=head,
        provenance=describe_origin(config, metrics, command=command),
    )


def describe_origin(
    config: RunConfig, metrics: Mapping[str, float], *, command: Command = "finetune"
) -> dict[str, JsonValue]:
    """Say what a model was trained on, how, and how well it did.

    Data and start are named by the last part of their paths only: folders may name people.
    """
    recipe = f" --recipe {config.recipe}" if config.recipe else ""
    return {
        "data": Path(config.data).name,
        "recipe": config.recipe,
        "command": f"voxlift {command}{recipe} --data {Path(config.data).name}",
        "start": _name_of_start(config.network.weights),
        "seed": config.seed,
        "epochs": None if config.steps else config.epochs,
        "steps": config.steps,
        "metrics": {name: round(value, 6) for name, value in metrics.items()},
        "date": datetime.now(UTC).date().isoformat(),
        "machine": processor_name(),
    }


def _name_of_start(weights: str) -> str:
    """Name a start without the folder that it lies in; addresses stay whole."""
    declared, plain = split_format(weights)
    name = plain if is_remote(plain) else Path(plain).name
    return f"{declared}:{name}" if declared else name
