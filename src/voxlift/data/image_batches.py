"""Batches of photographs: decoded once where the set fits into memory, else in the workers."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxlift.core.errors import ConfigError
from voxlift.data.epoch_order import (
    EpochBatchSampler,
    Pair,
    ResumableLoader,
    sample_uniforms,
)
from voxlift.data.image_augmentation import (
    NUM_DRAWS,
    ChannelsLast,
    Draws,
    ImageAugmentation,
    crop_box,
    draft_size,
    flips,
    recolour,
    resize_crop,
    shift_indices,
)
from voxlift.data.image_cache import ImageCache
from voxlift.data.image_source import ImageSource
from voxlift.data.images import RgbImage

ImageBatch = dict[str, Tensor]


def image_loader(
    source: ImageSource,
    *,
    batch_size: int,
    size: int | Callable[[int], int],
    augmentation: ImageAugmentation,
    seed: int,
    workers: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    cache_gb: float = 2.0,
    rank: int = 0,
    world_size: int = 1,
) -> ResumableLoader[ImageBatch]:
    """Load photographs as batches of `image` (uint8), `label` and `index`.

    The pixels of a sample follow from (seed, epoch, index) and `size`, whatever the number of
    workers, the batch size or the place that a run was resumed at. Whether the set is cached tells
    only for large JPEGs, which are otherwise decoded at 1/2, 1/4 or 1/8 where that is enough.

    Args:
        source: The photographs.
        batch_size: Images in a batch, on each rank.
        size: Height and width of the images in a batch, in pixels, or a function from the epoch
            to it (progressive resizing).
        augmentation: What is changed at random.
        seed: The run's seed.
        workers: Number of worker processes. Sets of small images need none.
        shuffle: Whether each epoch has a new random order.
        drop_last: Whether to leave out a last batch that is not full.
        cache_gb: A set that takes less than this when decoded, in GB, is decoded once, now.
        rank: Number of this process in distributed training.
        world_size: Number of processes.

    Shape:
        `image` `(batch, 3, height, width)`, `label` and `index` `(batch,)` int64.

    Raises:
        DataError: If an image cannot be read, here or while loading.
    """
    sampler = EpochBatchSampler(
        len(source),
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    dataset = _ImageBatches(
        source,
        cache=ImageCache.of(source, max_bytes=int(cache_gb * 1e9)),
        size=size,
        augmentation=augmentation,
        seed=seed,
    )
    return ResumableLoader(dataset, sampler, workers=workers, collate_fn=_as_it_is)


class _ImageBatches:
    """Make a batch out of `(epoch, index)` pairs."""

    def __init__(
        self,
        source: ImageSource,
        *,
        cache: ImageCache | None,
        size: int | Callable[[int], int],
        augmentation: ImageAugmentation,
        seed: int,
    ) -> None:
        self._source = source
        self._cache = cache
        self._size = size
        self._augmentation = augmentation
        self._seed = seed
        self._labels = source.labels

    def __getitem__(self, pair: Pair) -> ImageBatch:
        return self.__getitems__([pair])

    def __getitems__(self, pairs: list[Pair]) -> ImageBatch:
        epoch = pairs[0][0]
        indices = np.array([index for _, index in pairs], dtype=np.int64)
        size = self._size if isinstance(self._size, int) else self._size(epoch)
        if size < 1:
            raise ConfigError(f"The image size is {size} in epoch {epoch}; it must be positive.")
        draws = sample_uniforms(self._seed, epoch=epoch, indices=indices, num_draws=NUM_DRAWS)
        stacked = None if self._cache is None else self._cache.stacked
        if stacked is not None and self._only_moves_pixels(stacked, size):
            images = self._gather(stacked, indices, draws)
        else:
            images = np.stack(
                [
                    self._read_one(int(index), numbers, size)
                    for index, numbers in zip(indices, draws, strict=True)
                ]
            )
            flipped = flips(self._augmentation, draws)
            images[flipped] = images[flipped, :, ::-1]
        images = recolour(images, self._augmentation, draws)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
            "label": torch.from_numpy(self._labels[indices]),
            "index": torch.from_numpy(indices),
        }

    def _only_moves_pixels(self, stacked: ChannelsLast, size: int) -> bool:
        """Whether the whole batch can be cropped and flipped at once, for nothing is scaled."""
        return stacked.shape[1:3] == (size, size) and (
            self._augmentation.crop == "pad"
            or (self._augmentation.crop == "none" and self._augmentation.center_fraction == 1)
        )

    def _gather(
        self, stacked: ChannelsLast, indices: npt.NDArray[np.int64], draws: Draws
    ) -> ChannelsLast:
        rows, columns = shift_indices(self._augmentation, draws, *stacked.shape[1:3])
        flipped = flips(self._augmentation, draws)
        columns[flipped] = columns[flipped, ::-1]
        return stacked[indices[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _read_one(self, index: int, draws: npt.NDArray[np.float64], size: int) -> RgbImage:
        if self._cache is not None:
            image = self._cache[index]
        else:
            needed = draft_size(self._augmentation, draws, size)
            image = self._source.read(index, draft_size=needed)
        if self._augmentation.crop == "pad":
            rows, columns = shift_indices(self._augmentation, draws[None], *image.shape[:2])
            image = image[rows[0][:, None], columns[0]]
            centre = ImageAugmentation.for_evaluation()
            return resize_crop(image, crop_box(centre, draws, *image.shape[:2]), size)
        return resize_crop(image, crop_box(self._augmentation, draws, *image.shape[:2]), size)


def _as_it_is(batch: ImageBatch) -> ImageBatch:
    return batch
