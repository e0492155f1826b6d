"""READ THIS FIRST: the main path of every run.

A config becomes data, a backbone with its start, a task and a Lightning Trainer, and ends as a run
folder with a model that can answer. `pretrain` and `finetune` are that path, top to bottom.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.callbacks import Callback, EarlyStopping

from voxlift.config import (
    FinetuneConfig,
    PretrainConfig,
    SegmentConfig,
)
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.epoch_order import ResumableLoader
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.image_batches import ImageBatch, image_loader
from voxlift.data.image_source import ImageSource, open_images
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.data.volume_cache import VolumeCache
from voxlift.figures.learning_curves import plot_learning_curves
from voxlift.inference.classification import ClassificationReport
from voxlift.inference.segmentation_report import SegmentationReport
from voxlift.lifting.image_to_volume import NUM_SLICES
from voxlift.nets.norm import apply_norm_mode
from voxlift.tasks.classify import ClassifyTask
from voxlift.tasks.pretrain import PretrainTask
from voxlift.tasks.segment import SegmentTask
from voxlift.training.classification import (
    ClassificationData,
    cache_volumes,
    classification_loaders,
    judge,
    open_classification_data,
    save_classifier,
    split_folds,
)
from voxlift.training.engine import Monitor, count_steps, measure, train
from voxlift.training.networks import build_classifier, build_segmenter
from voxlift.training.provenance import describe_origin
from voxlift.training.run import Run
from voxlift.training.run_folder import (
    RunFolder,
    check_run_folder,
    logging_to,
    open_run_folder,
    remembering_log,
)
from voxlift.training.segmentation import (
    judge_segmentation,
    open_segmentation_data,
    save_segmenter,
    segmentation_loaders,
)
from voxlift.weights.header import HeadDescription
from voxlift.weights.save import save_weights

logger = logging.getLogger(__name__)

THUMBNAIL_SIZE = 64


def pretrain(config: PretrainConfig, *, resume: bool = False, overwrite: bool = False) -> Run:
    """Pre-train a 3D backbone on lifted photographs.

    Args:
        config: The run; a recipe returns one.
        resume: Go on with the run that the run folder holds.
        overwrite: Replace it.

    Returns:
        The run; its `model.safetensors` is a start for fine-tuning.

    Raises:
        DataError: If the photographs cannot be read.
        ConfigError: If the run folder is not empty, or training cannot go on; the message says why.
        WeightsError: If the weights to start from do not fit.
    """
    check_run_folder(config, resume=resume, overwrite=overwrite)
    # What can be refused is refused before the run folder is touched.
    with remembering_log() as said:
        geometry = _photograph_geometry(config)
        images = _open_images(config, "train")
        val_images = _open_images(config, "val")
        logger.info("Training on %s; validating on %s", images.describe(), val_images.describe())
        train_loader = _image_loader(images, config, training=True)
        val_loader = _image_loader(val_images, config, training=False)
        model = build_classifier(config, geometry=geometry, num_classes=len(images.class_names))
    folder = open_run_folder(config, resume=resume, overwrite=overwrite)
    with logging_to(folder.log, earlier=said):
        num_steps = count_steps(config, batches_per_epoch=len(train_loader))
        task = PretrainTask(
            model,
            config.optimization,
            num_steps=num_steps,
            seed=config.seed,
            slice_shuffle=config.slice_shuffle,
            axis_shuffle=config.axis_shuffle,
            size_at=config.size_at if config.progressive_sizes else None,
        )
        finished = train(
            task,
            train_loader,
            val_loader,
            config=config,
            folder=folder,
            monitor=Monitor("val/top1"),
            num_steps=num_steps,
            resume=resume,
        )
        _draw_learning_curves(folder)
        if not finished:
            return Run(folder.path)
        metrics = measure(task, val_loader, config=config, folder=folder, checkpoint="last")
        save_weights(
            model,
            folder.model,
            preprocessing=Preprocessing.for_photographs(config.image_size),
            head=HeadDescription(
                task="pretrain",
                num_classes=len(images.class_names),
                class_names=images.class_names,
                settings={"seed": config.seed, "val_fraction": config.val_fraction},
            ),
            provenance=describe_origin(config, metrics),
        )
    return Run(folder.path, folder.model, metrics)


def finetune(
    config: FinetuneConfig | SegmentConfig,
    *,
    cases: ClassificationCases | SegmentationCases | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Fine-tune a backbone on labelled volumes, and judge it on the test cases.

    Args:
        config: The run; a recipe returns one. Its kind decides between classes of whole volumes
            (`FinetuneConfig`) and of voxels (`SegmentConfig`).
        cases: Labelled volumes in memory, instead of those that `config.data` names.
        resume: Go on with the run that the run folder holds.
        overwrite: Replace it.

    Returns:
        The run; its `model.safetensors` answers `voxlift.predict`.

    Raises:
        DataError: If the volumes cannot be read or split.
        ConfigError: If the run folder is not empty, or training cannot go on; the message says why.
        WeightsError: If the weights to start from do not fit.
    """
    if isinstance(config, SegmentConfig):
        if isinstance(cases, ClassificationCases):
            raise ConfigError("Segmentation takes SegmentationCases; these are classified volumes.")
        return _segment(config, cases, resume=resume, overwrite=overwrite)
    if isinstance(cases, SegmentationCases):
        raise ConfigError("Classification takes ClassificationCases; these are segmented volumes.")
    return _classify(config, cases, resume=resume, overwrite=overwrite)


def _segment(
    config: SegmentConfig, cases: SegmentationCases | None, *, resume: bool, overwrite: bool
) -> Run:
    """Fine-tune a backbone and its decoder to segment volumes."""
    check_run_folder(config, resume=resume, overwrite=overwrite)
    # What can be refused is refused before the run folder is touched.
    with remembering_log() as said:
        data = open_segmentation_data(config, cases)
        logger.info("%s", data.describe())
        for reason in data.reasons:
            logger.info("%s", reason)
        train_loader, val_loader = segmentation_loaders(data, config)
        model = build_segmenter(config, data)
    folder = open_run_folder(config, resume=resume, overwrite=overwrite)
    with logging_to(folder.log, earlier=said):
        num_steps = count_steps(config, batches_per_epoch=len(train_loader))
        task = SegmentTask(
            model,
            config.optimization,
            loss=config.loss_function,
            labels=data.cases.labels,
            num_steps=num_steps,
            window=data.window(overlap=config.val_overlap),
            layer_decay=config.layer_decay,
        )
        finished = train(
            task,
            train_loader,
            val_loader,
            config=config,
            folder=folder,
            monitor=Monitor("val/dice"),
            num_steps=num_steps,
            resume=resume,
            callbacks=_early_stop("val/dice", config.patience),
        )
        _draw_learning_curves(folder, names=("loss", "dice"))
        if not finished:
            return Run(folder.path)
        metrics = measure(task, val_loader, config=config, folder=folder, checkpoint=config.keep)
        save_segmenter(model, data, config, folder, metrics)
        if not len(data.test) + len(data.val):
            logger.warning("There are no cases left to judge the model by.")
            return Run(folder.path, folder.model, metrics)
        report = judge_segmentation(data, config, folder)
    return Run(folder.path, folder.model, _values(report), report)


def _classify(
    config: FinetuneConfig, cases: ClassificationCases | None, *, resume: bool, overwrite: bool
) -> Run:
    """Fine-tune a backbone to classify volumes."""
    check_run_folder(config, resume=resume, overwrite=overwrite)
    # What can be refused is refused before the run folder is touched.
    with remembering_log() as said:
        data = open_classification_data(config, cases)
        logger.info("%s", data.describe())
        for reason in data.reasons:
            logger.info("%s", reason)
        cache = cache_volumes(data, config)
        parts = split_folds(data, config) if config.folds else [data]
        learner = _prepare(parts[0], config, cache)
    folder = open_run_folder(config, resume=resume, overwrite=overwrite)
    with logging_to(folder.log, earlier=said):
        if config.folds:
            finished = _train_folds(parts, learner, cache, config, folder, resume=resume)
        else:
            finished = _train_classifier(learner, config, folder, resume=resume)
        if not finished:
            return Run(folder.path)
        report = judge(data, config, folder)
    return Run(folder.path, folder.path if config.folds else folder.model, _values(report), report)


def _values(report: ClassificationReport | SegmentationReport) -> dict[str, float]:
    """Name the metrics of a report by their split: `test/auroc`, `test/dice`."""
    found = report.metrics.intervals()
    return {f"{report.split}/{name}": interval.value for name, interval in found.items()}


@dataclass(frozen=True)
class _Learner:
    """A network and its data, ready to be trained."""

    data: ClassificationData
    task: ClassifyTask
    train_loader: Any
    val_loader: Any
    num_steps: int


def _prepare(data: ClassificationData, config: FinetuneConfig, cache: VolumeCache) -> _Learner:
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
    return _Learner(data, task, train_loader, val_loader, num_steps)


def _train_classifier(
    learner: _Learner, config: FinetuneConfig, folder: RunFolder, *, resume: bool
) -> bool:
    """Train one network; True once its model is saved."""
    task, val_loader = learner.task, learner.val_loader
    finished = train(
        task,
        learner.train_loader,
        val_loader,
        config=config,
        folder=folder,
        monitor=Monitor("val/auroc"),
        num_steps=learner.num_steps,
        resume=resume,
        callbacks=_early_stop("val/auroc", config.patience),
    )
    _draw_learning_curves(folder)
    if finished:
        metrics = measure(task, val_loader, config=config, folder=folder, checkpoint="best")
        save_classifier(task.model, learner.data, config, folder, metrics)
    return finished


def _train_folds(
    parts: Sequence[ClassificationData],
    first: _Learner,
    cache: VolumeCache,
    config: FinetuneConfig,
    folder: RunFolder,
    *,
    resume: bool,
) -> bool:
    """Train one network a fold, each in a run folder of its own; finished ones are kept."""
    for number, part in enumerate(parts):
        path = folder.path / f"fold-{number}"
        inner = config.model_copy(update={"out": path})
        started = resume and RunFolder(path).last_checkpoint.is_file()
        if started and RunFolder(path).model.is_file():
            continue
        inner_folder = open_run_folder(inner, resume=started, overwrite=not started)
        logger.info("Fold %d of %d", number + 1, config.folds)
        learner = first if number == 0 else _prepare(part, inner, cache)
        if not _train_classifier(learner, inner, inner_folder, resume=started):
            return False
    return True


def _open_images(config: PretrainConfig, split: Literal["train", "val"]) -> ImageSource:
    return open_images(
        config.data,
        split=split,
        seed=config.seed,
        val_fraction=config.val_fraction,
        download=config.download,
        skip_bad=config.skip_bad,
    )


def _image_loader(
    images: ImageSource, config: PretrainConfig, *, training: bool
) -> ResumableLoader[ImageBatch]:
    return image_loader(
        images,
        batch_size=config.batch_size,
        size=config.image_size,
        augmentation=config.augmentation if training else ImageAugmentation.for_evaluation(),
        seed=config.seed,
        workers=config.machine.workers,
        shuffle=training,
        drop_last=training,
        cache_gb=config.machine.cache_gb,
    )


def _photograph_geometry(config: PretrainConfig) -> Geometry:
    name = config.network.geometry
    if name == "auto":
        name = "thumbnail" if config.image_size <= THUMBNAIL_SIZE else "pretrain"
    geometry = named_geometry(name)
    for size in {config.image_size, *(size for _, size in config.progressive_sizes)}:
        geometry.check_size((NUM_SLICES, size, size))
    return geometry


def _early_stop(metric: str, patience: int) -> Sequence[Callback]:
    return (EarlyStopping(metric, mode="max", patience=patience),) if patience else ()


def _draw_learning_curves(folder: RunFolder, *, names: Sequence[str] | None = None) -> None:
    if folder.metrics.is_file():
        plot_learning_curves(folder.metrics, folder.figures / "learning_curves.png", names=names)
