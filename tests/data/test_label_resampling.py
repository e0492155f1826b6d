"""Masks resampled by label, against the shape that they show and against SimpleITK."""

import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data import label_resampling
from voxlift.data.resample import Method, resample, resample_like
from voxlift.data.volume import Volume

Spacing = tuple[float, float, float]
CENTRE_MM = np.array([20.3, 19.1, 20.7])


def sphere(grid: Volume) -> np.ndarray:
    """The voxels of a grid whose centres lie within 12 mm of a point."""
    places = np.stack(np.meshgrid(*map(np.arange, grid.size_voxels), indexing="ij"), axis=-1)
    mm = places * grid.spacing_mm + np.array(grid.origin_mm)[::-1]
    return np.asarray(np.linalg.norm(mm - CENTRE_MM, axis=-1) <= 12).astype(np.uint8)


def empty(spacing: Spacing) -> Volume:
    return Volume(np.zeros([int(40 / step) for step in spacing], np.uint8), spacing)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((2.5, 0.8, 0.8), (0.7, 0.7, 0.7)),
        ((5.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        ((1.5, 1.5, 1.5), (0.6, 0.6, 0.6)),
        ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0)),
        ((1.0, 1.0, 1.0), (1.5, 1.3, 1.7)),
    ],
)
def test_sphere_is_rounder_than_by_the_nearest_voxel(old: Spacing, new: Spacing) -> None:
    grid = empty(old)
    mask = Volume(sphere(grid), old)

    def score(method: Method) -> float:
        found = resample(mask, new, method=method)
        return dice(found.array, sphere(found))

    assert score("label") > score("nearest") + 0.005
    found = resample(mask, new, method="label")
    image, like = (SimpleITK.GetImageFromArray(one.array) for one in (mask, found))
    image.SetSpacing(old[::-1])
    like.SetSpacing(new[::-1])
    like.SetOrigin(found.origin_mm)
    theirs = SimpleITK.Resample(image, like, interpolator=SimpleITK.sitkLabelGaussian)
    reference = dice(SimpleITK.GetArrayFromImage(theirs), sphere(found))
    assert score("label") == pytest.approx(reference, abs=0.008)


@pytest.mark.parametrize("spacing", [(0.7, 1.3, 0.9), (1.9, 2.5, 3.1), (0.5, 1.0, 1.0)])
def test_no_class_is_made_up(spacing: Spacing) -> None:
    # Between 0 and 7 there would be 3, were they numbers.
    numbers = np.random.default_rng(0).choice([0, 3, 7, 250], (9, 8, 7)).astype(np.uint8)
    for array in (numbers, numbers.astype(np.float32), numbers > 3):
        found = resample(Volume(array), spacing, method="label")
        assert found.array.dtype == array.dtype
        assert set(np.unique(found.array)) <= set(np.unique(array))


def test_against_the_definition() -> None:
    mask = np.random.default_rng(0).integers(0, 4, (6, 7, 5)).astype(np.uint8)
    places = [np.arange(11) * 0.53 - 0.2, np.arange(4) * 1.9 + 0.1, np.arange(8) * 0.61 + 0.3]
    found = label_resampling.resample_labels(mask, places)
    axes = []
    for along, size in zip(places, mask.shape, strict=True):
        sigma = 0.5 * max(along[1] - along[0], 1)
        weights = np.exp(
            -((along.clip(0, size - 1)[:, None] - np.arange(size)) ** 2) / 2 / sigma**2
        )
        axes.append(weights / weights.sum(axis=1, keepdims=True))
    votes = np.stack([np.einsum("ax,by,cz,xyz", *axes, mask == one) for one in range(4)])
    first, second = np.sort(votes, axis=0)[-1:-3:-1]
    clear = first - second > 1e-3
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found[clear], votes.argmax(axis=0)[clear])


def test_blocks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = Volume(np.random.default_rng(0).integers(0, 3, (12, 11, 10)).astype(np.uint8))
    whole = resample(mask, (0.7, 1.3, 0.6), method="label").array
    monkeypatch.setattr(label_resampling, "_BLOCK_VOXELS", 3)
    np.testing.assert_array_equal(resample(mask, (0.7, 1.3, 0.6), method="label").array, whole)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.9, 0.35), (3.0, 2.0, 0.7)])
def test_way_back_ends_on_the_very_grid(spacing: Spacing) -> None:
    direction = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    array = np.zeros((7, 9, 11), np.uint8)
    array[2:5, 2:7, 3:9] = 1
    array[3:6, 3:8, 5:8] = 2
    mask = Volume(array, (2.5, 0.75, 0.5), (-7.0, 8.0, 9.5), direction)
    back = resample_like(resample(mask, spacing, method="label"), like=mask, method="label")
    assert back.size_voxels == mask.size_voxels
    assert back.spacing_mm == mask.spacing_mm
    assert back.origin_mm == mask.origin_mm
    np.testing.assert_array_equal(back.direction, mask.direction)
    assert (back.array == array).mean() > 0.8
    assert set(np.unique(back.array)) == {0, 1, 2}


def test_aligned_part_is_cut_out_as_it_is() -> None:
    mask = Volume(np.random.default_rng(0).integers(0, 5, (6, 7, 8)).astype(np.uint8), (2, 1, 1))
    part = Volume(np.zeros((3, 2, 5)), (2, 1, 1), (1.0, 2.0, 4.0))
    found = resample_like(mask, like=part, method="label")
    np.testing.assert_array_equal(found.array, mask.array[2:5, 2:4, 1:6])


def test_wall_one_voxel_thick_stays_on_a_finer_grid() -> None:
    array = np.zeros((9, 9, 9), np.uint8)
    array[:, 4] = 1
    found = resample(Volume(array), (0.5, 0.5, 0.5), method="label").array
    np.testing.assert_array_equal(np.flatnonzero(found.all(axis=(0, 2))), [8, 9])


def test_image_is_refused() -> None:
    image = Volume(np.random.default_rng(0).random((20, 20, 20)))
    with pytest.raises(DataError, match=r"8000 different values.*method 'linear'"):
        resample(image, (0.5, 0.5, 0.5), method="label")
