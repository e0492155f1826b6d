"""The console: where words go and how messages look."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

# No markup: paths may hold brackets.
out = Console(markup=False)
err = Console(stderr=True, markup=False)


def show_error(message: str) -> None:
    """Show what went wrong and what to do."""
    err.print(f"error: {message}", style="red", soft_wrap=True, highlight=False)


def set_up_messages() -> None:
    """Show our own messages and warnings, one a line; keep the trainer's chatter out."""
    handler = RichHandler(console=err, show_path=False, show_level=False, log_time_format="%X")
    ours = logging.getLogger("voxlift")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    if issubclass(category, UserWarning):
        err.print(f"warning: {message}", style="yellow", soft_wrap=True)


@contextmanager
def count_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar that counts, with the time left; yields what is told (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
