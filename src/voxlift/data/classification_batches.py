"""Batches of labelled volumes for training and evaluation."""

from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.randomness import numpy_generator
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.epoch_order import EpochBatchSampler, Pair, ResumableLoader
from voxlift.data.volume_augmentation import VolumeAugmentation, apply_change, draw_change
from voxlift.data.volume_cache import VolumeCache

__all__ = ["VolumeAugmentation", "VolumeBatch", "VolumeCache", "volume_loader"]


class VolumeBatch(TypedDict):
    """One batch: volumes, class numbers, and the positions of the cases in their data set."""

    image: Float32[Tensor, "batch channels depth height width"]
    label: Int64[Tensor, "batch"]
    index: Int64[Tensor, "batch"]


def volume_loader(
    cases: ClassificationCases,
    indices: npt.NDArray[np.int64],
    *,
    preprocessing: Preprocessing,
    augmentation: VolumeAugmentation | None = None,
    batch_size: int,
    seed: int,
    workers: int = 0,
    shuffle: bool,
    balanced: bool = False,
    drop_last: bool = False,
    cache: VolumeCache | None = None,
    cache_gb: float = 4.0,
    rank: int = 0,
    world_size: int = 1,
) -> ResumableLoader[VolumeBatch]:
    """Load batches of some cases, preprocessed and, if asked, changed at random.

    Order and changes follow from the seed, the epoch and the position of the case, so they are the
    same for any number of workers and in a resumed run.

    Args:
        cases: The data set.
        indices: Positions of the cases to load.
        preprocessing: What is done to each volume.
        augmentation: How volumes are changed at random; None for evaluation.
        batch_size: Volumes in a batch, on each rank.
        seed: The run's seed.
        workers: Number of worker processes; 0 loads in this process.
        shuffle: Whether to put the cases in a new random order each epoch.
        balanced: Draw each class equally often, with replacement; implies a random order.
        drop_last: Whether to leave out a last batch that is not full.
        cache: Volumes read already with the same preprocessing, such as by another fold; made here
            if it is None.
        cache_gb: Memory for preprocessed volumes, in GB, if no cache is given.
        rank: Number of this process in distributed training.
        world_size: Number of processes.

    Raises:
        DataError: If a volume breaks the contract of `preprocessing`.
        ConfigError: If the cache was made with another preprocessing or too small a margin.
    """
    margin = augmentation.shift_voxels if augmentation is not None else 0
    if cache is None:
        cache = VolumeCache(
            cases, indices, preprocessing=preprocessing, margin_voxels=margin, cache_gb=cache_gb
        )
    if cache.cases is not cases or cache.preprocessing != preprocessing:
        raise ConfigError("The cache holds volumes of other cases or another preprocessing.")
    if cache.margin_voxels < margin:
        raise ConfigError(
            f"The cache has a margin of {cache.margin_voxels} voxels, but volumes are shifted by "
            f"up to {margin}. Make it with margin_voxels={margin}."
        )
    samples: int | npt.NDArray[np.float64] = len(indices)
    if balanced:
        labels = cases.labels[indices]
        samples = 1.0 / np.bincount(labels)[labels]
    return ResumableLoader(
        _Volumes(cache, indices, augmentation=augmentation, seed=seed),
        EpochBatchSampler(
            samples,
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


_Sample = tuple[npt.NDArray[np.float32], int, int]


class _Volumes:
    """Cases as samples that are asked for by `(epoch, position)`."""

    def __init__(
        self,
        cache: VolumeCache,
        indices: npt.NDArray[np.int64],
        *,
        augmentation: VolumeAugmentation | None,
        seed: int,
    ) -> None:
        self._cache = cache
        self._indices = [int(index) for index in indices]
        self._augmentation = augmentation or VolumeAugmentation()
        self._seed = seed

    def __getitem__(self, pair: Pair) -> _Sample:
        epoch, position = pair
        index = self._indices[position]
        volume = self._cache.read(index)
        margin = self._cache.margin_voxels
        depth, height, width = (length - 2 * margin for length in volume.shape[1:])
        change = draw_change(
            self._augmentation,
            size_voxels=(depth, height, width),
            generator=numpy_generator(self._seed, "augment", epoch, index),
        )
        image = apply_change(volume, change, margin_voxels=margin)
        return image, self._cache.cases.cases[index].label, index


def _collate(samples: list[_Sample]) -> VolumeBatch:
    shapes = sorted({image.shape[1:] for image, _, _ in samples})
    if len(shapes) > 1:
        raise DataError(
            f"Volumes of the sizes {shapes[0]} and {shapes[-1]} cannot be put into one batch. "
            "Give the preprocessing a size_voxels, or take a --batch-size of 1."
        )
    return {
        "image": torch.from_numpy(np.stack([image for image, _, _ in samples])),
        "label": torch.tensor([label for _, label, _ in samples]),
        "index": torch.tensor([index for _, _, index in samples]),
    }
