"""What a segmentation run needs around its training: cases, patches, and the verdict."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from voxlift.config import MachineConfig, SegmentConfig
from voxlift.core.geometry import Geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.segmentation_settings import SegmentationSettings
from voxlift.core.types import AXES, Triple
from voxlift.data.lidc import check_published_split
from voxlift.data.patch_augmentation import PatchAugmentation
from voxlift.data.segmentation_batches import patch_loader, whole_case_loader
from voxlift.data.segmentation_cache import SegmentationCache
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.data.segmentation_checks import check_segmentation
from voxlift.data.segmentation_proposal import Wish, propose
from voxlift.data.segmentation_source import open_segmentation
from voxlift.inference.segmentation_report import SegmentationReport, judge_segmenter
from voxlift.inference.sliding_window import WindowSettings
from voxlift.training.answering import load_answering
from voxlift.training.geometry import choose_geometry, own_strides
from voxlift.training.hardware import autocast, choose_device
from voxlift.training.held_out import Indices, check_validation, judged_part
from voxlift.training.provenance import describe_model
from voxlift.training.run_folder import RunFolder
from voxlift.weights.header import HeadDescription, WeightHeader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """Cases, who learns from which, and how the network sees them.

    Args:
        cases: The data set, with its splits.
        train: Cases that are learnt from.
        val: Cases that are watched in training, and by which the weights may be chosen.
        test: Cases that nothing is chosen by.
        preprocessing: From a volume to the network's input.
        spacing_mm: Size of a voxel on the network's grid.
        patch_voxels: Size of the training patches, and of the window at prediction.
        augmentation: Random changes, with the axes to flip filled in.
        geometry: Strides of the backbone.
        reasons: Why all this is as it is.
    """

    cases: SegmentationCases
    train: Indices
    val: Indices
    test: Indices
    preprocessing: Preprocessing
    spacing_mm: tuple[float, float, float]
    patch_voxels: Triple
    augmentation: PatchAugmentation
    geometry: Geometry
    reasons: tuple[str, ...]

    def describe(self) -> str:
        """Say how many cases there are for what."""
        return (
            f"{self.cases.describe()}; learning from {len(self.train)}, watching {len(self.val)}, "
            f"testing on {len(self.test)}"
        )

    def window(self, *, overlap: float, steps: Triple | None = None) -> WindowSettings:
        """How windows lie over a case that is validated."""
        return WindowSettings(size_voxels=self.patch_voxels, overlap=overlap, step_voxels=steps)


def open_segmentation_data(
    config: SegmentConfig, cases: SegmentationCases | None = None
) -> SegmentationData:
    """Open the data of a run, split it, and propose what the config leaves open.

    Args:
        config: The run.
        cases: Cases in memory, instead of those that `config.data` names.

    Raises:
        DataError: If the data cannot be read, or there are too few cases.
    """
    if cases is None:
        check_published_split(config.data, config.published_split)
        cases = open_segmentation(
            config.data,
            skip_bad=config.skip_bad,
            ignore_value=config.ignore_value,
            class_names=config.class_names,
            regions=config.region_members,
            published_split=config.published_split,
        )
    elif not cases.facts:
        cases = check_segmentation(cases, skip_bad=config.skip_bad)
    cases = cases.with_named_splits(val=config.val_cases, test=config.test_cases)
    cases = cases.with_splits(fractions=config.fractions, seed=config.seed)
    train, val, test = (cases.indices(split) for split in ("train", "val", "test"))
    check_validation(val, origin=cases.origin, keep=config.keep, patience=config.patience)
    train = cases.share(train, fraction=config.label_fraction, seed=config.seed)
    scan = config.scan
    proposal = propose(
        cases,
        train,
        Wish(
            spacing_mm=scan.spacing_mm,
            window=scan.bounds,
            intensity=scan.intensity,
            mean_std=scan.mean_std,
            unit=scan.unit,
            orientation=scan.orientation,
            patch_voxels=scan.patch_voxels,
            max_patch_voxels=scan.max_patch_voxels,
            strides=own_strides(config.network),
        ),
    )
    reasons = [proposal.reason]
    geometry, why = choose_geometry(
        config.network,
        size_voxels=proposal.patch_voxels,
        spacing_mm=proposal.spacing_mm,
        task="segment",
    )
    reasons += [why] if why else []
    augmentation = config.augmentation.resolved(cases.labels.names)
    reasons.append(f"flipping patches along {', '.join(augmentation.flip_axes or ()) or 'no axis'}")
    return SegmentationData(
        cases=cases,
        train=train,
        val=val,
        test=test,
        preprocessing=proposal.preprocessing,
        spacing_mm=proposal.spacing_mm,
        patch_voxels=proposal.patch_voxels,
        augmentation=augmentation,
        geometry=geometry,
        reasons=tuple(reasons),
    )


def segmentation_loaders(data: SegmentationData, config: SegmentConfig) -> tuple[Any, Any]:
    """Prepare the cases, and make the loaders of training patches and of validation cases.

    Without validation cases the second loader is None.
    """
    cache = SegmentationCache(
        data.cases,
        np.concatenate([data.train, data.val]),
        preprocessing=data.preprocessing,
        cache_gb=config.machine.cache_gb,
    )
    train_loader = patch_loader(
        cache,
        data.train,
        size_voxels=data.patch_voxels,
        spacing_mm=data.spacing_mm,
        augmentation=data.augmentation,
        foreground_share=config.foreground_share,
        patches_per_case=config.patches_per_case,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.machine.workers,
    )
    return train_loader, whole_case_loader(cache, data.val) if len(data.val) else None


def describe_segmenter(
    model: nn.Module, data: SegmentationData, config: SegmentConfig, metrics: Mapping[str, float]
) -> WeightHeader:
    """Describe a segmenter with all that is needed for prediction."""
    labels = data.cases.labels
    settings = SegmentationSettings(
        labels=labels,
        channel_names=data.cases.channel_names,
        window_voxels=data.patch_voxels,
        window_steps=config.scan.window_steps,
        decoder=config.decoder,
        deep_supervision=config.deep_supervision,
        mirror_axes=_axis_numbers(data.augmentation.flip_axes or ()),
        seed=config.seed,
        fractions=config.fractions,
        val_cases=config.val_cases,
        test_cases=config.test_cases,
        published_split=config.published_split,
    )
    return describe_model(
        model,
        config,
        metrics,
        preprocessing=data.preprocessing,
        head=HeadDescription(
            task="segment",
            num_classes=labels.num_outputs,
            class_names=labels.output_names,
            settings=settings.model_dump(mode="json"),
        ),
    )


def judge_segmentation(
    data: SegmentationData, config: SegmentConfig, folder: RunFolder
) -> SegmentationReport:
    """Ask the saved model about the cases held out, and write the report; see `judged_part`."""
    split, indices = judged_part(data, keep=config.keep)
    device = choose_device(config.machine)
    model = load_answering(folder.model, device=device)
    return judge_segmenter(
        model,
        data.cases,
        indices,
        folder.path,
        split=split,
        seed=config.seed,
        # As in prediction, whatever the precision of the training was.
        autocast=lambda: autocast(MachineConfig(), device),
    )


def _axis_numbers(names: Sequence[str]) -> tuple[int, ...]:
    return tuple(AXES.index(name) for name in names)
