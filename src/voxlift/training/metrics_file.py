"""`metrics.jsonl`: one number a line, readable while the run goes on."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from voxlift.core.errors import DataError

logger = logging.getLogger(__name__)

_TYPES = {
    "step": int,
    "epoch": int | None,
    "split": str,
    "name": str,
    "value": float | int | None,
}
_EXAMPLE = '{"step": 10, "epoch": 0, "split": "val", "name": "auroc", "value": 0.5}'


class MetricsLog(Callback):
    """Append each metric to a file as `{"step", "epoch", "split", "name", "value"}`.

    Metrics are named `split/name`. All lines of a step are in the file before a checkpoint of that
    step is written, and the checkpoint counts them. A resumed run cuts the file to that count, so
    that it ends as the file of a run that was never interrupted.

    Args:
        path: The file.
        every: Optimizer steps between two lines on training.
        num_steps: Optimizer steps of the whole run; the last one is always logged.
        tensorboard: Logger that receives the same numbers; None for no other.
    """

    def __init__(
        self,
        path: Path,
        *,
        every: int,
        num_steps: int,
        tensorboard: TensorBoardLogger | None = None,
    ) -> None:
        self.path = path
        self.every = every
        self.num_steps = num_steps
        self._tensorboard = tensorboard
        self._lines = 0
        self._step = 0
        self._rates: dict[str, float] = {}

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Cut the file to the lines that the checkpoint counted; to none in a new run."""
        del pl_module
        self._step = trainer.global_step
        keep_lines(self.path, self._lines)

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Note the learning rates of the step: when it is over, they are those of the next."""
        groups = trainer.optimizers[0].param_groups
        names = ["lr"] if len(groups) == 1 else [f"lr/pg{n + 1}" for n in range(len(groups))]
        self._rates = {name: group["lr"] for name, group in zip(names, groups, strict=True)}

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Write the learning rates and what training has logged, if the optimizer has stepped."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if self._step % self.every == 0 or self._step == self.num_steps:
            self.write(trainer, self._rates | _logged(trainer, "train/"))

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write what the validation has logged."""
        del pl_module
        self.write(trainer, _logged(trainer, "val/"))

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Close what is open."""
        del trainer, pl_module
        self._close("success")

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Close what is open."""
        del trainer, pl_module, exception
        self._close("failed")

    def write(self, trainer: lightning.Trainer, metrics: Mapping[str, float]) -> None:
        """Append the metrics of the step that was taken last.

        Raises:
            DataError: If the disk is full.
        """
        step = trainer.global_step - 1
        lines = []
        for key, value in metrics.items():
            split, _, name = key.rpartition("/")
            line = {
                "step": step,
                "epoch": trainer.current_epoch,
                "split": split or "train",
                "name": name,
                "value": value if math.isfinite(value) else None,
            }
            lines.append(json.dumps(line) + "\n")
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
        except OSError as error:
            raise DataError(
                f"{self.path} could not be written: {error.strerror or error}. "
                "Free some space and go on with --resume."
            ) from error
        self._lines += len(lines)
        if self._tensorboard is not None:
            self._tensorboard.log_metrics(dict(metrics), step)

    def state_dict(self) -> dict[str, int]:
        """Return how many lines there are."""
        return {"lines": self._lines}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take the number of lines over from the run that is resumed."""
        self._lines = state_dict["lines"]

    def _close(self, status: str) -> None:
        if self._tensorboard is not None:
            self._tensorboard.finalize(status)


def _logged(trainer: lightning.Trainer, prefix: str) -> dict[str, float]:
    found = trainer.callback_metrics.items()
    return {name: float(value) for name, value in found if name.startswith(prefix)}


def keep_lines(path: Path, number: int) -> None:
    """Cut a text file behind so many lines; one that is missing is left so if that is none."""
    if not path.exists() and not number:
        return
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    if len(whole) < number:
        logger.warning(
            "%s has %d lines where the checkpoint has counted %d: the rest are lost.",
            path,
            len(whole),
            number,
        )
    if path.exists():
        os.truncate(path, sum(len(line) for line in whole[:number]))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a `metrics.jsonl`; a last line that was cut off is left out.

    Raises:
        DataError: If the file cannot be read, or another line is no metric.
    """
    try:
        texts = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror or error}.") from error
    lines = []
    for number, text in enumerate(texts, start=1):
        line = _parse_line(text)
        if line is not None:
            lines.append(line)
        elif number < len(texts):
            raise DataError(
                f"{path} is damaged: line {number} is not a metric, such as {_EXAMPLE}. "
                "Restore or remove the file."
            )
    return lines


def _parse_line(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not _TYPES.keys() <= line.keys():
        return None
    fits = all(
        isinstance(line[key], kind) and not isinstance(line[key], bool)
        for key, kind in _TYPES.items()
    )
    return line if fits else None
