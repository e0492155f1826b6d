from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import IGNORED, LabelScheme
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.types import Triple
from voxlift.data.epoch_order import ResumableLoader
from voxlift.data.patch_augmentation import PatchAugmentation
from voxlift.data.segmentation_batches import (
    SegmentationBatch,
    crop,
    draw_middle,
    patch_loader,
    whole_case_loader,
)
from voxlift.data.segmentation_cache import PreparedCase, SegmentationCache, find_places
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.data.volume import Volume

LABELS = LabelScheme(names=("background", "bright", "brighter"), values=(0, 1, 2))
SIZE = (16, 15, 14)
PATCH = (8, 6, 4)


def make_cases(count: int = 5) -> SegmentationCases:
    """Noise with masks that are thresholds of it."""
    generator = np.random.default_rng(0)
    cases = []
    for number in range(count):
        image = Volume(generator.normal(size=SIZE).astype(np.float32))
        mask = (image.array > 1).astype(np.uint8) + (image.array > 2)
        cases.append(
            SegmentationCase(str(number), (image,), replace(image, array=mask), f"g{number}")
        )
    return SegmentationCases(tuple(cases), LABELS)


CASES = make_cases()
CACHE = SegmentationCache(CASES, np.arange(5), preprocessing=Preprocessing())


def make(
    *, cache: SegmentationCache = CACHE, indices: tuple[int, ...] = (0, 2, 4), **changes: Any
) -> ResumableLoader[SegmentationBatch]:
    options: dict[str, Any] = {
        "size_voxels": PATCH,
        "spacing_mm": (1.0, 1.0, 1.0),
        "augmentation": PatchAugmentation(flip_axes=("depth", "width"), deform_chance=0.5),
        "foreground_share": 0.5,
        "patches_per_case": 2,
        "batch_size": 2,
        "seed": 3,
        **changes,
    }
    return patch_loader(cache, np.array(indices), **options)


def same(left: list[SegmentationBatch], right: list[SegmentationBatch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a["image"], b["image"])
        and torch.equal(a["label"], b["label"])
        and torch.equal(a["index"], b["index"])
        for a, b in zip(left, right, strict=True)
    )


def is_threshold(batch: SegmentationBatch) -> bool:
    image, label = batch["image"][:, 0], batch["label"]
    return torch.equal(label, (image > 1).byte() + (image > 2).byte())


def test_shapes_and_types() -> None:
    loader = make()
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    for batch in batches:
        assert batch["image"].shape == (2, 1, *PATCH)
        assert batch["image"].dtype == torch.float32
        assert batch["label"].shape == (2, *PATCH)
        assert batch["label"].dtype == torch.uint8
    # Each case as often as asked for.
    drawn = sorted(int(i) for batch in batches for i in batch["index"])
    assert drawn == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_the_patches_are_the_same_for_any_workers_and_cache(cache_gb: float) -> None:
    cache = SegmentationCache(CASES, np.arange(5), preprocessing=Preprocessing(), cache_gb=cache_gb)
    expected, found = make(), make(cache=cache, workers=2)
    for epoch in (0, 1):
        for loader in (expected, found):
            loader.set_epoch(epoch)
        assert same(list(expected), list(found))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    loader = make()
    first = list(loader)
    loader.set_epoch(1)
    assert not same(first, list(loader))
    loader.set_epoch(0)
    assert same(first, list(loader))
    assert not same(first, list(make(seed=4)))


def test_resumes_in_the_middle_of_an_epoch() -> None:
    loader = make()
    loader.set_epoch(2)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    resumed = make()
    resumed.load_state_dict(state)
    assert same(list(batches), list(resumed))


@pytest.mark.parametrize(
    "augmentation",
    [
        PatchAugmentation.none(),
        PatchAugmentation.none().model_copy(update={"flip_axes": ("width",)}),
    ],
    ids=["none", "flips"],
)
def test_image_and_label_are_changed_alike(augmentation: PatchAugmentation) -> None:
    for batch in make(augmentation=augmentation, foreground_share=1.0):
        assert is_threshold(batch)
        assert batch["label"].any()


def test_what_is_left_undeformed_is_a_part_of_the_case() -> None:
    """The crop for deformations is larger; what is not deformed is cut out of it unchanged."""
    augmentation = PatchAugmentation(flip_axes=(), deform_chance=1e-9, intensity_chance=0.0)
    for batch in make(augmentation=augmentation):
        for image, index in zip(batch["image"][:, 0].numpy(), batch["index"].tolist(), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(CACHE.read(index).image[0], PATCH)
            assert (abs(windows - image).max(axis=(3, 4, 5)) < 1e-4).sum() == 1


def one_voxel_case(place: Triple, *, size: Triple = SIZE, classes: int = 1) -> PreparedCase:
    """A case with a structure of a single voxel."""
    label = np.zeros(size, np.uint8)
    label[place] = classes
    image = np.zeros((1, *size), np.float32)
    return PreparedCase(image, label, (-1.0,), find_places(label, seed=0))


@pytest.mark.parametrize("place", [(8, 7, 7), (0, 0, 0), (15, 14, 13), (0, 7, 13)])
def test_a_foreground_patch_holds_its_structure_and_lies_in_the_case(place: Triple) -> None:
    case = one_voxel_case(place)
    for seed in range(10):
        middle = draw_middle(
            case, size_voxels=PATCH, foreground_share=1.0, generator=np.random.default_rng(seed)
        )
        image, label = crop(case, middle, size_voxels=PATCH)
        assert label.any()
        assert not (label == IGNORED).any()
        assert image.shape == (1, *PATCH)
        if place == (8, 7, 7):
            # Away from the border of the case the voxel is in the middle of the patch.
            assert label[4, 3, 2] == 1


def test_structures_are_drawn_evenly_however_large_they_are() -> None:
    case = one_voxel_case((12, 7, 7), classes=2)
    case.label[2:8, 4:12, 4:12] = 1
    case = replace(case, places=find_places(case.label, seed=0))
    generator = np.random.default_rng(0)
    at_small = [
        draw_middle(case, size_voxels=(3, 3, 3), foreground_share=1.0, generator=generator)
        == (12, 7, 7)
        for _ in range(400)
    ]
    assert np.mean(at_small) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_foreground_share_is_kept(share: float) -> None:
    case = one_voxel_case((8, 7, 7))
    generator = np.random.default_rng(0)
    middles = [
        draw_middle(case, size_voxels=PATCH, foreground_share=share, generator=generator)
        for _ in range(500)
    ]
    found = np.mean([middle == (8, 7, 7) for middle in middles])
    assert found == pytest.approx(share, abs=0.06)
    if share == 0:
        # Anywhere, but within the case.
        low, high = np.min(middles, axis=0), np.max(middles, axis=0)
        assert low.tolist() == [4, 3, 2]
        assert high.tolist() == [16 - 8 + 4, 15 - 6 + 3, 14 - 4 + 2]


def test_a_case_without_structures_is_drawn_from_anywhere() -> None:
    case = replace(one_voxel_case((0, 0, 0)), places={})
    middles = {
        draw_middle(
            case, size_voxels=PATCH, foreground_share=1.0, generator=np.random.default_rng(seed)
        )
        for seed in range(9)
    }
    assert len(middles) > 5


@pytest.mark.parametrize("size", [(3, 4, 5), (8, 15, 4), (1, 1, 1)])
def test_beyond_a_small_case_patches_are_empty_and_not_labelled(size: Triple) -> None:
    generator = np.random.default_rng(1)
    case = PreparedCase(
        generator.normal(size=(2, *size)).astype(np.float32),
        np.ones(size, np.uint8),
        (-3.0, -5.0),
        {},
    )
    wanted = (8, 9, 10)
    middle = draw_middle(case, size_voxels=wanted, foreground_share=0.5, generator=generator)
    image, label = crop(case, middle, size_voxels=wanted)
    assert image.shape == (2, *wanted)
    inside = label == 1
    # The whole case along axes that are shorter than the patch, about in its middle.
    overlap = [min(n, w) for n, w in zip(size, wanted, strict=True)]
    assert inside.sum() == np.prod(overlap)
    assert (label[~inside] == IGNORED).all()
    for channel, lowest in zip(image, (-3.0, -5.0), strict=True):
        assert (channel[~inside] == lowest).all()
        assert channel[inside].min() != lowest
    for axis, (length, long) in enumerate(zip(size, wanted, strict=True)):
        if length < long:
            there = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
            assert abs(there.mean() - (long - 1) / 2) <= 1


def test_small_cases_are_padded_in_batches_too() -> None:
    loader = make(size_voxels=(20, 20, 20), augmentation=PatchAugmentation.none())
    for batch in loader:
        ignored = batch["label"] == IGNORED
        assert int((~ignored).sum()) == 2 * np.prod(SIZE)
        for image, outside, index in zip(
            batch["image"][:, 0], ignored, batch["index"], strict=True
        ):
            lowest = CACHE.read(int(index)).lowest[0]
            assert torch.all(image[outside] == np.float32(lowest))


def test_deformed_patches_of_small_cases_are_not_labelled_beyond_them() -> None:
    augmentation = PatchAugmentation(flip_axes=(), deform_chance=1.0, intensity_chance=0.0)
    for batch in make(size_voxels=(20, 20, 20), augmentation=augmentation):
        assert set(batch["label"].flatten().tolist()) == {0, 1, 2, IGNORED}


def test_few_patches_make_one_batch() -> None:
    batches = list(make(batch_size=50, patches_per_case=1))
    assert [len(batch["index"]) for batch in batches] == [3]
    # What does not fill a batch is left for another epoch.
    assert [len(b["index"]) for b in make(batch_size=4, patches_per_case=3)] == [4, 4]


def test_whole_cases_come_one_by_one_and_unchanged() -> None:
    batches = list(whole_case_loader(CACHE, np.array([4, 1])))
    assert [batch["index"].tolist() for batch in batches] == [[4], [1]]
    for batch in batches:
        case = CACHE.read(int(batch["index"][0]))
        np.testing.assert_array_equal(batch["image"][0].numpy(), case.image)
        np.testing.assert_array_equal(batch["label"][0].numpy(), case.label)
        assert is_threshold(batch)


def test_no_case_is_an_error() -> None:
    with pytest.raises(DataError, match="no samples"):
        make(indices=())
