"""Batches of images with boxes for training and evaluation."""

from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from voxlift.core.detection_settings import DetectionSettings
from voxlift.core.errors import ConfigError
from voxlift.core.preprocessing import PHOTOGRAPH_MEAN, PHOTOGRAPH_STD, Preprocessing
from voxlift.data.box_augmentation import (
    NUM_DRAWS,
    BoxAugmentation,
    change_boxes,
    change_slices,
    draw_box_change,
)
from voxlift.data.ct_windows import window_hu
from voxlift.data.detection_cases import DetectionCases, Unit
from voxlift.data.epoch_order import (
    EpochBatchSampler,
    Pair,
    ResumableLoader,
    sample_uniforms,
)
from voxlift.data.intensity import find_scale

__all__ = [
    "BoxAugmentation",
    "DetectionBatch",
    "DetectionTarget",
    "detection_loader",
    "detection_preprocessing",
]


class DetectionTarget(TypedDict):
    """What is to be found in one image, in pixels of the image as it is fed.

    `ignored` are regions without an answer, which are not among `boxes`.
    """

    boxes: Float32[Tensor, "boxes 4"]
    labels: Int64[Tensor, " boxes"]
    ignored: Float32[Tensor, "regions 4"]


class DetectionBatch(TypedDict):
    """One batch: images of any sizes, what is in them, and the positions of their cases.

    A box found in an image, divided by its `scales` (x, y, x, y), is one of the stored image.
    """

    volumes: list[Float32[Tensor, "1 slices height width"]]
    targets: list[DetectionTarget]
    indices: Int64[Tensor, " batch"]
    scales: Float32[Tensor, "batch 4"]


def detection_preprocessing(
    unit: Unit,
    *,
    window: str | tuple[float, float] = "lesions",
    mean_std: tuple[float, float] | None = None,
) -> Preprocessing:
    """Say what is done to the intensities of photographs, or of CT.

    CT is scaled by its window to the range of photographs, and gets their mean and std, so that a
    network knows it from its pre-training.

    Args:
        unit: What the numbers are.
        window: Of CT, by name or by its lowest and highest HU; photographs have none.
        mean_std: Of the scale of photographs, 0 to 255; None takes that of pre-training.

    Raises:
        ConfigError: If there is no such window.
    """
    mean, std = mean_std or (PHOTOGRAPH_MEAN, PHOTOGRAPH_STD)
    if unit == "0-255":
        return Preprocessing(orientation="stored", unit=unit, mean=mean, std=std)
    return Preprocessing(
        intensity="window",
        window=window_hu(window),
        unit=unit,
        mean=mean / 255,
        std=std / 255,
    )


def detection_loader(
    cases: DetectionCases,
    indices: npt.NDArray[np.int64],
    *,
    settings: DetectionSettings,
    preprocessing: Preprocessing,
    augmentation: BoxAugmentation | None = None,
    batch_size: int,
    seed: int,
    workers: int = 0,
    shuffle: bool,
    drop_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> ResumableLoader[DetectionBatch]:
    """Load batches of some cases: slices, window, size, and, if asked, random changes.

    Order and changes follow from the seed, the epoch and the position of the case, so they are the
    same for any number of workers and in a resumed run.

    Args:
        cases: The data set.
        indices: Positions of the cases to load.
        settings: How many slices at what distance, and how large.
        preprocessing: What is done to the intensities; see `detection_preprocessing`.
        augmentation: How images are changed at random; None for evaluation.
        batch_size: Images in a batch, on each rank.
        seed: The run's seed.
        workers: Number of worker processes; 0 loads in this process.
        shuffle: Whether to put the cases in a new random order each epoch.
        drop_last: Whether to leave out a last batch that is not full.
        rank: Number of this process in distributed training.
        world_size: Number of processes.

    Raises:
        ConfigError: If settings or preprocessing are not for such images.
        DataError: If an image cannot be read, while loading.
    """
    if preprocessing.unit != cases.unit:
        raise ConfigError(
            f"{cases.origin} has values in {cases.unit}, the preprocessing is for "
            f"{preprocessing.unit}. Give that of detection_preprocessing('{cases.unit}')."
        )
    if cases.unit == "0-255" and settings.num_slices != 3:
        raise ConfigError(
            f"num_slices is {settings.num_slices}, but photographs have 3, their colour channels. "
            "Give 3 with --num-slices."
        )
    if augmentation is not None and augmentation.shuffle_slices and cases.unit == "HU":
        raise ConfigError("Slices of CT have an order: shuffle_slices is for photographs only.")
    return ResumableLoader(
        _Images(cases, indices, settings, preprocessing, augmentation or BoxAugmentation(), seed),
        EpochBatchSampler(
            len(indices),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        ),
        workers=workers,
        collate_fn=_collate,
    )


_Sample = tuple[Tensor, DetectionTarget, int, tuple[float, float]]


class _Images:
    """Cases as samples that are asked for by `(epoch, position)`."""

    def __init__(
        self,
        cases: DetectionCases,
        indices: npt.NDArray[np.int64],
        settings: DetectionSettings,
        preprocessing: Preprocessing,
        augmentation: BoxAugmentation,
        seed: int,
    ) -> None:
        self._cases = cases
        self._indices = [int(index) for index in indices]
        self._settings = settings
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._seed = seed

    def __getitem__(self, pair: Pair) -> _Sample:
        epoch, position = pair
        index = self._indices[position]
        settings = self._settings
        num_slices = settings.num_slices
        # Of an even number the key slice is not in the middle: one slice more, for it to stay in
        # its place when they are reversed.
        extra = int(self._augmentation.flip_slices > 0 and num_slices % 2 == 0)
        slices = self._cases.read(
            index, num_slices=num_slices + extra, interval_mm=settings.slice_interval_mm
        ).array
        size = (slices.shape[1], slices.shape[2])
        change = draw_box_change(
            self._augmentation,
            sample_uniforms(
                self._seed, epoch=epoch, indices=[index], num_draws=NUM_DRAWS, purpose="boxes"
            )[0],
            size=size,
            num_slices=num_slices,
            image_size=settings.image_size,
            max_image_size=settings.max_image_size,
        )
        scaled = find_scale(slices, self._preprocessing).apply(slices)
        image = change_slices(scaled, change)[:num_slices]
        truth = self._cases.cases[index].truth
        boxes = torch.from_numpy(change_boxes(truth.boxes, change, size=size))
        crowd = torch.from_numpy(truth.crowd)
        target: DetectionTarget = {
            "boxes": boxes[~crowd],
            "labels": torch.from_numpy(truth.labels)[~crowd],
            "ignored": boxes[crowd],
        }
        scale = (change.size[1] / size[1], change.size[0] / size[0])
        return image.contiguous()[None], target, index, scale


def _collate(samples: list[_Sample]) -> DetectionBatch:
    return {
        "volumes": [image for image, _, _, _ in samples],
        "targets": [target for _, target, _, _ in samples],
        "indices": torch.tensor([index for _, _, index, _ in samples]),
        "scales": torch.tensor([scale * 2 for _, _, _, scale in samples], dtype=torch.float32),
    }
