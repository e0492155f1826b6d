"""Checkpoints: the best one, and the one from which a run goes on exactly."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging

from voxlift.core.errors import ConfigError
from voxlift.core.files import write_aside
from voxlift.training.interrupt import Interrupt, StopRun
from voxlift.weights.archive import Archive
from voxlift.weights.checkpoint import header_parts
from voxlift.weights.header import HEADER_KEY, WeightHeader

STOPPED_EARLY = "stopped_early"


class WholeCheckpoints(TorchCheckpointIO):
    """Write checkpoints whole or not at all, on whatever disk the run folder is.

    Lightning's own way goes through the folder for temporary files, which may be on another disk:
    what it then does is a copy, that can stop half-way.

    Args:
        header: Description of the model, written into each checkpoint so that `voxlift convert` can
            make a model of it.
    """

    def __init__(self, header: WeightHeader) -> None:
        super().__init__()
        self.header = header

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Write a checkpoint beside `path` and rename it there.

        Raises:
            DataError: If the disk is full or the folder cannot be written to.
        """
        del storage_options
        # Through memory: torch tells of a full disk by an error that does not say so.
        whole = io.BytesIO()
        torch.save({**checkpoint, HEADER_KEY: header_parts(self.header)}, whole)
        with write_aside(path) as aside:
            aside.write_bytes(whole.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        ConfigError: If there is none, or it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(
            f"There is no checkpoint {path}; the run stopped before its first. "
            "Start it anew with --overwrite."
        )
    try:
        return _load(path)
    except Exception as error:  # A damaged pickle can fail in any of torch's functions.
        raise ConfigError(
            f"The checkpoint {path} cannot be read: it is damaged or cut off, or it is none of "
            "Voxlift's. Start the run anew with --overwrite."
        ) from error


def _load(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        # torch compares no check sums.
        Archive(stream, path=path)
    loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded["global_step"], int) or not isinstance(loaded["state_dict"], dict):
        raise TypeError("it holds something else")
    return loaded


def is_finished(checkpoint: Mapping[str, Any], *, num_steps: int) -> bool:
    """Whether a checkpoint is that of the end of a run, by its last step or by an early stop."""
    resume_point = checkpoint["callbacks"].get(ResumePoint.__qualname__, {})
    return bool(checkpoint["global_step"] >= num_steps or resume_point.get(STOPPED_EARLY))


class BestCheckpoint(Checkpoint):
    """Keep the checkpoint with the best value of a metric so far.

    Args:
        path: Where it is kept.
        metric: Name of the metric, such as `val/top1`.
        higher_is_better: Which way is up.
    """

    def __init__(self, path: Path, *, metric: str, higher_is_better: bool) -> None:
        self.path = path
        self.metric = metric
        self._sign = 1 if higher_is_better else -1
        self._best = math.nan

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save if this validation is the best so far, or the first."""
        del pl_module
        score = self._sign * float(trainer.callback_metrics[self.metric])
        if math.isnan(self._best) or score > self._best:
            self._best = score
            trainer.save_checkpoint(self.path, weights_only=False)

    def state_dict(self) -> dict[str, float]:
        """Return the best value."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take the best value over from the run that is resumed."""
        self._best = state_dict["best"]


class ResumePoint(Checkpoint):
    """Save where the run can go on exactly: every so many steps, at a signal, and when it is done.

    A checkpoint is only taken between two steps of the optimizer, never between batches whose
    gradients are still being added up. One taken just before a validation is taken again behind it.
    This callback also ends the run.

    Args:
        path: Where the checkpoint is kept.
        every: Steps of the optimizer between two checkpoints.
        num_steps: Steps of the whole run.
        interrupt: Whether the run was asked to stop.
        averaging: What averages the weights of the run, if anything.
    """

    def __init__(
        self,
        path: Path,
        *,
        every: int,
        num_steps: int,
        interrupt: Interrupt,
        averaging: WeightAveraging | None = None,
    ) -> None:
        self.path = path
        self.every = every
        self.num_steps = num_steps
        self.interrupt = interrupt
        self.averaging = averaging
        self._step = 0
        self._saved_at = -1
        self._validated = False
        self._stopped_early = False

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Note the step at which the run begins, or goes on."""
        del pl_module
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Save if the optimizer has just stepped and a checkpoint is due; end the run.

        Raises:
            StopRun: If that was asked for, with the checkpoint written.
        """
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._validated = False
        if self._step >= self.num_steps:
            # Rather than by Lightning's max_steps, which leaves out the last validation, and with
            # which a checkpoint from the end of an epoch skips an epoch's data.
            trainer.should_stop = True
        elif (
            self.interrupt.requested
            or self._step % self.every == 0
            # From here, for Lightning would not resume with a last validation out of turn.
            or self._step == self.num_steps - 1
        ):
            self._save(trainer)
        self._stop_if_asked()

    def on_validation_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object
    ) -> None:
        """Save and stop if that was asked for; the resumed run begins with this validation.

        Raises:
            StopRun: If that was asked for, with the checkpoint written.
        """
        if not self.interrupt.requested or _adds_up_gradients(trainer):
            return
        if not trainer.should_stop:
            if self.averaging:
                # The network has the averaged weights for now; that takes them out again.
                self.averaging.on_validation_epoch_end(trainer, pl_module)
            self._save(trainer)
        self._stop_if_asked()

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save again, now with the outcome of the validation.

        Raises:
            StopRun: If that was asked for, with the checkpoint written.
        """
        del pl_module
        self._validated = True
        # What the validation ends is saved at the end of the epoch, together with that.
        if trainer.should_stop or _adds_up_gradients(trainer):
            return
        if self._saved_at == self._step or self.interrupt.requested:
            self._save(trainer)
        self._stop_if_asked()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save again behind the end of the epoch, and at the end of the run.

        Raises:
            StopRun: If that was asked for, with the checkpoint written.
        """
        del pl_module
        self._stopped_early = trainer.should_stop and self._step < self.num_steps
        self._validated = True
        if self._saved_at == self._step or trainer.should_stop or self.interrupt.requested:
            self._save(trainer)
        self._stop_if_asked()

    def state_dict(self) -> dict[str, bool]:
        """Return whether the run has ended before its last step."""
        return {STOPPED_EARLY: self._stopped_early}

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Say where in its loops the run is, so that Lightning resumes with what comes next.

        At the end of a batch Lightning's counters say that the batch goes on, and a resumed run
        would leave out a validation, or the end of an epoch, that follows it. What is saved is that
        the batch is over, and that its validation, if there is one, is either over or just begun.
        """
        del trainer, pl_module
        loops = checkpoint["loops"]["fit_loop"]
        for count in ("total", "current"):
            batches = loops["epoch_loop.batch_progress"][count]
            batches["completed"] = batches["processed"]
        validation = loops["epoch_loop.val_loop.batch_progress"]
        none = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
        if self._validated:
            validation["total"] = none
        else:
            validation.update(total={**none, "ready": 1, "started": 1}, current=none)
            validation["is_last_batch"] = False

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_at = self._step

    def _stop_if_asked(self) -> None:
        if self.interrupt.requested:
            raise StopRun


def _adds_up_gradients(trainer: lightning.Trainer) -> bool:
    """Whether batches of a step that is still to be taken have been computed."""
    return trainer.fit_loop._should_accumulate()
