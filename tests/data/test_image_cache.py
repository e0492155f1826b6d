import logging

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.data.image_cache import ImageCache
from voxlift.data.images import RgbImage


class ArraySource:
    """Images of given sizes with random pixels; counts how often it is read."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        generator = np.random.default_rng(0)
        self.images = [generator.integers(0, 256, (*s, 3), dtype=np.uint8) for s in shapes]
        self.labels: npt.NDArray[np.int64] = np.zeros(len(shapes), dtype=np.int64)
        self.class_names = ("only",)
        self.num_read = 0

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int, *, draft_size: int | None = None) -> RgbImage:
        assert draft_size is None
        self.num_read += 1
        return self.images[index]

    def describe(self) -> str:
        return "some images"


def test_images_of_one_size_are_stacked(caplog: pytest.LogCaptureFixture) -> None:
    source = ArraySource([(4, 5)] * 1500)
    with caplog.at_level(logging.INFO):
        cache = ImageCache.of(source, max_bytes=1500 * 60)
    assert cache is not None
    assert len(cache) == 1500
    assert cache.stacked is not None
    np.testing.assert_array_equal(cache.stacked, np.stack(source.images))
    assert caplog.messages == ["Decoded some images: 0.00 GB in memory"]


def test_images_of_several_sizes() -> None:
    source = ArraySource([(4, 5), (1, 1), (7, 3), (4, 5)])
    cache = ImageCache.of(source, max_bytes=1000)
    assert cache is not None
    assert cache.stacked is None
    for index, image in enumerate(source.images):
        np.testing.assert_array_equal(cache[index], image)


def test_what_is_too_large_is_not_decoded() -> None:
    source = ArraySource([(40, 40)] * 200)
    assert ImageCache.of(source, max_bytes=200 * 4800 - 1) is None
    assert source.num_read <= 32
    source.num_read = 0
    assert ImageCache.of(source, max_bytes=0) is None
    assert source.num_read == 1


def test_what_turns_out_too_large_is_given_up() -> None:
    # The images that are looked at first are small, the others large.
    shapes = [(1, 1) if index % 100 == 0 else (50, 50) for index in range(3101)]
    source = ArraySource(shapes)
    assert ImageCache.of(source, max_bytes=100_000) is None
    assert source.num_read < 32 + 1100
