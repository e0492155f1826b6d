"""What a classification run needs around its training: cases and splits, and the verdict."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from voxlift.config import FinetuneConfig
from voxlift.core.errors import DataError
from voxlift.core.geometry import Geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.classification_batches import volume_loader
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.classification_source import open_classification
from voxlift.data.fingerprint import propose_preprocessing
from voxlift.data.lidc import check_published_split
from voxlift.data.splits import folds, label_fraction
from voxlift.data.volume_cache import VolumeCache
from voxlift.inference.classification import ClassificationReport, predict_cases, write_report
from voxlift.inference.saved_model import SavedModel, load_model
from voxlift.metrics.classification import choose_threshold
from voxlift.nets.classifier import Classifier
from voxlift.training.geometry import choose_geometry
from voxlift.training.hardware import choose_device
from voxlift.training.provenance import describe_model
from voxlift.training.run_folder import RunFolder
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.save import save_model

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassificationData:
    """Cases, who learns from which, and how the network sees them.

    Args:
        cases: The data set, with its splits.
        train: Cases that are learnt from.
        val: Cases by which the model and its threshold are chosen.
        test: Cases that nothing is chosen by.
        preprocessing: From a volume to the network's input.
        geometry: Strides of the backbone.
        reasons: Why preprocessing and geometry are what they are.
    """

    cases: ClassificationCases
    train: Indices
    val: Indices
    test: Indices
    preprocessing: Preprocessing
    geometry: Geometry
    reasons: tuple[str, ...]

    def describe(self) -> str:
        """Say how many cases there are for what."""
        return (
            f"{self.cases.describe()}; learning from {len(self.train)}, choosing by "
            f"{len(self.val)}, testing on {len(self.test)}"
        )


def open_classification_data(
    config: FinetuneConfig, cases: ClassificationCases | None = None
) -> ClassificationData:
    """Open the data of a run, split it, and propose what the config leaves open.

    Args:
        config: The run.
        cases: Cases in memory, instead of those that `config.data` names.

    Raises:
        DataError: If the data cannot be read, or cannot be split without dividing a patient.
    """
    if cases is None:
        check_published_split(config.data, config.published_split)
        cases = open_classification(
            config.data, skip_bad=config.skip_bad, published_split=config.published_split
        )
    cases = cases.with_splits(fractions=config.fractions, seed=config.seed)
    train, val, test = (cases.indices(split) for split in ("train", "val", "test"))
    if not config.folds:
        _check_validation(cases, val)
    if config.label_fraction < 1:
        train = train[
            label_fraction(
                cases.labels[train],
                [cases.groups[i] for i in train],
                fraction=config.label_fraction,
                seed=config.seed,
            )
        ]
    volume = config.volume
    preprocessing, spacing_mm, reason = propose_preprocessing(
        cases,
        train,
        size_voxels=volume.size_voxels,
        spacing_mm=volume.spacing_mm,
        window=volume.window,
        mean_std=volume.mean_std,
        unit=volume.unit,
        orientation=volume.orientation,
    )
    reasons = [reason]
    assert preprocessing.size_voxels is not None
    geometry, why = choose_geometry(
        config.network,
        size_voxels=preprocessing.size_voxels,
        spacing_mm=spacing_mm,
        task="classify",
    )
    reasons += [why] if why else []
    return ClassificationData(cases, train, val, test, preprocessing, geometry, tuple(reasons))


def _check_validation(cases: ClassificationCases, val: Indices) -> None:
    for label in np.setdiff1d(np.arange(len(cases.class_names)), cases.labels[val]).tolist():
        raise DataError(
            f"{cases.origin}: class '{cases.class_names[label]}' has no case among the {len(val)} "
            "validation cases, by which the network is chosen. Move some there, leave the splits "
            "out to have them made, or give --folds."
        )


def split_folds(data: ClassificationData, config: FinetuneConfig) -> list[ClassificationData]:
    """Divide training and validation cases anew, so that each is validated on in one fold."""
    pool = np.concatenate([data.train, data.val])
    number = folds(
        data.cases.labels[pool],
        [data.cases.groups[i] for i in pool],
        num_folds=config.folds,
        seed=config.seed,
        class_names=data.cases.class_names,
    )
    return [
        replace(data, train=pool[number != fold], val=pool[number == fold])
        for fold in range(config.folds)
    ]


def cache_volumes(data: ClassificationData, config: FinetuneConfig) -> VolumeCache:
    """Read and preprocess the training and validation cases; folds share what was read."""
    return VolumeCache(
        data.cases,
        np.concatenate([data.train, data.val]),
        preprocessing=data.preprocessing,
        margin_voxels=config.augmentation.shift_voxels,
        cache_gb=config.machine.cache_gb,
    )


def classification_loaders(
    data: ClassificationData, config: FinetuneConfig, *, cache: VolumeCache
) -> tuple[Any, Any]:
    """Make the loaders of training and validation cases."""
    train_loader = volume_loader(
        data.cases,
        data.train,
        preprocessing=data.preprocessing,
        augmentation=config.augmentation,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.machine.workers,
        shuffle=True,
        balanced=config.balanced_sampling,
        drop_last=len(data.train) >= config.batch_size,
        cache=cache,
    )
    val_loader = volume_loader(
        data.cases,
        data.val,
        preprocessing=data.preprocessing,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.machine.workers,
        shuffle=False,
        cache=cache,
    )
    return train_loader, val_loader


def describe_classifier(
    model: Classifier,
    data: ClassificationData,
    config: FinetuneConfig,
    metrics: Mapping[str, float],
    *,
    threshold: float | None = None,
) -> WeightHeader:
    """Describe a classifier with all that is needed for prediction."""
    head = HeadDescription(
        task="classify",
        num_classes=len(data.cases.class_names),
        class_names=data.cases.class_names,
        threshold=threshold,
        settings={
            "seed": config.seed,
            "fractions": list(config.fractions),
            "folds": config.folds,
            "published_split": config.published_split,
        },
    )
    return describe_model(model, config, metrics, preprocessing=data.preprocessing, head=head)


def save_classifier(
    model: Classifier,
    data: ClassificationData,
    config: FinetuneConfig,
    folder: RunFolder,
    metrics: Mapping[str, float],
) -> None:
    """Save a trained classifier.

    With two classes the threshold is chosen on the validation cases.
    """
    header = describe_classifier(model, data, config, metrics)
    assert header.head is not None
    if header.head.num_classes == 2:
        model.eval().to(choose_device(config.machine))
        answering = SavedModel((model,), header.head, data.preprocessing)
        probabilities = predict_cases(answering, data.cases, data.val)
        threshold = choose_threshold(probabilities, data.cases.labels[data.val])
        header = describe_classifier(model, data, config, metrics, threshold=threshold)
    save_model(model, folder.model, header)


def judge(
    data: ClassificationData, config: FinetuneConfig, folder: RunFolder
) -> ClassificationReport:
    """Ask the saved model, or the average of the folds, about the test cases; write the report.

    Where there are no test cases, the validation cases are judged, and the report says so.
    """
    split, indices = ("test", data.test) if len(data.test) else ("val", data.val)
    model = load_model(folder.path, device=choose_device(config.machine))
    report = write_report(
        folder.path,
        data.cases,
        indices,
        predict_cases(model, data.cases, indices),
        split=split,
        threshold=model.head.threshold,
        train_indices=data.train,
        seed=config.seed,
    )
    if split == "val":
        logger.warning("There are no test cases: the metrics are those of the validation cases.")
    return report
