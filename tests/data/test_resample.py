"""Resampling, against SimpleITK and against what can be worked out by hand."""

import tracemalloc

import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import ConfigError, DataError
from voxlift.data import resample as resampling
from voxlift.data.orientation import to_canonical
from voxlift.data.resample import Method, resample, resample_like
from voxlift.data.volume import Volume

DIRECTION = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])


def scan(dtype: type = np.int16) -> Volume:
    numbers = np.random.default_rng(0).integers(-1000, 1000, (7, 9, 11))
    array: np.ndarray = numbers.astype(dtype)
    return Volume(array, (2.5, 0.75, 0.5), (-7.0, 8.0, 9.5), DIRECTION)


def to_simpleitk(volume: Volume) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    return image


def middle_mm(volume: Volume) -> np.ndarray:
    return np.asarray(volume.affine @ [*(np.array(volume.size_voxels) - 1) / 2, 1])[:3]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.9, 0.35), (3.0, 2.0, 0.5)])
@pytest.mark.parametrize(
    ("method", "interpolator"),
    [("linear", SimpleITK.sitkLinear), ("nearest", SimpleITK.sitkNearestNeighbor)],
)
def test_agrees_with_simpleitk(
    spacing: tuple[float, float, float], method: Method, interpolator: int
) -> None:
    volume = scan(np.float32)
    found = resample(volume, spacing, method=method)
    filter_ = SimpleITK.ResampleImageFilter()
    filter_.SetReferenceImage(to_simpleitk(found))
    filter_.SetInterpolator(interpolator)
    filter_.UseNearestNeighborExtrapolatorOn()
    expected = SimpleITK.GetArrayFromImage(filter_.Execute(to_simpleitk(volume)))
    # The border beyond the outermost voxel centres is for each library to decide.
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(found.array[inner], expected[inner], atol=2e-3)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.9, 0.35), (5.0, 3.0, 2.0)])
def test_extent_and_middle_stay(spacing: tuple[float, float, float]) -> None:
    volume = scan()
    found = resample(volume, spacing)
    assert found.spacing_mm == spacing
    np.testing.assert_allclose(middle_mm(found), middle_mm(volume), atol=1e-9)
    np.testing.assert_array_equal(found.direction, volume.direction)
    extent = np.array(volume.size_voxels) * volume.spacing_mm
    off = np.abs(np.array(found.size_voxels) * spacing - extent)
    assert (off <= np.array(spacing) / 2 + 1e-9).all()


def test_linear_functions_are_kept() -> None:
    depth, height, width = np.meshgrid(
        *(np.arange(size) for size in (8, 9, 10)), indexing="ij", sparse=True
    )
    volume = Volume((3 * depth + 2 * height - width).astype(np.float64), (2.0, 1.0, 0.5))
    found = resample(volume, (1.5, 0.7, 0.8))
    mm = np.stack(np.meshgrid(*map(np.arange, found.size_voxels), indexing="ij"), axis=-1)
    mm = mm * found.spacing_mm + np.array(found.origin_mm)[::-1]
    expected = 3 * mm[..., 0] / 2.0 + 2 * mm[..., 1] / 1.0 - mm[..., 2] / 0.5
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(found.array[inner], expected[inner], atol=1e-9)


def test_distances_count_anew_for_each_voxel() -> None:
    # Four new slices between each pair of old ones: 0, 0.25, 0.5, 0.75 of the way.
    volume = Volume(np.array([0.0, 4.0, 8.0, 12.0]).reshape(4, 1, 1), (4.0, 1.0, 1.0))
    found = resample(volume, (1.0, 1.0, 1.0)).array.ravel()
    expected = np.clip(np.arange(16) - 1.5, 0, 12)
    np.testing.assert_allclose(found, expected)


def test_types() -> None:
    assert resample(scan(np.int16), (1, 1, 1)).array.dtype == np.float32
    assert resample(scan(np.float64), (1, 1, 1)).array.dtype == np.float64
    assert resample(scan(np.uint8), (1, 1, 1), method="nearest").array.dtype == np.uint8
    mask = Volume(np.ones((2, 2, 2), bool))
    assert resample(mask, (0.5, 0.5, 0.5), method="nearest").array.dtype == bool


def test_nearest_makes_no_new_labels() -> None:
    volume = Volume(np.random.default_rng(0).choice([0, 3, 7], (6, 6, 6)).astype(np.uint8))
    found = resample(volume, (0.7, 1.3, 0.9), method="nearest")
    assert set(np.unique(found.array)) <= {0, 3, 7}


def test_same_spacing_is_the_same_volume() -> None:
    volume = scan()
    assert resample(volume, volume.spacing_mm) is volume


def test_single_slice_and_tiny_volumes() -> None:
    volume = Volume(np.arange(6, dtype=np.float32).reshape(1, 2, 3), (5.0, 1.0, 1.0))
    thin = resample(volume, (1.0, 1.0, 1.0))
    assert thin.size_voxels == (5, 2, 3)
    np.testing.assert_array_equal(thin.array, np.repeat(volume.array, 5, axis=0))
    assert resample(volume, (50.0, 50.0, 50.0)).size_voxels == (1, 1, 1)


def test_array_turned_round_is_resampled_in_place() -> None:
    turned = Volume(scan().array, scan().spacing_mm, scan().origin_mm, -np.eye(3))
    straight = to_canonical(turned)
    first = to_canonical(resample(turned, (1.0, 0.5, 0.7)))
    second = resample(straight, (1.0, 0.5, 0.7))
    np.testing.assert_allclose(first.array, second.array, atol=1e-3)
    np.testing.assert_allclose(first.origin_mm, second.origin_mm, atol=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.9, 0.35), (3.0, 2.0, 0.7)])
def test_mask_goes_back_to_the_grid_of_its_scan(spacing: tuple[float, float, float]) -> None:
    volume = scan()
    grid = resample(volume, spacing)
    mask = Volume(np.ones(grid.size_voxels, np.uint8), spacing, grid.origin_mm, grid.direction)
    back = resample_like(mask, like=volume, method="nearest")
    assert back.size_voxels == volume.size_voxels
    assert back.spacing_mm == volume.spacing_mm
    assert back.origin_mm == volume.origin_mm
    np.testing.assert_array_equal(back.direction, volume.direction)
    assert back.array.min() == 1


def test_finer_grid_and_back_gives_the_same_labels() -> None:
    labels = Volume(
        np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8),
        (3.0, 0.8, 0.8),
        (1.0, 2.0, 3.0),
        DIRECTION,
    )
    fine = resample(labels, (1.0, 0.4, 0.4), method="nearest")
    np.testing.assert_array_equal(
        resample_like(fine, like=labels, method="nearest").array, labels.array
    )


def test_part_of_a_grid_is_cut_out() -> None:
    volume = scan()
    x, y, z = (volume.affine @ [2, 3, 4, 1])[:3]
    part = Volume(np.zeros((3, 2, 5)), volume.spacing_mm, (x, y, z), volume.direction)
    found = resample_like(volume, like=part, method="nearest")
    np.testing.assert_array_equal(found.array, volume.array[2:5, 3:5, 4:9])


def test_grid_elsewhere_is_refused() -> None:
    volume = scan()
    far = Volume(volume.array, volume.spacing_mm, (100.0, 8.0, 9.5), volume.direction)
    with pytest.raises(DataError, match="beyond the volume"):
        resample_like(volume, like=far)
    turned = Volume(volume.array, volume.spacing_mm, volume.origin_mm)
    with pytest.raises(DataError, match="same direction"):
        resample_like(volume, like=turned)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, np.nan, 1), (1, 1)])
def test_impossible_spacing_is_refused(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="three positive numbers"):
        resample(scan(), spacing)


def test_impossible_size_is_refused() -> None:
    with pytest.raises(DataError, match="larger spacing"):
        resample(scan(), (0.001, 0.001, 0.001))


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="'linear', 'nearest', 'label'"):
        resample(scan(), (1, 1, 1), method="cubic")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'linear', 'nearest', 'label'"):
        resample_like(scan(), like=scan(), method="cubic")  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 0.5), (0.9, 0.8, 1.1)])
@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_slabs_leave_no_trace(
    monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, float, float], method: Method
) -> None:
    volume = scan()
    whole = resample(volume, spacing, method=method).array
    monkeypatch.setattr(resampling, "_SLAB_VOXELS", 1)
    np.testing.assert_array_equal(resample(volume, spacing, method=method).array, whole)


@pytest.mark.parametrize("spacing", [(1.3, 1.5, 1.5), (0.8, 0.9, 0.9)])
@pytest.mark.parametrize("turned", [False, True])
def test_little_memory_is_needed_beside_the_result(
    monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, float, float], turned: bool
) -> None:
    monkeypatch.setattr(resampling, "_SLAB_VOXELS", 2**16)
    array = np.zeros((64, 128, 128), np.int16)
    volume = Volume(array.transpose(2, 1, 0) if turned else array)
    tracemalloc.start()
    found = resample(volume, spacing)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The result and a few slabs; never a float copy of the whole volume that was given.
    assert peak_bytes < found.array.nbytes + 8 * 4 * 2**16
