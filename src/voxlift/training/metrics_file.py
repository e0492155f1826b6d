"""`metrics.jsonl`: one number a line, readable while the run goes on."""

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from voxlift.core.errors import DataError
from voxlift.core.files import write_text

_TYPES = {
    "step": int,
    "epoch": int | None,
    "split": str,
    "name": str,
    "value": float | int | None,
}
_EXAMPLE = '{"step": 10, "epoch": 0, "split": "val", "name": "auroc", "value": 0.5}'


class MetricsFile(Logger):
    """Append each metric as `{"step", "epoch", "split", "name", "value"}`.

    Metrics are named `split/name`. Lines behind the step at which a run is resumed are dropped, so
    that no step stands twice.

    Args:
        path: The file.
        resume_step: Step of the checkpoint that the run goes on from; None for a new run.
    """

    def __init__(self, path: Path, *, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        if resume_step is not None and path.exists():
            kept = [line for line in read_metrics(path) if line["step"] < resume_step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """Version of the run; there is one run a folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Ignore them: `config.yaml` has the config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append the metrics of one step.

        Raises:
            DataError: If the disk is full.
        """
        metrics = dict(metrics)
        epoch = metrics.pop("epoch", None)
        lines = []
        for key, value in metrics.items():
            split, _, name = key.rpartition("/")
            lines.append(
                {
                    "step": step,
                    "epoch": None if epoch is None else int(epoch),
                    "split": split or "train",
                    "name": name,
                    "value": value if math.isfinite(value) else None,
                }
            )
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        except OSError as error:
            raise DataError(
                f"{self.path} could not be written: {error.strerror or error}. "
                "Free some space and go on with --resume."
            ) from error


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
