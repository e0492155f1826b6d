"""Keep what Lightning says about itself out of the log of a run."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("lightning", "lightning.fabric", "lightning.pytorch")
"""Lightning's loggers; their INFO lines are advertisements and the list of devices."""

HARMLESS = (
    r"Found \d+ module\(s\) in eval mode",  # Frozen norms are so on purpose.
    r"You defined a `validation_step` but have no",  # Told by our own log: watching 0 cases.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's use of torch.
)
"""Warnings that no user of Voxlift can do anything about, as patterns of their beginnings."""


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Let Lightning warn, but not advise, for as long as the block lasts."""
    loggers = [logging.getLogger(name) for name in NAMES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in HARMLESS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
