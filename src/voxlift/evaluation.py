"""Judge a trained model on labelled data."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel
from torchmetrics.classification import MulticlassAccuracy

from voxlift.config import MachineConfig
from voxlift.core.detection_settings import Matching
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.extras import require_extra
from voxlift.core.files import write_text
from voxlift.core.types import PublishedSplit
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.classification_source import open_classification
from voxlift.data.detection_source import open_detection
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.image_batches import image_loader
from voxlift.data.image_source import open_images
from voxlift.data.segmentation_source import open_segmentation
from voxlift.data.splits import SPLITS
from voxlift.inference.classification import predict_cases, write_report
from voxlift.inference.detection_report import judge_detector
from voxlift.inference.froc_comparison import check_comparable, compare_runs
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation import SegmentOptions
from voxlift.inference.segmentation_report import check_labels, judge_segmenter
from voxlift.lifting.image_to_volume import lift
from voxlift.metrics.bootstrap import Interval
from voxlift.tasks.pretrain import normalize
from voxlift.training.answering import load_answering
from voxlift.training.hardware import Device, autocast, choose_device

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "test", "all"]

BATCH_SIZES = {"pretrain": 32, "classify": 32, "detect": 4, "segment": 1}
"""By what the model was trained for."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        task: What the model was trained for.
        split: The cases that were judged.
        metrics: Metrics by name, with 95 % intervals where there are any, else NaN bounds.
        baselines: AUROC that one number a case reaches, by the name of the number.
        folder: Where the whole report was written.
    """

    task: str
    split: str
    metrics: dict[str, Interval]
    baselines: dict[str, float]
    folder: Path


def evaluate(
    model: str | Path,
    *,
    data: str,
    out: str | Path = "runs/evaluation",
    split: Split = "test",
    images: str | Path | None = None,
    compare: Sequence[str | Path] = (),
    matching: Matching | None = None,
    mirror: bool = False,
    largest_component: bool = False,
    skip_bad: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
) -> Evaluation:
    """Judge a saved model on labelled data and write metrics, predictions and figures.

    Where the data has no splits of its own, they are made as in the run that trained the model, so
    that no training case is judged.

    Args:
        model: A bundled start, a weight file, or a run folder.
        data: Data of the kind that the model was trained on.
        out: Folder for the report; it must not hold one.
        split: Which cases; `all` for data that the model has never seen.
        images: Of a detector: folder of the images, where it is not beside the annotations.
        compare: Of a detector: folders of evaluations or runs on the same images, whose FROC curves
            are drawn over this one's.
        matching: Of a detector: how the overlap that makes a hit is measured, `iou` or `iobb`; None
            takes the way of its run.
        mirror: Of a segmenter: average over mirrored windows, as `predict` can.
        largest_component: Of a segmenter: keep only the largest connected piece of each structure,
            likewise.
        skip_bad: List unreadable files and go on without them.
        batch_size: Samples in a batch; None takes 32 of photographs and crops, 4 of slices with
            context, 1 of the windows of a segmenter.
        device: `auto`, `cuda`, `mps` or `cpu`.

    Raises:
        DataError: If the data cannot be read, its classes are not the model's, or the split is
            empty.
        ConfigError: If the folder holds a report already, or options do not fit the model.
        WeightsError: If the model cannot be trusted or has no head.
    """
    folder = Path(out)
    if (folder / "metrics.json").exists():
        raise ConfigError(
            f"{folder} holds an evaluation already (metrics.json). Choose another with --out."
        )
    where = choose_device(MachineConfig.model_validate({"device": device}))
    saved = load_answering(model, device=where)
    batch_size = batch_size or BATCH_SIZES[saved.head.task]
    segmenting = SegmentOptions(
        mirror=mirror, largest_component=largest_component, batch_size=batch_size
    )
    if saved.head.task != "segment" and (mirror or largest_component):
        raise ConfigError(
            f"{model} was trained to {saved.head.task}; --mirror and --largest-component are for "
            "segmenters."
        )
    if saved.head.task == "detect":
        return _evaluate_detection(
            saved,
            data,
            folder,
            split=split,
            images=images,
            compare=[Path(each) for each in compare],
            matching=matching,
            skip_bad=skip_bad,
            batch_size=batch_size,
            device=where,
        )
    if images is not None or compare or matching:
        raise ConfigError(
            f"{model} was trained to {saved.head.task}; --images, --compare and --matching are for "
            "detectors."
        )
    if saved.head.task == "pretrain":
        if split in ("train", "all"):
            raise ConfigError(
                f"Photographs are judged on what was held out of them, not on --split {split}."
            )
        return _evaluate_photographs(
            saved, data, folder, split="val", skip_bad=skip_bad, batch_size=batch_size
        )
    if saved.head.task == "segment":
        return _evaluate_segmentation(
            saved,
            data,
            folder,
            split=split,
            skip_bad=skip_bad,
            options=segmenting,
            device=where,
        )
    return _evaluate_classification(
        saved, data, folder, split=split, skip_bad=skip_bad, batch_size=batch_size
    )


def _evaluate_classification(
    model: SavedModel, data: str, folder: Path, *, split: Split, skip_bad: bool, batch_size: int
) -> Evaluation:
    """Measure AUROC and the like on labelled volumes."""
    settings = _SplitSettings.model_validate(model.head.settings)
    cases = open_classification(
        data,
        skip_bad=skip_bad,
        published_split="ignore" if split == "all" else settings.published_split,
    )
    _check_classes(model, cases)
    if split == "all":
        indices, train = np.arange(len(cases)), np.array([], np.int64)
    else:
        cases = cases.with_splits(fractions=settings.fractions, seed=settings.seed)
        indices, train = cases.indices(split), cases.indices("train")
    if not len(indices):
        raise DataError(f"{data} has no cases in the split '{split}'. Choose another --split.")
    report = write_report(
        folder,
        cases,
        indices,
        predict_cases(model, cases, indices, batch_size=batch_size),
        split=split,
        threshold=model.head.threshold,
        train_indices=train,
        seed=settings.seed,
    )
    return Evaluation(
        task="classify",
        split=split,
        metrics=report.metrics.intervals(),
        baselines={name: baseline.auroc.value for name, baseline in report.baselines.items()},
        folder=folder,
    )


def _evaluate_segmentation(
    model: SavedModel,
    data: str,
    folder: Path,
    *,
    split: Split,
    skip_bad: bool,
    options: SegmentOptions,
    device: Device,
) -> Evaluation:
    """Measure Dice and the like on volumes with masks."""
    settings = model.segmentation
    cases = open_segmentation(
        data,
        skip_bad=skip_bad,
        labels=settings.labels,
        published_split="ignore" if split == "all" else settings.published_split,
    )
    check_labels(settings.labels, cases)
    if split == "all":
        indices = np.arange(len(cases))
    else:
        cases = cases.with_named_splits(val=settings.val_cases, test=settings.test_cases)
        cases = cases.with_splits(fractions=settings.fractions, seed=settings.seed)
        indices = cases.indices(split)
    if not len(indices):
        raise DataError(f"{data} has no cases in the split '{split}'. Choose another --split.")
    report = judge_segmenter(
        model,
        cases,
        indices,
        folder,
        split=split,
        options=options,
        seed=settings.seed,
        autocast=lambda: autocast(MachineConfig(), device),
    )
    return Evaluation("segment", split, report.metrics.intervals(), {}, folder)


def _evaluate_detection(
    model: SavedModel,
    data: str,
    folder: Path,
    *,
    split: Split,
    images: str | Path | None,
    compare: Sequence[Path],
    matching: Matching | None,
    skip_bad: bool,
    batch_size: int,
    device: Device,
) -> Evaluation:
    """Measure sensitivity and AP on images with boxes."""
    require_extra("coco", "Evaluations of detectors")
    settings = model.detection
    cases = open_detection(
        data,
        images=images,
        class_agnostic=settings.class_agnostic,
        noisy=settings.noisy,
        skip_bad=skip_bad,
    )
    if split == "all":
        indices = np.arange(len(cases))
    else:
        cases = cases.with_splits(
            fractions=settings.fractions, seed=settings.seed, need_train=False
        )
        indices = cases.indices(split)
    if not len(indices):
        there = [name for name in SPLITS if len(cases.indices(name))]
        raise DataError(
            f"{data} has no images in the split '{split}'; there are {', '.join(there)}. Choose "
            "one of them with --split, or all."
        )
    matching = matching or settings.matching
    check_comparable(compare, cases=[cases.cases[i] for i in indices], matching=matching)
    report = judge_detector(
        model,
        cases,
        indices,
        folder,
        split=split,
        batch_size=batch_size,
        seed=settings.seed,
        matching=matching,
        autocast=lambda: autocast(MachineConfig(), device),
    )
    found = report.metrics.intervals()
    if compare:
        found |= compare_runs([*compare, folder], folder).intervals()
    return Evaluation("detect", split, found, {}, folder)


class _SplitSettings(BaseModel):
    """How the run that trained a model split data without splits, as its head tells."""

    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    val_fraction: float = 0.1
    published_split: PublishedSplit | None = None


def _check_classes(model: SavedModel, cases: ClassificationCases) -> None:
    if tuple(cases.class_names) != model.class_names:
        raise DataError(
            f"{cases.origin} has the classes {', '.join(cases.class_names)}, but the model tells "
            f"apart {', '.join(model.class_names)}. Give data with the model's classes."
        )


def _evaluate_photographs(
    model: SavedModel, data: str, folder: Path, *, split: str, skip_bad: bool, batch_size: int
) -> Evaluation:
    """Measure top-1 and top-5 accuracy on the validation photographs."""
    settings = _SplitSettings.model_validate(model.head.settings)
    images = open_images(
        data,
        split="val",
        seed=settings.seed,
        val_fraction=settings.val_fraction,
        skip_bad=skip_bad,
    )
    if images.class_names != model.class_names:
        raise DataError(
            f"{data} has the classes {', '.join(images.class_names[:10])} ..., but the model was "
            f"trained on {', '.join(model.class_names[:10])} ... Give the same data set."
        )
    assert model.preprocessing.size_voxels is not None
    loader = image_loader(
        images,
        batch_size=batch_size,
        size=model.preprocessing.size_voxels[-1],
        augmentation=ImageAugmentation.for_evaluation(),
        seed=0,
        shuffle=False,
    )
    num_classes = len(model.class_names)
    scores = {
        f"top{k}": MulticlassAccuracy(num_classes, average="micro", top_k=k)
        for k in (1, 5)
        if k < num_classes
    }
    for batch in loader:
        probabilities = model.probabilities(lift(normalize(batch["image"])))
        for score in scores.values():
            score.update(probabilities, batch["label"])
    metrics = {name: float(score.compute()) for name, score in scores.items()}
    write_text(
        folder / "metrics.json",
        json.dumps({"split": split, "num_images": len(images), **metrics}, indent=2) + "\n",
    )
    found = {name: Interval(value=value, low=nan, high=nan) for name, value in metrics.items()}
    return Evaluation("pretrain", split, found, {}, folder)
