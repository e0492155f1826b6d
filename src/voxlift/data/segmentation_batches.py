"""Batches for segmentation: random patches to learn from, whole cases to validate on."""

from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from voxlift.core.label_scheme import IGNORED
from voxlift.core.randomness import derive_seed, numpy_generator
from voxlift.core.types import Triple
from voxlift.data.epoch_order import EpochBatchSampler, Pair, ResumableLoader
from voxlift.data.patch_augmentation import PatchAugmentation, PatchTransform
from voxlift.data.segmentation_cache import PreparedCase, SegmentationCache

_Sample = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], int]


class SegmentationBatch(TypedDict):
    """Volumes, class numbers of their voxels, and the positions of the cases in their data set."""

    image: Float32[Tensor, "batch channels depth height width"]
    label: UInt8[Tensor, "batch depth height width"]
    index: Int64[Tensor, "batch"]


def patch_loader(
    cache: SegmentationCache,
    indices: npt.NDArray[np.int64],
    *,
    size_voxels: Triple,
    spacing_mm: tuple[float, float, float],
    augmentation: PatchAugmentation,
    foreground_share: float,
    patches_per_case: int,
    batch_size: int,
    seed: int,
    workers: int = 0,
) -> ResumableLoader[SegmentationBatch]:
    """Load random patches; order, places and changes follow from seed, epoch and number alone.

    Args:
        cache: The prepared cases.
        indices: Positions of the cases to learn from.
        size_voxels: Size of a patch.
        spacing_mm: Size of a voxel on the network's grid.
        augmentation: How patches are changed at random.
        foreground_share: Share of the patches whose middle is a voxel of a structure; which
            structure is drawn evenly among those of the case. The others lie anywhere.
        patches_per_case: Patches taken from each case in an epoch.
        batch_size: Patches in a batch.
        seed: The run's seed.
        workers: Number of worker processes; 0 loads in this process.
    """
    num_samples = len(indices) * patches_per_case
    return ResumableLoader(
        _Patches(
            cache,
            indices,
            size_voxels=size_voxels,
            spacing_mm=spacing_mm,
            augmentation=augmentation,
            foreground_share=foreground_share,
            seed=seed,
        ),
        EpochBatchSampler(
            num_samples,
            batch_size=batch_size,
            shuffle=True,
            seed=seed,
            drop_last=num_samples >= batch_size,
        ),
        workers=workers,
        collate_fn=_collate,
    )


def whole_case_loader(
    cache: SegmentationCache, indices: npt.NDArray[np.int64]
) -> ResumableLoader[SegmentationBatch]:
    """Load whole prepared cases, one at a time, unchanged."""
    return ResumableLoader(
        _WholeCases(cache, indices),
        EpochBatchSampler(len(indices), batch_size=1, shuffle=False, seed=0),
        collate_fn=_collate,
    )


class _WholeCases:
    """Cases as samples."""

    def __init__(self, cache: SegmentationCache, indices: npt.NDArray[np.int64]) -> None:
        self._cache = cache
        self._indices = [int(index) for index in indices]

    def __getitem__(self, pair: Pair) -> _Sample:
        index = self._indices[pair[1]]
        case = self._cache.read(index)
        return case.image, case.label, index


class _Patches:
    """Patches as samples that are asked for by `(epoch, number)`."""

    def __init__(
        self,
        cache: SegmentationCache,
        indices: npt.NDArray[np.int64],
        *,
        size_voxels: Triple,
        spacing_mm: tuple[float, float, float],
        augmentation: PatchAugmentation,
        foreground_share: float,
        seed: int,
    ) -> None:
        self._cache = cache
        self._indices = [int(index) for index in indices]
        self._reach = augmentation.reach(size_voxels)
        self._transform = PatchTransform(
            augmentation, size_voxels=size_voxels, spacing_mm=spacing_mm
        )
        self._size_voxels = size_voxels
        self._foreground_share = foreground_share
        self._seed = seed

    def __getitem__(self, pair: Pair) -> _Sample:
        epoch, number = pair
        index = self._indices[number % len(self._indices)]
        case = self._cache.read(index)
        generator = numpy_generator(self._seed, "patch", epoch, number)
        middle = draw_middle(
            case,
            size_voxels=self._size_voxels,
            foreground_share=self._foreground_share,
            generator=generator,
        )
        image, label = crop(case, middle, size_voxels=self._reach)
        seed = derive_seed(self._seed, "augment", epoch, number)
        image, label = self._transform(image, label, seed=seed)
        return image, label, index


def draw_middle(
    case: PreparedCase,
    *,
    size_voxels: Triple,
    foreground_share: float,
    generator: np.random.Generator,
) -> Triple:
    """Draw the voxel in the middle of a patch, so that the patch lies within the case if it can."""
    chance, pick = generator.random(2)
    lowest = [length // 2 for length in size_voxels]
    highest = [
        max(low, length - (wanted - low))
        for low, length, wanted in zip(lowest, case.size_voxels, size_voxels, strict=True)
    ]
    anywhere = generator.integers(lowest, highest, endpoint=True)
    if chance < foreground_share and case.places:
        classes = sorted(case.places)
        places = case.places[classes[int(pick * len(classes))]]
        anywhere = places[int(generator.integers(len(places)))].clip(lowest, highest)
    depth, height, width = (
        length // 2 if length < wanted else int(drawn)
        for length, wanted, drawn in zip(case.size_voxels, size_voxels, anywhere, strict=True)
    )
    return depth, height, width


def crop(
    case: PreparedCase, middle: Triple, *, size_voxels: Triple
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Cut a box out of a case; beyond its ends the image is empty and the mask not labelled."""
    inside, before_after = [], []
    for place, wanted, length in zip(middle, size_voxels, case.size_voxels, strict=True):
        start = place - wanted // 2
        stop = start + wanted
        inside.append(slice(max(start, 0), min(stop, length)))
        before_after.append((max(-start, 0), max(stop - length, 0)))
    region = tuple(inside)
    label = np.pad(case.label[region], before_after, constant_values=IGNORED)
    channels = [
        np.pad(channel[region], before_after, constant_values=np.float32(lowest))
        for channel, lowest in zip(case.image, case.lowest, strict=True)
    ]
    return np.stack(channels), label


def _collate(samples: list[_Sample]) -> SegmentationBatch:
    return {
        "image": torch.from_numpy(np.stack([image for image, _, _ in samples])),
        "label": torch.from_numpy(np.stack([label for _, label, _ in samples])),
        "index": torch.tensor([index for _, _, index in samples]),
    }
