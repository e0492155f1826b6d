"""The commands. Only the files of this package print."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from rich.table import Table

from voxlift.cli.console import err, out, set_up_messages, show_error
from voxlift.core.errors import VoxliftError
from voxlift.recipes.registry import FINETUNE_RECIPES, PRETRAIN_RECIPES

COMMANDS = {
    "quickstart": (
        "runs",
        "see in minutes, offline, what a start from photographs gains",
    ),
    "pretrain": (
        "runs",
        "pre-train a 3D backbone on labelled photographs, or on boxes in them",
    ),
    "finetune": (
        "runs",
        "fine-tune a backbone to classify or segment volumes, or to find lesions",
    ),
    "evaluate": ("runs", "judge a saved model on labelled data"),
    "predict": ("runs", "let a saved model answer about volumes"),
    "inspect": ("weights", "say what a weight file holds; list starts and formats"),
    "convert": ("weights", "convert weights: from foreign, from 2D, to ONNX and others"),
    "push": ("weights", "publish a weight file on the Hugging Face hub, with a model card"),
    "probe": ("weights", "judge starts by simple classifiers, for few labels"),
    "embed": ("weights", "write the features that a start has of volumes"),
    "bench": ("runs", "time Voxlift against plain and foreign code"),
}
"""The file of this package with each command, imported when it is called; and a summary."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 for success, 1 or 2 for an error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _show_help()
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        err.print(f"Unknown command {arguments[0]!r}; known are {known}.", soft_wrap=True)
        return 2
    command = _command(arguments[0])
    # After the import, for Lightning sets the level of its messages when it is imported.
    set_up_messages()
    try:
        return command(arguments[1:])
    except VoxliftError as error:
        if "--debug" in arguments:
            raise
        show_error(str(error))
        return 1
    except OSError as error:
        if "--debug" in arguments:
            raise
        where = f"{error.filename}: " if error.filename else ""
        show_error(f"{where}{error.strerror or error}. Check the path, its rights and the space.")
        return 1
    except KeyboardInterrupt:
        err.print("Stopped.")
        return 130


def _command(name: str) -> Callable[[Sequence[str]], int]:
    module = import_module(f"voxlift.cli.{COMMANDS[name][0]}")
    command: Callable[[Sequence[str]], int] = getattr(module, f"{name}_command")
    return command


def _show_help() -> None:
    out.print("usage: voxlift COMMAND [OPTIONS]", highlight=False)
    out.print("Give 3D medical networks a supervised start from labelled photographs.\n")
    table = Table.grid(padding=(0, 3))
    for name, (_, summary) in COMMANDS.items():
        table.add_row(f"  {name}", summary)
    out.print(table)
    out.print("\n`voxlift COMMAND --help` shows every option with its unit and default.")
    recipes = ", ".join([*PRETRAIN_RECIPES, *FINETUNE_RECIPES])
    out.print(f"Recipes: {recipes}.", highlight=False)
    out.print("Research software, not a medical device.")
