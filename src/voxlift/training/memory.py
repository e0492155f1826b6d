"""Out of memory: find by trying what would fit, and say it in one message."""

import gc
import logging
from collections.abc import Callable
from typing import Any

import lightning
import torch

from voxlift.config import RunConfig
from voxlift.core.errors import ConfigError

logger = logging.getLogger(__name__)


class OutOfMemoryError(ConfigError):
    """The device has not enough memory for the run as it is configured."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python means that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "can't allocate memory" in text or "out of memory" in text
    )


def largest_that_fits(attempt: Callable[[int], object], *, below: int) -> int | None:
    """Halve a batch size until one probe step succeeds.

    Args:
        attempt: Runs one step on a batch of the size given; raises when memory runs out.
        below: Size that is known not to fit.

    Returns:
        The first size that fits, or None if not even a batch of one does.
    """
    size = below // 2
    while size >= 1:
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _release()
            size //= 2
        else:
            return size
    return None


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def explain_out_of_memory(
    task: lightning.LightningModule, train_loader: Any, config: RunConfig
) -> OutOfMemoryError:
    """Probe smaller batches, without and with checkpointing, and say what would fit."""
    backbone = getattr(getattr(task, "model", None), "backbone", None)
    was_checkpointing = bool(getattr(backbone, "checkpointing", False))
    task.zero_grad(set_to_none=True)
    _release()

    def attempt(size: int) -> None:
        train_loader.set_epoch(0)
        batch = {
            key: value[:size].to(task.device) for key, value in next(iter(train_loader)).items()
        }
        task.train()
        loss = task.compute_loss(batch, 0)  # type: ignore[operator]
        loss.backward()
        task.zero_grad(set_to_none=True)

    advice = []
    fits = largest_that_fits(attempt, below=config.batch_size)
    if fits:
        times = -(-config.batch_size * config.accumulate // fits)
        advice.append(f"--batch-size {fits} --accumulate {times} (the same effective batch)")
    if backbone is not None and not was_checkpointing:
        backbone.checkpointing = True
        with_checkpointing = largest_that_fits(attempt, below=2 * config.batch_size)
        backbone.checkpointing = False
        if with_checkpointing and with_checkpointing > (fits or 0):
            times = -(-config.batch_size * config.accumulate // with_checkpointing)
            advice.append(f"--checkpointing --batch-size {with_checkpointing} --accumulate {times}")
    remedy = (
        "Found to fit by trying one step: " + ", or ".join(advice) + "."
        if advice
        else "Not even a batch of one fits: take smaller volumes, a smaller --width, or a geometry "
        "that strides more."
    )
    return OutOfMemoryError(
        f"Out of memory with --batch-size {config.batch_size} on {task.device}. {remedy} "
        "The last checkpoint is whole."
    )
