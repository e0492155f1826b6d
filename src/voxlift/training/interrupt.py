"""Ctrl-C: once to stop with a checkpoint, twice to stop at once."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


class StopRun(BaseException):
    """Leave the training loop at once; like `KeyboardInterrupt`, it is no error to recover from."""


class Interrupt:
    """Whether the user asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._process = os.getpid()

    def request(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT.

        Raises:
            StopRun: At the second time.
        """
        del number, frame
        if os.getpid() != self._process:  # A loader's worker: it stops when the run does.
            return
        if self.requested:
            raise StopRun
        self.requested = True
        logger.warning(
            "Stopping after this step, and the validation if one is due; the run can be resumed. "
            "Ctrl-C again stops at once."
        )


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Take Ctrl-C for as long as the block lasts, where this thread may."""
    interrupt = Interrupt()
    try:
        previous = signal.signal(signal.SIGINT, interrupt.request)
    except ValueError:  # Not the main thread: its owner handles Ctrl-C.
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
