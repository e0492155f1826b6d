import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.epoch_order import ResumableLoader
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.image_batches import ImageBatch, image_loader
from voxlift.data.image_source import FolderSource, SubsetSource, open_images

CROPS = [
    ImageAugmentation(crop="pad", pad_pixels=2, erase_probability=0.3),
    ImageAugmentation(brightness=0.3, contrast=0.3, saturation=0.3),
    ImageAugmentation.for_evaluation(center_fraction=0.75),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Images of one size."""
    return make_source(tmp_path_factory.mktemp("small"), [(12, 12)] * 20, suffix="png")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """JPEG files of several sizes."""
    shapes = [(160 + 16 * n, 240 - 12 * n) for n in range(10)]
    return make_source(tmp_path_factory.mktemp("photographs"), shapes, suffix="jpg")


def make_source(folder: Path, shapes: list[tuple[int, int]], *, suffix: str) -> FolderSource:
    generator = np.random.default_rng(0)
    for number, shape in enumerate(shapes):
        path = folder / f"class{number % 2}" / f"{number:03}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(shape[::-1]).save(path)
    return FolderSource(folder)


def load(source: FolderSource, **options: Any) -> ResumableLoader[ImageBatch]:
    settings: dict[str, Any] = {"batch_size": 6, "size": 12, "seed": 5, **options}
    return image_loader(source, **settings)


def assert_equal(batches: list[ImageBatch], others: list[ImageBatch]) -> None:
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys() == {"image", "label", "index"}
        for key in batch:
            assert torch.equal(batch[key], other[key])


def by_index(batches: list[ImageBatch]) -> dict[int, torch.Tensor]:
    return {
        int(index): image
        for batch in batches
        for index, image in zip(batch["index"], batch["image"], strict=True)
    }


def test_batches_hold_images_labels_and_indices(small: FolderSource) -> None:
    loader = load(small, augmentation=ImageAugmentation.for_evaluation(), shuffle=False)
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    assert batches[0]["image"].shape == (6, 3, 12, 12)
    assert batches[-1]["image"].shape == (2, 3, 12, 12)
    assert batches[0]["image"].dtype == torch.uint8
    assert batches[0]["image"].is_contiguous()
    assert batches[0]["label"].dtype == batches[0]["index"].dtype == torch.int64
    for index, image in by_index(batches).items():
        np.testing.assert_array_equal(image.numpy().transpose(1, 2, 0), small.read(index))
    labels = torch.cat([batch["label"] for batch in batches])
    assert labels.tolist() == small.labels.tolist()


@pytest.mark.parametrize(
    ("kind", "augmentation", "cache_gb"),
    [
        ("small", CROPS[0], 1.0),
        ("small", CROPS[1], 0.0),
        ("photographs", CROPS[0], 0.0),
        ("photographs", CROPS[1], 0.0),
        ("photographs", CROPS[2], 1.0),
    ],
)
def test_pixels_are_the_same_for_any_number_of_workers(
    request: pytest.FixtureRequest, kind: str, augmentation: ImageAugmentation, cache_gb: float
) -> None:
    source = request.getfixturevalue(kind)
    options = {"augmentation": augmentation, "cache_gb": cache_gb}
    loaders = [load(source, workers=workers, **options) for workers in (0, 1, 2)]
    for loader in loaders:
        loader.set_epoch(2)
    alone, one, two = (list(loader) for loader in loaders)
    assert_equal(alone, one)
    assert_equal(alone, two)


@pytest.mark.parametrize("augmentation", CROPS, ids=lambda a: a.crop)
def test_pixels_do_not_depend_on_batch_size_order_or_cache(
    small: FolderSource, augmentation: ImageAugmentation
) -> None:
    variants = [
        load(small, augmentation=augmentation),
        load(small, augmentation=augmentation, batch_size=7, shuffle=False),
        load(small, augmentation=augmentation, cache_gb=0.0),
        load(small, augmentation=augmentation, rank=0, world_size=1, drop_last=False),
    ]
    images = [by_index(list(variant)) for variant in variants]
    for other in images[1:]:
        assert images[0].keys() == other.keys()
        assert all(torch.equal(images[0][index], other[index]) for index in other)


def test_epoch_and_seed_change_the_pixels(small: FolderSource) -> None:
    loader = load(small, augmentation=CROPS[0])
    first = by_index(list(loader))
    loader.set_epoch(1)
    second = by_index(list(loader))
    other = by_index(list(load(small, augmentation=CROPS[0], seed=6)))
    for images in (second, other):
        assert sum(not torch.equal(first[index], images[index]) for index in first) > 10


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augmentation", CROPS[:2], ids=lambda a: a.crop)
def test_resumed_epoch_has_the_remaining_batches(
    photographs: FolderSource, augmentation: ImageAugmentation, workers: int
) -> None:
    loader = load(photographs, augmentation=augmentation, batch_size=3)
    loader.set_epoch(1)
    whole = list(loader)
    iterator = iter(loader)
    next(iterator)
    resumed = load(photographs, augmentation=augmentation, batch_size=3, workers=workers)
    resumed.load_state_dict(loader.state_dict())
    assert_equal(list(resumed), whole[1:])


def test_pad_crop_is_a_shifted_and_flipped_image(small: FolderSource) -> None:
    augmentation = ImageAugmentation(crop="pad", pad_pixels=2)
    flipped = 0
    for index, image in by_index(list(load(small, augmentation=augmentation))).items():
        padded = np.pad(small.read(index), ((2, 2), (2, 2), (0, 0)), mode="reflect")
        windows = [padded[r : r + 12, c : c + 12] for r in range(5) for c in range(5)]
        pixels = image.numpy().transpose(1, 2, 0)
        straight = any(np.array_equal(pixels, window) for window in windows)
        mirrored = any(np.array_equal(pixels[:, ::-1], window) for window in windows)
        assert straight != mirrored
        flipped += mirrored
    assert 4 <= flipped <= 16


def test_large_photographs_are_scaled(photographs: FolderSource) -> None:
    augmentation = ImageAugmentation.for_evaluation()
    for cache_gb in (0.0, 1.0):
        images = by_index(
            list(load(photographs, augmentation=augmentation, size=40, cache_gb=cache_gb))
        )
        for index, image in images.items():
            whole = photographs.read(index)
            height, width = whole.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            square = Image.fromarray(whole[top : top + side, left : left + side])
            expected = np.asarray(square.resize((40, 40), Image.Resampling.BOX)).astype(int)
            difference = np.abs(image.numpy().transpose(1, 2, 0) - expected)
            assert difference.mean() < 4


def size_of_epoch(epoch: int) -> int:
    return 8 + 4 * epoch


@pytest.mark.parametrize(("augmentation", "workers"), [(CROPS[0], 0), (CROPS[1], 1), (CROPS[2], 0)])
def test_size_may_grow_with_the_epoch(
    small: FolderSource, augmentation: ImageAugmentation, workers: int
) -> None:
    loader = load(small, augmentation=augmentation, size=size_of_epoch, workers=workers)
    for epoch in range(3):
        loader.set_epoch(epoch)
        assert next(iter(loader))["image"].shape == (6, 3, 8 + 4 * epoch, 8 + 4 * epoch)


def test_impossible_size(small: FolderSource) -> None:
    with pytest.raises(ConfigError, match="image size is 0 in epoch 0"):
        next(iter(load(small, size=0, augmentation=CROPS[0])))


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_file_is_named(tmp_path: Path, workers: int) -> None:
    source = make_source(tmp_path, [(12, 12)] * 8, suffix="png")
    (tmp_path / "class1" / "003.png").write_text("no image")
    with pytest.raises(DataError, match=r"^\S+003\.png is not .*--skip-bad"):
        list(load(source, augmentation=CROPS[0], cache_gb=0.0, workers=workers))
    with pytest.raises(DataError, match=r"^\S+003\.png is not .*--skip-bad"):
        load(source, augmentation=CROPS[0])


def test_loader_can_be_sent_to_other_processes(small: FolderSource) -> None:
    loader = load(small, augmentation=CROPS[0], size=size_of_epoch)
    assert_equal(list(pickle.loads(pickle.dumps(loader))), list(loader))


@pytest.mark.data
def test_small_photographs_are_loaded_fast(data_folder: Path) -> None:
    whole = open_images(data_folder / "cifar10", split="val")
    source = SubsetSource(whole, indices=np.arange(0, 10_000, 5))
    loader = image_loader(
        source, batch_size=128, size=32, augmentation=ImageAugmentation(crop="pad"), seed=0
    )
    # Time on the processor, for others may use it too.
    started = time.process_time()
    count = 0
    for epoch in range(5):
        loader.set_epoch(epoch)
        count += sum(len(batch["label"]) for batch in loader)
    # Some ten times as many are usual.
    assert count / (time.process_time() - started) > 5000
