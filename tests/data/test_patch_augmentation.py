from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from voxlift.core.label_scheme import IGNORED
from voxlift.core.types import AXES, Triple
from voxlift.data.patch_augmentation import PatchAugmentation, PatchTransform

SIZE = (10, 11, 12)
ISOTROPIC = (1.0, 1.0, 1.0)
Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]


def smooth_crop(size: Triple, *, seed: int = 0) -> Arrays:
    """A smooth image and the mask of where it is above zero."""
    noise = np.random.default_rng(seed).normal(size=size)
    image = ndimage.gaussian_filter(noise, 1.5).astype(np.float32)
    image /= image.std()
    return image[None], (image > 0).astype(np.uint8)


def transform(
    *, size: Triple = SIZE, spacing_mm: tuple[float, float, float] = ISOTROPIC, **fields: Any
) -> tuple[PatchTransform, Triple]:
    """Make a transform, and say what it needs a crop of."""
    augmentation = PatchAugmentation.none().model_copy(update=fields)
    made = PatchTransform(augmentation, size_voxels=size, spacing_mm=spacing_mm)
    return made, augmentation.reach(size)


def middle(array: npt.NDArray[Any], size: Triple) -> npt.NDArray[Any]:
    starts = [(length - n) // 2 for length, n in zip(array.shape[-3:], size, strict=True)]
    depth, height, width = (slice(start, start + n) for start, n in zip(starts, size, strict=True))
    return array[..., depth, height, width]


def test_no_change_is_no_change() -> None:
    change, reach = transform()
    assert reach == SIZE
    image, label = smooth_crop(SIZE)
    for seed in range(5):
        changed = change(image, label, seed=seed)
        np.testing.assert_array_equal(changed[0], image)
        np.testing.assert_array_equal(changed[1], label)
    assert changed[0].dtype == np.float32
    assert changed[1].dtype == np.uint8


@pytest.mark.parametrize("size", [(7, 8, 9), (10, 11, 12), (24, 48, 64)])
def test_patches_that_are_left_as_they_are_lie_on_whole_voxels(size: Triple) -> None:
    change, reach = transform(size=size, deform_chance=1e-9)
    image, label = smooth_crop(reach)
    changed = change(image, label, seed=1)
    np.testing.assert_allclose(changed[0], middle(image, size), atol=1e-4)
    np.testing.assert_array_equal(changed[1], middle(label, size))


def test_image_and_mask_are_changed_alike() -> None:
    """Where a voxel came from, told by the image, is where its class came from."""
    change, reach = transform(deform_chance=1.0, flip_axes=AXES)
    places = np.indices(reach)
    moved = 0.0
    for seed in range(10):
        for axis in range(3):
            came_from, mask = change(
                places.astype(np.float32), places[axis].astype(np.uint8), seed=seed
            )
            assert came_from.shape == (3, *SIZE)
            assert abs(came_from[axis] - mask).max() < 0.501
            moved += abs(came_from[axis] - middle(places[axis], SIZE)).mean() / 30
    assert moved > 1


@pytest.mark.parametrize("axes", [(), ("depth",), ("height", "width"), AXES])
def test_only_the_chosen_axes_are_flipped(axes: tuple[str, ...]) -> None:
    change, _ = transform(flip_axes=axes)
    image, label = smooth_crop(SIZE)
    numbers = [AXES.index(axis) for axis in axes]
    seen = set()
    for seed in range(60):
        after, mask = change(image, label, seed=seed)
        flipped = [
            chosen
            for chosen in (
                tuple(n for n in numbers if bits >> n & 1)
                for bits in range(8)
                if all(n in numbers for n in range(3) if bits >> n & 1)
            )
            if np.array_equal(after[0], np.flip(image[0], chosen))
        ]
        assert len(flipped) == 1
        np.testing.assert_array_equal(mask, np.flip(label, flipped[0]))
        seen.add(flipped[0])
    # Each axis by a chance of its own.
    assert len(seen) == 2 ** len(axes)


def test_a_seed_gives_the_same_change_whatever_came_before() -> None:
    fields: dict[str, Any] = {"deform_chance": 0.5, "intensity_chance": 0.5, "flip_axes": AXES}
    change, reach = transform(**fields)
    image, label = smooth_crop(reach)
    first = [change(image, label, seed=seed) for seed in range(6)]
    other, _ = transform(**fields)
    torch.manual_seed(5)
    np.random.seed(5)
    for seed in reversed(range(6)):
        again = other(image, label, seed=seed)
        np.testing.assert_array_equal(again[0], first[seed][0])
        np.testing.assert_array_equal(again[1], first[seed][1])
    assert len({one.tobytes() for one, _ in first}) == 6
    # Seeds are of 63 bits.
    change(image, label, seed=2**63 - 1)


def test_sizes_stay_within_the_scaling() -> None:
    """A ball comes out by the factor of each axis."""
    size = (24, 24, 24)
    change, reach = transform(
        size=size, deform_chance=1.0, rotation_degrees=0.0, scaling=(0.8, 1.2)
    )
    away = np.indices(reach).reshape(3, -1).T - (np.array(reach) - 1) / 2
    radius = np.linalg.norm(away, axis=1).reshape(reach)
    ball = (radius < 7).astype(np.uint8)
    factors = []
    for seed in range(40):
        _, mask = change(radius[None].astype(np.float32), ball, seed=seed)
        extents = [mask.any(axis=tuple({0, 1, 2} - {axis})).sum() for axis in range(3)]
        factors += [extent / 14 for extent in extents]
    assert min(factors) >= 0.8 - 1.5 / 14
    assert max(factors) <= 1.2 + 1.5 / 14
    assert min(factors) < 0.92
    assert max(factors) > 1.08


def test_thick_slices_are_turned_in_their_plane_only() -> None:
    change, reach = transform(spacing_mm=(3.0, 1.0, 1.0), deform_chance=1.0, rotation_degrees=180.0)
    # Every slice is of one value, and has its own.
    image = np.broadcast_to(np.arange(reach[0])[:, None, None], reach).astype(np.float32)
    label = np.zeros(reach, np.uint8)
    for seed in range(5):
        after, _ = change(image[None].copy(), label, seed=seed)
        expected = middle(image, SIZE)
        np.testing.assert_allclose(after[0], expected, atol=1e-3)


def test_intensities_change_within_their_bounds_and_the_mask_not_at_all() -> None:
    fields: dict[str, Any] = {"intensity_chance": 1.0}
    image = np.full((1, *SIZE), 2.0, np.float32)
    label = np.ones(SIZE, np.uint8)
    off: dict[str, Any] = {"intensity_scale": 0.0, "intensity_shift": 0.0, "noise_std": 0.0}
    for name, bound in (("intensity_scale", 0.2), ("intensity_shift", 0.1)):
        change, _ = transform(**{**fields, **off, name: 0.1})
        values = []
        for seed in range(40):
            after, mask = change(image, label, seed=seed)
            assert np.ptp(after) < 1e-6
            assert (mask == 1).all()
            values.append(float(after.flat[0]) - 2)
        assert max(map(abs, values)) <= bound + 1e-6
        assert min(values) < -bound / 2
        assert max(values) > bound / 2
    change, _ = transform(**{**fields, **off, "noise_std": 0.1})
    spreads = [float(change(image, label, seed=seed)[0].std()) for seed in range(40)]
    assert max(spreads) < 0.12
    assert max(spreads) > 0.06


def test_ignored_voxels_stay_ignored() -> None:
    change, reach = transform(deform_chance=1.0, flip_axes=AXES)
    image, label = smooth_crop(reach)
    label[label == 1] = IGNORED
    for seed in range(5):
        assert set(np.unique(change(image, label, seed=seed)[1])) == {0, IGNORED}


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (("liver", "tumour"), AXES),
        (("left kidney", "right kidney"), ("depth", "height")),
        (("Lung_LEFT", "spine"), ("depth", "height")),
        (("anterior", "posterior"), ("depth", "width")),
        (("upper lobe", "heart"), ("height", "width")),
        (("left-anterior", "superior"), ()),
        (("LeftKidney", "RightKidney"), ("depth", "height")),
        (("kidney_L", "kidney_R"), ("depth", "height")),
        (("lesion L",), AXES),
        # Parts of words are no words.
        (("cleft", "bright spot", "topology"), AXES),
    ],
)
def test_sides_in_the_names_of_classes_switch_their_axis_off(
    names: tuple[str, ...], axes: tuple[str, ...]
) -> None:
    assert PatchAugmentation().resolved(("background", *names)).flip_axes == axes
    # What was said stands.
    assert PatchAugmentation(flip_axes=("width",)).resolved(names).flip_axes == ("width",)


def test_crops_reach_as_far_as_a_patch_can_shrink() -> None:
    assert PatchAugmentation.none().reach((8, 9, 10)) == (8, 9, 10)
    still = PatchAugmentation(rotation_degrees=0.0, scaling=(1.0, 1.0))
    assert still.reach((8, 9, 10)) == (8, 9, 10)
    reach = PatchAugmentation(rotation_degrees=0.0, scaling=(0.8, 1.2)).reach((8, 20, 40))
    # 1/0.8 of the size, and as much more on both sides.
    assert reach == (10, 26, 50)


@pytest.mark.parametrize(
    "fields",
    [
        {"flip_axes": ("up",)},
        {"rotation_degrees": -1},
        {"deform_chance": 1.5},
        {"intensity_scale": 1.0},
        {"noise_std": -0.1},
        {"scaling": (0.0, 1.0)},
        {"scaling": (1.2, 0.8)},
        {"zoom": 2},
    ],
)
def test_settings_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PatchAugmentation.model_validate(fields)
