"""Out of memory: find by trying what would fit, and say it in one message."""

import gc
import logging
import traceback
from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.fabric.utilities import move_data_to_device

from voxlift.config import RunConfig
from voxlift.core.errors import ConfigError
from voxlift.training.hardware import autocast, choose_device

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
            _release(error)
            size //= 2
        except ValueError:  # Batch norm refuses to train on a single value.
            return None
        else:
            return size
    return None


def _release(error: BaseException) -> None:
    """Free what the failed step holds: its frames keep every activation alive."""
    chained: BaseException | None = error
    while chained is not None:
        traceback.clear_frames(chained.__traceback__)
        chained = chained.__cause__ or chained.__context__
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def explain_out_of_memory(
    error: BaseException, task: lightning.LightningModule, train_loader: Any, config: RunConfig
) -> OutOfMemoryError:
    """Probe smaller batches, without and with checkpointing, and say what would fit.

    Args:
        error: How memory ran out.
        task: The task that was trained. It is of no use afterwards: the probe moves its weights.
        train_loader: Its batches.
        config: The run.
    """
    device = choose_device(config.machine)
    task.zero_grad(set_to_none=True)
    _release(error)
    attempt = _probe(task, train_loader, config)
    fits = largest_that_fits(attempt, below=config.batch_size)
    advice = [_advise("", fits, config)] if fits else []
    backbone = getattr(getattr(task, "model", None), "backbone", None)
    # A compiled backbone cannot recompute.
    if backbone is not None and not backbone.checkpointing and not config.machine.compile:
        backbone.checkpointing = True
        more_fits = largest_that_fits(attempt, below=2 * config.batch_size)
        backbone.checkpointing = False
        if more_fits and more_fits > (fits or 0):
            advice.append(_advise("--checkpointing ", more_fits, config))
    remedy = (
        "Found to fit by trying one step: " + ", or ".join(advice) + "."
        if advice
        else "Not even a batch of one fits: take smaller volumes, a smaller --width, or a geometry "
        "that strides more."
    )
    return OutOfMemoryError(
        f"Out of memory with --batch-size {config.batch_size} on {device}. {remedy} "
        "A checkpoint that was saved before is whole."
    )


def _probe(
    task: lightning.LightningModule, train_loader: Any, config: RunConfig
) -> Callable[[int], object]:
    """Make a function that tries one training step on the first samples of a batch."""
    device = choose_device(config.machine)
    train_loader.set_epoch(0)
    batch = next(iter(train_loader))

    def attempt(size: int) -> None:
        task.to(device).train()
        configured: Any = task.configure_optimizers()
        optimizer: torch.optim.Optimizer = configured["optimizer"]
        for parameter in task.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # Now the optimizer holds all that it holds in a later step.
        task.zero_grad(set_to_none=True)
        samples = move_data_to_device({key: value[:size] for key, value in batch.items()}, device)
        with autocast(config.machine, device):
            loss = task.compute_loss(samples, 0)  # type: ignore[operator]
        loss.backward()
        optimizer.step()
        task.zero_grad(set_to_none=True)

    return attempt


def _advise(flags: str, size: int, config: RunConfig) -> str:
    effective = config.batch_size * config.accumulate
    times = -(-effective // size)
    same = "the same" if times * size == effective else "about the same"
    return f"{flags}--batch-size {size} --accumulate {times} ({same} effective batch)"
