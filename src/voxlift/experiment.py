"""READ THIS FIRST: the main path of every run.

A config becomes data, a backbone with its start, a task and a Lightning Trainer, and ends as a run
folder with a model that can answer. `pretrain` and `finetune` are that path, top to bottom.
"""

import logging
from functools import partial
from typing import Literal

from voxlift.config import DetectConfig, FinetuneConfig, PretrainConfig, SegmentConfig
from voxlift.core.errors import ConfigError
from voxlift.core.extras import require_extra
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.detection_cases import DetectionCases
from voxlift.data.epoch_order import ResumableLoader
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.image_batches import ImageBatch, image_loader
from voxlift.data.image_source import ImageSource, open_images
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.inference.classification import ClassificationReport
from voxlift.inference.detection_report import DetectionReport
from voxlift.inference.segmentation_report import SegmentationReport
from voxlift.lifting.image_to_volume import NUM_SLICES
from voxlift.tasks.detect import DetectTask
from voxlift.tasks.pretrain import PretrainTask
from voxlift.tasks.segment import SegmentTask
from voxlift.training.classification import (
    cache_volumes,
    judge,
    open_classification_data,
    split_folds,
)
from voxlift.training.detection import (
    describe_detector,
    detection_loaders,
    judge_detection_run,
    open_detection_data,
)
from voxlift.training.engine import (
    Monitor,
    count_steps,
    draw_learning_curves,
    early_stop,
    measure,
    train,
)
from voxlift.training.folds import prepare_classifier, train_classifier, train_folds
from voxlift.training.networks import build_classifier, build_detector, build_segmenter
from voxlift.training.provenance import Command, describe_model
from voxlift.training.run import Run
from voxlift.training.run_folder import (
    check_run_folder,
    logging_to,
    open_run_folder,
    remembering_log,
)
from voxlift.training.segmentation import (
    describe_segmenter,
    judge_segmentation,
    open_segmentation_data,
    segmentation_loaders,
)
from voxlift.weights.header import HeadDescription
from voxlift.weights.save import save_model

logger = logging.getLogger(__name__)

THUMBNAIL_SIZE = 64


Cases = ClassificationCases | SegmentationCases | DetectionCases
"""Labelled data in memory, one kind for each task."""


def pretrain(
    config: PretrainConfig | DetectConfig, *, resume: bool = False, overwrite: bool = False
) -> Run:
    """Pre-train a 3D backbone on lifted photographs.

    Args:
        config: The run; a recipe returns one. Its kind decides between classes of whole photographs
            (`PretrainConfig`) and boxes in them (`DetectConfig`).
        resume: Go on with the run that the run folder holds; begin it if there is none yet.
        overwrite: Replace it.

    Returns:
        The run; its `model.safetensors` is a start for fine-tuning.

    Raises:
        DataError: If the photographs cannot be read.
        ConfigError: If the run folder is not empty, or training cannot go on; the message says why.
        WeightsError: If the weights to start from do not fit.
    """
    if isinstance(config, DetectConfig):
        return _detect(config, None, command="pretrain", resume=resume, overwrite=overwrite)
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
        describe = partial(
            describe_model,
            model,
            config,
            preprocessing=Preprocessing.for_photographs(config.image_size),
            head=HeadDescription(
                task="pretrain",
                num_classes=len(images.class_names),
                class_names=images.class_names,
                settings={"seed": config.seed, "val_fraction": config.val_fraction},
            ),
            command="pretrain",
        )
        task = PretrainTask(
            model,
            config.optimization,
            num_steps=num_steps,
            seed=config.seed,
            slice_shuffle=config.slice_shuffle,
            axis_shuffle=config.axis_shuffle,
            size_at=config.size_at if config.progressive_sizes else None,
        )
        stopped_by = train(
            task,
            train_loader,
            val_loader,
            config=config,
            folder=folder,
            monitor=Monitor("val/top1"),
            num_steps=num_steps,
            header=describe({}),
            resume=resume,
        )
        if not stopped_by:
            metrics = measure(task, val_loader, config=config, folder=folder, checkpoint="last")
            save_model(model, folder.model, describe(metrics))
        draw_learning_curves(folder)
        if stopped_by:
            return Run(folder.path, stopped_by=stopped_by)
    return Run(folder.path, folder.model, metrics)


def finetune(
    config: FinetuneConfig | SegmentConfig | DetectConfig,
    *,
    cases: Cases | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Fine-tune a backbone on labelled volumes, and judge it on the test cases.

    Args:
        config: The run; a recipe returns one. Its kind decides between classes of whole volumes
            (`FinetuneConfig`), of voxels (`SegmentConfig`), and lesions (`DetectConfig`).
        cases: Labelled volumes in memory, instead of those that `config.data` names.
        resume: Go on with the run that the run folder holds; begin it if there is none yet.
        overwrite: Replace it.

    Returns:
        The run; its `model.safetensors` answers `voxlift.predict`.

    Raises:
        DataError: If the volumes cannot be read or split.
        ConfigError: If the run folder is not empty, or training cannot go on; the message says why.
        WeightsError: If the weights to start from do not fit.
    """
    if isinstance(config, SegmentConfig):
        if not isinstance(cases, SegmentationCases | None):
            raise ConfigError(f"Segmentation takes SegmentationCases, not {_kind(cases)}.")
        return _segment(config, cases, resume=resume, overwrite=overwrite)
    if isinstance(config, DetectConfig):
        if not isinstance(cases, DetectionCases | None):
            raise ConfigError(f"Detection takes DetectionCases, not {_kind(cases)}.")
        return _detect(config, cases, command="finetune", resume=resume, overwrite=overwrite)
    if not isinstance(cases, ClassificationCases | None):
        raise ConfigError(f"Classification takes ClassificationCases, not {_kind(cases)}.")
    return _classify(config, cases, resume=resume, overwrite=overwrite)


def _kind(cases: object) -> str:
    return type(cases).__name__


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
        describe = partial(describe_segmenter, model, data, config)
        task = SegmentTask(
            model,
            config.optimization,
            loss=config.loss_function,
            labels=data.cases.labels,
            num_steps=num_steps,
            window=data.window(overlap=config.val_overlap, steps=config.scan.window_steps),
            layer_decay=config.layer_decay,
        )
        stopped_by = train(
            task,
            train_loader,
            val_loader,
            config=config,
            folder=folder,
            monitor=Monitor("val/dice"),
            num_steps=num_steps,
            header=describe({}),
            resume=resume,
            callbacks=early_stop("val/dice", config.patience),
        )
        if not stopped_by:
            metrics = measure(
                task, val_loader, config=config, folder=folder, checkpoint=config.keep
            )
            save_model(model, folder.model, describe(metrics))
        draw_learning_curves(folder, names=("loss", "dice"))
        if stopped_by:
            return Run(folder.path, stopped_by=stopped_by)
        if not len(data.test) + len(data.val):
            logger.warning("There are no cases left to judge the model by.")
            return Run(folder.path, folder.model, metrics)
        report = judge_segmentation(data, config, folder)
    return Run(folder.path, folder.model, _values(report), report)


def _detect(
    config: DetectConfig,
    cases: DetectionCases | None,
    *,
    command: Command,
    resume: bool,
    overwrite: bool,
) -> Run:
    """Train a backbone, its feature pyramid and its head to find boxes."""
    require_extra("coco", "Runs of detection")
    check_run_folder(config, resume=resume, overwrite=overwrite)
    # What can be refused is refused before the run folder is touched.
    with remembering_log() as said:
        data = open_detection_data(config, cases)
        logger.info("%s", data.describe())
        for reason in data.reasons:
            logger.info("%s", reason)
        train_loader, val_loader = detection_loaders(data, config)
        model = build_detector(config, data)
    folder = open_run_folder(config, resume=resume, overwrite=overwrite)
    with logging_to(folder.log, earlier=said):
        num_steps = count_steps(config, batches_per_epoch=len(train_loader))
        describe = partial(describe_detector, model, data, config, command=command)
        task = DetectTask(
            model, config.optimization, num_steps=num_steps, layer_decay=config.layer_decay
        )
        stopped_by = train(
            task,
            train_loader,
            val_loader,
            config=config,
            folder=folder,
            monitor=Monitor(data.monitored),
            num_steps=num_steps,
            header=describe({}),
            resume=resume,
            callbacks=early_stop(data.monitored, config.patience),
        )
        if not stopped_by:
            metrics = measure(
                task, val_loader, config=config, folder=folder, checkpoint=config.keep
            )
            save_model(model, folder.model, describe(metrics))
        draw_learning_curves(folder, names=("loss", data.monitored.removeprefix("val/")))
        if stopped_by:
            return Run(folder.path, stopped_by=stopped_by)
        if not len(data.test) + len(data.val):
            logger.warning("There are no images left to judge the model by.")
            return Run(folder.path, folder.model, metrics)
        report = judge_detection_run(data, config, folder)
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
        learner = prepare_classifier(parts[0], config, cache)
    folder = open_run_folder(config, resume=resume, overwrite=overwrite)
    with logging_to(folder.log, earlier=said):
        if config.folds:
            stopped_by = train_folds(parts, learner, cache, config, folder, resume=resume)
        else:
            stopped_by = train_classifier(learner, config, folder, resume=resume)
        if stopped_by:
            return Run(folder.path, stopped_by=stopped_by)
        report = judge(data, config, folder)
    return Run(folder.path, folder.path if config.folds else folder.model, _values(report), report)


def _values(
    report: ClassificationReport | SegmentationReport | DetectionReport,
) -> dict[str, float]:
    """Name the metrics of a report by their split: `test/auroc`, `test/dice`."""
    found = report.metrics.intervals()
    return {f"{report.split}/{name}": interval.value for name, interval in found.items()}


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
        augmentation=config.augmentation
        if training
        else ImageAugmentation.for_evaluation(center_fraction=config.val_center_fraction),
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
