"""What a detection run needs around its training: images with boxes, batches, and the verdict."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from voxlift.config import DetectConfig, KeySliceConfig, MachineConfig
from voxlift.core.detection_settings import DetectionSettings
from voxlift.core.errors import ConfigError, DataError, wrong_fields
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.detection_batches import detection_loader, detection_preprocessing
from voxlift.data.detection_cases import DetectionCases
from voxlift.data.detection_source import open_detection
from voxlift.inference.detection_report import DetectionReport, judge_detector
from voxlift.lifting.image_to_volume import NUM_SLICES
from voxlift.nets.detector import Detector
from voxlift.nets.factory import SCRATCH
from voxlift.training.answering import load_answering
from voxlift.training.hardware import autocast, choose_device
from voxlift.training.held_out import Indices, check_validation, judged_part
from voxlift.training.provenance import Command, describe_model
from voxlift.training.run_folder import RunFolder
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.source import read_source

logger = logging.getLogger(__name__)

CT_SLICES = 9


@dataclass(frozen=True, eq=False)
class DetectionData:
    """Images with boxes, who learns from which, and how the network sees them.

    Args:
        cases: The data set, with its splits.
        train: Images that are learnt from.
        val: Images that are watched in training, and by which the weights may be chosen.
        test: Images that nothing is chosen by.
        settings: Slices and sizes, and what stands on the backbone.
        preprocessing: From stored intensities to the network's input.
        geometry: Strides of the backbone.
        reasons: Why all this is as it is.
    """

    cases: DetectionCases
    train: Indices
    val: Indices
    test: Indices
    settings: DetectionSettings
    preprocessing: Preprocessing
    geometry: Geometry
    reasons: tuple[str, ...]

    @property
    def monitored(self) -> str:
        """The metric by which the weights are chosen: what such data is usually judged by."""
        return "val/ap50" if self.cases.unit == "0-255" else "val/sensitivity"

    def describe(self) -> str:
        """Say how many images there are for what."""
        return (
            f"{self.cases.describe()}; learning from {len(self.train)}, watching {len(self.val)}, "
            f"testing on {len(self.test)}"
        )


def open_detection_data(config: DetectConfig, cases: DetectionCases | None = None) -> DetectionData:
    """Open the data of a run, split it, and settle what the config leaves open.

    Args:
        config: The run.
        cases: Images in memory, instead of those that `config.data` names.

    Raises:
        ConfigError: If the config does not suit such images.
        DataError: If the data cannot be read, or there are too few images.
    """
    if cases is None:
        cases = open_detection(
            config.data,
            images=config.images,
            class_agnostic=config.class_agnostic,
            noisy=config.noisy,
            skip_bad=config.skip_bad,
        )
    elif config.class_agnostic:
        cases = cases.of_one_class()
    cases = cases.with_splits(fractions=config.fractions, seed=config.seed)
    train = cases.indices("train", with_boxes=not config.empty_images)
    if not len(train):
        raise DataError(
            f"{cases.origin}: no training image has a box to learn from. Mark boxes in some, or "
            "move marked images into the split 'train'."
        )
    val, test = cases.indices("val"), cases.indices("test")
    check_validation(val, origin=cases.origin, keep=config.keep, patience=config.patience)
    train = cases.share(train, fraction=config.label_fraction, seed=config.seed)
    settings = _settings(config, cases)
    preprocessing = detection_preprocessing(
        cases.unit, window=config.slices.window, mean_std=config.slices.mean_std
    )
    geometry, reason = _geometry(config)
    for size in {settings.image_size, *config.augmentation.image_sizes}:
        geometry.check_size((settings.num_slices, size, size))
    return DetectionData(
        cases, train, val, test, settings, preprocessing, geometry, (_seen(settings), reason)
    )


def _settings(config: DetectConfig, cases: DetectionCases) -> DetectionSettings:
    """Settle slices and sizes by what the images are.

    Raises:
        ConfigError: If they contradict each other.
    """
    is_ct = cases.unit == "HU"
    slices = config.slices
    for option in ("window", "slice_interval_mm"):
        if not is_ct and getattr(slices, option) != getattr(KeySliceConfig(), option):
            raise ConfigError(
                f"{cases.origin} holds photographs, and {option} is for CT. Leave it out."
            )
    if not is_ct and slices.num_slices not in (None, NUM_SLICES):
        raise ConfigError(
            f"{cases.origin} holds photographs, whose {NUM_SLICES} slices are their colours; "
            f"{slices.num_slices} were asked for. Leave --num-slices out. CT with neighbouring "
            "slices is read in the layout of DeepLesion."
        )
    try:
        return DetectionSettings(
            class_names=cases.class_names,
            num_slices=slices.num_slices or (CT_SLICES if is_ct else NUM_SLICES),
            slice_interval_mm=slices.slice_interval_mm if is_ct else None,
            image_size=slices.image_size,
            max_image_size=slices.max_image_size,
            class_agnostic=config.class_agnostic,
            noisy=config.noisy,
            matching=config.matching,
            detector=config.detector,
            seed=config.seed,
            fractions=config.fractions,
        )
    except ValidationError as error:
        raise ConfigError(f"{cases.origin}: {wrong_fields(error)}.") from error


def _seen(settings: DetectionSettings) -> str:
    """Say how the network sees an image."""
    if settings.slice_interval_mm is None:
        slices = "lifted to three slices"
    else:
        slices = f"{settings.num_slices} slices {settings.slice_interval_mm:g} mm apart"
    return f"Images are {slices}, their shorter edge {settings.image_size} pixels."


def _geometry(config: DetectConfig) -> tuple[Geometry, str]:
    """Choose the strides: as asked for, those of a start that is a detector, or of pre-training.

    The small strides of a start that was trained on thumbnails would make every map 16 times as
    large, so they are not taken over.

    Raises:
        ConfigError: If those that are asked for stride depth.
    """
    network = config.network
    if network.geometry != "auto":
        asked = named_geometry(network.geometry)
        if asked.strides[-1][0] != 1:
            raise ConfigError(
                f"The geometry {network.geometry} strides depth, but a detector needs maps of "
                "every slice. Choose pretrain, thumbnail, or auto."
            )
        return asked, f"The geometry is {network.geometry}, as asked."
    if network.weights != SCRATCH:
        header = read_source(network.weights).header
        if header.architecture.num_slices is not None and header.geometry.strides[-1][0] == 1:
            return header.geometry, "The geometry is that of the start, which makes planes too."
    return named_geometry("pretrain"), "The geometry is that of pre-training: depth is not strided."


def detection_loaders(data: DetectionData, config: DetectConfig) -> tuple[Any, Any]:
    """Make the loaders of training and of validation images; the second may be None."""
    train_loader = detection_loader(
        data.cases,
        data.train,
        settings=data.settings,
        preprocessing=data.preprocessing,
        augmentation=config.augmentation,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.machine.workers,
        shuffle=True,
        drop_last=len(data.train) >= config.batch_size,
    )
    if not len(data.val):
        return train_loader, None
    return train_loader, detection_loader(
        data.cases,
        data.val,
        settings=data.settings,
        preprocessing=data.preprocessing,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.machine.workers,
        shuffle=False,
    )


def describe_detector(
    model: Detector,
    data: DetectionData,
    config: DetectConfig,
    metrics: Mapping[str, float],
    *,
    command: Command,
) -> WeightHeader:
    """Describe a detector with all that is needed for prediction."""
    return describe_model(
        model,
        config,
        metrics,
        preprocessing=data.preprocessing,
        head=HeadDescription(
            task="detect",
            num_classes=data.settings.num_classes,
            class_names=data.settings.class_names,
            settings=data.settings.model_dump(mode="json"),
        ),
        command=command,
    )


def judge_detection_run(
    data: DetectionData, config: DetectConfig, folder: RunFolder
) -> DetectionReport:
    """Ask the saved model about the images held out, and write the report; see `judged_part`."""
    split, indices = judged_part(data, keep=config.keep)
    device = choose_device(config.machine)
    model = load_answering(folder.model, device=device)
    return judge_detector(
        model,
        data.cases,
        indices,
        folder.path,
        split=split,
        batch_size=config.batch_size,
        seed=config.seed,
        # As in prediction, whatever the precision of the training was.
        autocast=lambda: autocast(MachineConfig(), device),
    )
