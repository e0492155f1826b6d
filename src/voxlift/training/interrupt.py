"""Signals that stop a run: once to stop with a checkpoint, twice to stop at once."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning.pytorch.callbacks import Callback

logger = logging.getLogger(__name__)

STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)  # Windows knows only the first two.
)
"""Ctrl-C, pre-emption, a closed terminal, and the warning that schedulers send before the end."""


class StopRun(BaseException):
    """Leave the training loop at once; like `KeyboardInterrupt`, it is no error to recover from."""


class Interrupt:
    """Which signal, if any, has asked the run to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._process = os.getpid()

    @property
    def requested(self) -> bool:
        """Whether the run is to stop."""
        return self.signal is not None

    def request(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            StopRun: At the second signal.
        """
        del frame
        if os.getpid() != self._process:  # A loader's worker: it stops when the run does.
            return
        again = self.requested
        self.signal = signal.Signals(number)
        if again:
            raise StopRun
        logger.warning(
            "%s: stopping after this step; the run can be resumed. A second signal, such as "
            "Ctrl-C again, stops at once.",
            self.signal.name,
        )


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Handle the signals that stop a run for as long as the block lasts, where this thread may."""
    interrupt = Interrupt()
    previous = {}
    try:
        for number in STOP_SIGNALS:
            previous[number] = signal.signal(number, interrupt.request)
    except ValueError:  # Not the main thread: its owner handles signals.
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class OwnSignals(Callback):
    """Take SIGTERM back from Lightning, whose handler stops a run without a checkpoint."""

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

    def on_train_start(self, *_: object) -> None:
        """Install the handler that there was before Lightning's."""
        self._install()

    def on_validation_start(self, *_: object) -> None:
        """Install the handler that there was before Lightning's."""
        self._install()

    def _install(self) -> None:
        if signal.getsignal(signal.SIGTERM) != self._handler:
            signal.signal(signal.SIGTERM, self._handler)
