"""Classifiers ready to be trained: one alone, or one for each fold of a cross-validation."""

import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voxlift.config import FinetuneConfig
from voxlift.data.volume_cache import VolumeCache
from voxlift.nets.norm import apply_norm_mode
from voxlift.tasks.classify import ClassifyTask
from voxlift.training.classification import (
    ClassificationData,
    classification_loaders,
    describe_classifier,
    save_classifier,
)
from voxlift.training.engine import (
    Monitor,
    count_steps,
    draw_learning_curves,
    early_stop,
    measure,
    train,
)
from voxlift.training.networks import build_classifier
from voxlift.training.run_folder import RunFolder, open_run_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learner:
    """A network and its data, ready to be trained."""

    data: ClassificationData
    task: ClassifyTask
    train_loader: Any
    val_loader: Any
    num_steps: int


def prepare_classifier(
    data: ClassificationData, config: FinetuneConfig, cache: VolumeCache
) -> Learner:
    """Make a classifier and its batches."""
    train_loader, val_loader = classification_loaders(data, config, cache=cache)
    model = build_classifier(
        config,
        geometry=data.geometry,
        num_classes=len(data.cases.class_names),
        dropout=config.dropout,
    )
    apply_norm_mode(model.backbone, config.norm_mode)
    num_steps = count_steps(config, batches_per_epoch=len(train_loader))
    weights = data.cases.class_weights(data.train).tolist() if config.class_weights else None
    task = ClassifyTask(
        model,
        config.optimization,
        num_steps=num_steps,
        class_weights=weights,
        head_warmup=config.head_warmup,
        layer_decay=config.layer_decay,
    )
    return Learner(data, task, train_loader, val_loader, num_steps)


def train_classifier(
    learner: Learner, config: FinetuneConfig, folder: RunFolder, *, resume: bool
) -> signal.Signals | None:
    """Train one network and save its model, unless a signal stops it: that is returned."""
    task, val_loader = learner.task, learner.val_loader
    stopped_by = train(
        task,
        learner.train_loader,
        val_loader,
        config=config,
        folder=folder,
        monitor=Monitor("val/auroc"),
        num_steps=learner.num_steps,
        header=describe_classifier(task.model, learner.data, config, {}),
        resume=resume,
        callbacks=early_stop("val/auroc", config.patience),
    )
    if not stopped_by:
        metrics = measure(task, val_loader, config=config, folder=folder, checkpoint="best")
        save_classifier(task.model, learner.data, config, folder, metrics)
    draw_learning_curves(folder)
    return stopped_by


def train_folds(
    parts: Sequence[ClassificationData],
    first: Learner,
    cache: VolumeCache,
    config: FinetuneConfig,
    folder: RunFolder,
    *,
    resume: bool,
) -> signal.Signals | None:
    """Train one network a fold, each in a run folder of its own; finished ones are kept.

    Returns:
        The signal that has stopped the run; None if all folds are finished.
    """
    for number, part in enumerate(parts):
        path = folder.path / f"fold-{number}"
        inner = config.model_copy(update={"out": path})
        if resume and RunFolder(path).model.is_file():
            continue
        inner_folder = open_run_folder(inner, resume=resume)
        logger.info("Fold %d of %d", number + 1, config.folds)
        learner = first if number == 0 else prepare_classifier(part, inner, cache)
        stopped_by = train_classifier(learner, inner, inner_folder, resume=resume)
        if stopped_by:
            return stopped_by
    return None
