"""Sets of photographs that fit into memory, decoded once."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8

from voxlift.data.image_source import ImageSource
from voxlift.data.images import RgbImage

logger = logging.getLogger(__name__)

_NUM_PROBED = 32
_NUM_THREADS = 4
_CHUNK = 1024


class ImageCache:
    """Decoded photographs of any sizes, one behind the other in one block of memory.

    Args:
        pixels: The pixels of all images.
        shapes: Height and width of each image.
    """

    def __init__(self, pixels: torch.Tensor, *, shapes: npt.NDArray[np.int64]) -> None:
        # A tensor, for worker processes that do not inherit memory share tensors, not arrays.
        self._pixels = pixels
        self._shapes = shapes
        self._same_size = bool((shapes == shapes[0]).all())
        self._starts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1) * 3)])

    @classmethod
    def of(cls, source: ImageSource, *, max_bytes: int) -> Self | None:
        """Decode all images of a source; None if they take more than `max_bytes`.

        Raises:
            DataError: If an image cannot be read.
        """
        count = len(source)
        probes = np.unique(np.linspace(0, count - 1, min(_NUM_PROBED, count)).astype(int))
        mean_bytes = 0.0
        for index in probes.tolist():
            mean_bytes += source.read(index).nbytes / len(probes)
            # A set that is much too large is known by its first images.
            if mean_bytes * count > max_bytes:
                return None
        chunks: list[npt.NDArray[np.uint8]] = []
        shapes: list[tuple[int, ...]] = []
        num_bytes = 0
        with ThreadPoolExecutor(_NUM_THREADS) as threads:
            for start in range(0, count, _CHUNK):
                images = list(threads.map(source.read, range(start, min(start + _CHUNK, count))))
                chunks.append(_joined(images))
                shapes += [image.shape[:2] for image in images]
                num_bytes += chunks[-1].nbytes
                if num_bytes > max_bytes:
                    return None
        logger.info("Decoded %s: %.2f GB in memory", source.describe(), num_bytes / 1e9)
        return cls(torch.from_numpy(_moved_together(chunks)), shapes=np.array(shapes))

    def __len__(self) -> int:
        """Count the images."""
        return len(self._shapes)

    def __getitem__(self, index: int) -> RgbImage:
        """Return one image, without copying it."""
        start, end = self._starts[index : index + 2]
        image: RgbImage = self._pixels[start:end].numpy().reshape(*self._shapes[index], 3)
        return image

    @property
    def stacked(self) -> UInt8[np.ndarray, "images height width 3"] | None:
        """All images in one array, if they are of one size."""
        if not self._same_size:
            return None
        return self._pixels.numpy().reshape(len(self), *self._shapes[0], 3)


def _joined(images: Sequence[RgbImage]) -> npt.NDArray[np.uint8]:
    return np.concatenate([image.ravel() for image in images])


def _moved_together(chunks: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Join the chunks and empty the list, so that they are not in memory twice."""
    joined = np.empty(sum(chunk.size for chunk in chunks), dtype=np.uint8)
    end = joined.size
    while chunks:
        chunk = chunks.pop()
        joined[end - chunk.size : end] = chunk
        end -= chunk.size
    return joined
