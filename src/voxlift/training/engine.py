"""The Lightning Trainer, as every run of Voxlift sets it up."""

import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    RichProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger

from voxlift.config import RunConfig
from voxlift.core.errors import DataError, VoxliftError
from voxlift.core.extras import missing_packages
from voxlift.figures.learning_curves import plot_learning_curves, read_curves
from voxlift.training.checkpoints import (
    BestCheckpoint,
    ResumePoint,
    WholeCheckpoints,
    is_finished,
    read_checkpoint,
)
from voxlift.training.guards import FiniteGradientGuard, FiniteLossGuard, Throughput
from voxlift.training.hardware import choose_device, choose_precision, compile_backbone
from voxlift.training.interrupt import Interrupt, OwnSignals, StopRun, interruptible
from voxlift.training.memory import explain_out_of_memory, is_out_of_memory
from voxlift.training.metrics_file import MetricsLog
from voxlift.training.progress import ValidationLog
from voxlift.training.quiet import quiet_lightning
from voxlift.training.reproducible import SeededSteps
from voxlift.training.run_folder import RunFolder
from voxlift.weights.header import WeightHeader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Monitor:
    """The metric by which the best checkpoint is chosen.

    Args:
        name: Name of the metric, such as `val/top1`.
        higher_is_better: Which way is up.
    """

    name: str
    higher_is_better: bool = True


def count_steps(config: RunConfig, *, batches_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    if config.steps is not None:
        return config.steps
    return config.epochs * -(-batches_per_epoch // config.accumulate)


def train(
    task: lightning.LightningModule,
    train_loader: Any,
    val_loader: Any,
    *,
    config: RunConfig,
    folder: RunFolder,
    monitor: Monitor,
    num_steps: int,
    header: WeightHeader,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
) -> signal.Signals | None:
    """Train a task in its run folder until its steps are done or a signal stops it.

    Args:
        task: What to train.
        train_loader: Batches of one epoch; resumable.
        val_loader: Validation batches; None validates never.
        config: The run.
        folder: Where checkpoints and metrics go.
        monitor: What the best checkpoint is chosen by.
        num_steps: Optimizer steps of the whole run.
        header: Description of the model for its checkpoints.
        resume: Go on from the last checkpoint, or begin if there is none yet.
        callbacks: More callbacks, such as an early stop.

    Returns:
        The signal that has stopped the run; None if it is finished.

    Raises:
        ConfigError: If the checkpoint cannot be read, if the loss stops being finite, or if memory
            runs out; the message says what to do.
        DataError: If the disk is full.
    """
    checkpoint = None
    if resume and folder.last_checkpoint.is_file():
        checkpoint = read_checkpoint(folder.last_checkpoint)
    elif resume:
        logger.info("There is no checkpoint in %s yet: the run begins.", folder.path)
    if checkpoint and is_finished(checkpoint, num_steps=num_steps):
        logger.info("Training ended at step %d already.", checkpoint["global_step"])
        task.load_state_dict(checkpoint["state_dict"])
        return None
    if config.machine.compile:
        compile_backbone(task)
    with quiet_lightning(), interruptible() as interrupt:
        trainer = _build_trainer(
            config,
            folder,
            monitor,
            num_steps=num_steps,
            header=header,
            batches_per_epoch=len(train_loader),
            resume_step=checkpoint["global_step"] if checkpoint else None,
            interrupt=interrupt,
            more=callbacks,
        )
        try:
            trainer.fit(
                task,
                train_loader,
                val_loader,
                ckpt_path=folder.last_checkpoint if checkpoint else None,
                weights_only=True,
            )
        except StopRun:
            pass  # A signal asked for it.
        except OSError as error:
            raise DataError(
                f"{folder.path} could not be written to: {error.strerror or error}. "
                "Free some space and go on with --resume."
            ) from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise explain_out_of_memory(error, task, train_loader, config) from error
    if interrupt.signal:
        _say_where_stopped(folder, step=trainer.global_step)
    return interrupt.signal


def _say_where_stopped(folder: RunFolder, *, step: int) -> None:
    if folder.last_checkpoint.is_file():
        kept = read_checkpoint(folder.last_checkpoint)["global_step"]
        logger.info("Stopped at step %d; --resume goes on from step %d.", step, kept)
    else:
        logger.info("Stopped at step %d, before the first checkpoint; --resume begins again.", step)


def measure(
    task: lightning.LightningModule,
    val_loader: Any,
    *,
    config: RunConfig,
    folder: RunFolder,
    checkpoint: Literal["last", "best"],
) -> dict[str, float]:
    """Put the weights of a checkpoint into the task and validate them.

    Args:
        task: The trained task; it holds the checkpoint's weights afterwards.
        val_loader: Validation batches; None measures nothing.
        config: The run.
        folder: Where the checkpoints are.
        checkpoint: The last one (averaged, if the run averages weights), or the best.
    """
    path = folder.last_checkpoint if checkpoint == "last" else folder.best_checkpoint
    task.load_state_dict(read_checkpoint(path)["state_dict"])
    if val_loader is None:
        return {}
    device = choose_device(config.machine)
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if device == "cuda" else device,
            devices=1,
            precision=choose_precision(config.machine, device),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[OwnSignals()],
            plugins=[LightningEnvironment()],
        )
        try:
            results = trainer.validate(task, val_loader, verbose=False)
        except SystemExit as left:  # What Lightning makes of Ctrl-C.
            raise KeyboardInterrupt from left
    return dict(results[0])


def _build_trainer(
    config: RunConfig,
    folder: RunFolder,
    monitor: Monitor,
    *,
    num_steps: int,
    header: WeightHeader,
    batches_per_epoch: int,
    resume_step: int | None,
    interrupt: Interrupt,
    more: Sequence[Callback],
) -> lightning.Trainer:
    device = choose_device(config.machine)
    tensorboard = None
    if missing_packages("tensorboard"):
        logger.info(
            'No logs for TensorBoard, which is missing: pip install "voxlift[tensorboard]".'
        )
    else:
        tensorboard = TensorBoardLogger(
            folder.path / "tensorboard", name="", version="", purge_step=resume_step
        )
    metrics = MetricsLog(
        folder.metrics,
        every=min(10, batches_per_epoch, num_steps),
        num_steps=num_steps,
        tensorboard=tensorboard,
    )
    callbacks: list[Callback] = [
        OwnSignals(),
        FiniteLossGuard(),
        FiniteGradientGuard(),
        SeededSteps(config.seed),
        metrics,
        Throughput(metrics),
        ValidationLog(num_steps),
        *more,
    ]
    decay = config.optimization.ema_decay
    averaging = EMAWeightAveraging(decay=decay) if decay else None
    callbacks += [averaging] if averaging else []
    callbacks += [
        BestCheckpoint(
            folder.best_checkpoint,
            metric=monitor.name,
            higher_is_better=monitor.higher_is_better,
        ),
        ResumePoint(
            folder.last_checkpoint,
            every=config.checkpoint_steps,
            num_steps=num_steps,
            interrupt=interrupt,
            averaging=averaging,
        ),
    ]
    show_progress = config.machine.progress and sys.stderr.isatty()
    if show_progress:
        callbacks.append(RichProgressBar())
    return lightning.Trainer(
        accelerator="gpu" if device == "cuda" else device,
        devices=1,
        precision=choose_precision(config.machine, device),
        max_epochs=-(-num_steps // -(-batches_per_epoch // config.accumulate)),
        accumulate_grad_batches=config.accumulate,
        val_check_interval=config.val_steps and config.val_steps * config.accumulate,
        check_val_every_n_epoch=None if config.val_steps else 1,
        gradient_clip_val=config.optimization.gradient_clip or None,
        callbacks=callbacks,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=show_progress,
        enable_model_summary=False,
        # Under SLURM too: what Lightning does there at signals is done here.
        plugins=[WholeCheckpoints(header), LightningEnvironment()],
        use_distributed_sampler=False,
        default_root_dir=folder.path,
    )


def early_stop(metric: str, patience: int) -> Sequence[Callback]:
    """Make the callback that ends a run after so many validations without a better result."""
    return (EarlyStopping(metric, mode="max", patience=patience),) if patience else ()


def draw_learning_curves(folder: RunFolder, *, names: Sequence[str] | None = None) -> None:
    """Draw what a run has logged so far, if anything; warn if that fails.

    Args:
        folder: The run folder.
        names: Metrics to draw, of which a run without validation logs only some; None draws the
            losses and accuracies.
    """
    if not folder.metrics.is_file():
        return
    figure = folder.figures / "learning_curves.png"
    try:
        if names is not None:
            logged = read_curves(folder.metrics)
            names = [name for name in names if name in logged]
        plot_learning_curves(folder.metrics, figure, names=names)
    except (VoxliftError, OSError) as error:
        logger.warning("The learning curves %s were not drawn: %s", figure, error)
