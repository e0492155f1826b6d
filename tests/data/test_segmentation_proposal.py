from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.core.label_scheme import LabelScheme
from voxlift.core.types import Triple
from voxlift.data.prepared_image import to_network_grid
from voxlift.data.preprocess import preprocess
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.data.segmentation_checks import check_segmentation
from voxlift.data.segmentation_proposal import Proposal, Wish, propose, shrink_patch
from voxlift.data.volume import Volume

LABELS = LabelScheme(names=("background", "organ"), values=(0, 1))
# Axial as it is stored, and sagittal: depth, height and width are width, -depth and height there.
AXIAL = np.eye(3)
SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
Arrays = npt.NDArray[np.generic]


def volume(
    size: Triple = (12, 16, 20),
    spacing_mm: tuple[float, float, float] = (2.0, 1.0, 1.0),
    *,
    direction: npt.NDArray[np.float64] = AXIAL,
    low: float = 0.0,
    high: float = 1000.0,
    seed: int = 0,
) -> Volume:
    array = np.random.default_rng(seed).uniform(low, high, size).astype(np.float32)
    return Volume(array, spacing_mm, direction=direction)


def make(*images: Volume | tuple[Volume, ...], masks: list[Arrays] | None = None) -> Any:
    """A data set of volumes, with a box in each mask where none is given."""
    cases = []
    for number, image in enumerate(images):
        channels = image if isinstance(image, tuple) else (image,)
        mask = np.zeros(channels[0].size_voxels, np.uint8)
        mask[3:6, 4:8, 5:9] = 1
        label = replace(channels[0], array=masks[number] if masks else mask)
        cases.append(SegmentationCase(str(number), channels, label, str(number)))
    num_channels = len(cases[0].images)
    names = tuple(f"channel {i}" for i in range(num_channels))
    return check_segmentation(SegmentationCases(tuple(cases), LABELS, channel_names=names))


def proposed(cases: Any, indices: list[int] | None = None, **wishes: Any) -> Proposal:
    chosen = np.arange(len(cases)) if indices is None else np.array(indices)
    return propose(cases, chosen, Wish(**wishes))


def test_a_spacing_that_all_agree_on_is_wanted_of_later_scans_too() -> None:
    cases = make(*(volume(spacing_mm=(2.0 + e, 1.0, 1.0), seed=i) for i, e in enumerate((0, 0.01))))
    found = proposed(cases)
    assert found.preprocessing.spacing_mm == found.spacing_mm == (2.005, 1.0, 1.0)
    # Neither of the two is interpolated for so little; one of twice the spacing is.
    for stored in (volume(spacing_mm=(2.0, 1.0, 1.0)), volume(spacing_mm=(2.01, 1.0, 1.0))):
        assert to_network_grid(stored, found.preprocessing).spacing_mm == stored.spacing_mm
    coarse = to_network_grid(volume(spacing_mm=(4.0, 1.0, 1.0)), found.preprocessing)
    assert coarse.spacing_mm == (2.005, 1.0, 1.0)


def test_the_median_is_taken() -> None:
    cases = make(*(volume(spacing_mm=(d, 1.0, 1.0), seed=int(d)) for d in (1.0, 2.0, 5.0)))
    found = proposed(cases)
    assert found.preprocessing.spacing_mm == found.spacing_mm == (2.0, 1.0, 1.0)
    assert "the median" in found.reason
    # The median of 12, 24 and 60 mm, in voxels of 2 mm, is 12, rounded up to a multiple of 8.
    assert found.patch_voxels == (16, 16, 24)


def test_a_wish_for_a_spacing_stands() -> None:
    found = proposed(make(volume()), spacing_mm=(1.0, 1.0, 2.0))
    assert found.preprocessing.spacing_mm == found.spacing_mm == (1.0, 1.0, 2.0)
    assert "as asked" in found.reason
    assert found.patch_voxels == (24, 16, 16)


def test_an_axis_of_0_stays_as_each_scan_has_it() -> None:
    fine, coarse = (
        volume((12, 16, 20), (2.0, 0.5, 0.5)),
        volume((6, 16, 20), (4.0, 1.0, 1.0), seed=1),
    )
    found = proposed(make(fine, coarse), spacing_mm=(1.0, 0.0, 0.0))
    assert found.preprocessing.spacing_mm == (1.0, 0.0, 0.0)
    # Medians stand for what is not the same in all scans.
    assert found.spacing_mm == (1.0, 0.75, 0.75)
    assert found.patch_voxels == (24, 16, 24)
    for scan in (fine, coarse):
        on_grid = to_network_grid(scan, found.preprocessing)
        assert on_grid.spacing_mm == (1.0, *scan.spacing_mm[1:])
        assert on_grid.size_voxels == (24, 16, 20)
    assert "resampled to 1 x stored x stored mm" in found.reason
    # Turned, its axes are those of the patient.
    sagittal = volume((20, 12, 16), (0.5, 2.0, 0.5), direction=SAGITTAL)
    assert to_network_grid(sagittal, found.preprocessing).spacing_mm == (1.0, 0.5, 0.5)
    assert proposed(make(fine), spacing_mm=(0.0, 0.0, 0.0)).spacing_mm == (2.0, 0.5, 0.5)


def test_mean_and_std_are_of_0_to_255() -> None:
    found = proposed(make(volume(low=-1000)), window=(-200.0, 250.0), mean_std=(123.675, 58.395))
    assert found.preprocessing.mean == pytest.approx(0.485)
    assert found.preprocessing.std == pytest.approx(0.229)


def test_scans_that_are_only_turned_agree() -> None:
    axial = volume((12, 16, 24), (3.0, 1.0, 2.0))
    # Its depth is the patient's width, and so on.
    sagittal = volume((24, 12, 16), (2.0, 3.0, 1.0), direction=SAGITTAL, seed=1)
    cases = make(axial, sagittal)
    found = proposed(cases)
    assert found.preprocessing.spacing_mm == found.spacing_mm == (3.0, 1.0, 2.0)
    assert found.patch_voxels == (16, 16, 24)
    shapes = {preprocess(v, found.preprocessing).shape[1:] for v in (axial, sagittal)}
    assert shapes == {(12, 16, 24)}
    # Taken as they are stored they do not.
    stored = proposed(cases, orientation="stored")
    assert stored.preprocessing.orientation == "stored"
    assert stored.preprocessing.spacing_mm == (2.5, 2.0, 1.5)


def test_ct_is_clipped_to_where_the_structures_are() -> None:
    image = volume(low=-1000, high=1500)
    mask = np.zeros(image.size_voxels, np.uint8)
    mask[3:6, 4:8, 5:9] = 1
    image.array[mask == 1] = np.linspace(-50, 160, int(mask.sum()))
    found = proposed(make(image, masks=[mask])).preprocessing
    assert (found.unit, found.intensity) == ("HU", "window")
    assert found.window == (
        np.floor(np.percentile(image.array[mask == 1], 0.5)),
        np.ceil(np.percentile(image.array[mask == 1], 99.5)),
    )
    scaled = preprocess(image, found)
    assert scaled.mean() == pytest.approx(0, abs=0.05)
    assert scaled.std() == pytest.approx(1, abs=0.05)


def test_a_structure_of_one_intensity_still_has_a_window() -> None:
    image = volume(low=-1000, high=1500)
    mask = np.zeros(image.size_voxels, np.uint8)
    mask[3] = 1
    image.array[3] = 40
    assert proposed(make(image, masks=[mask])).preprocessing.window == (40, 41)


def test_training_cases_without_a_structure_take_the_window_of_all_voxels() -> None:
    images = [volume(low=-1000, high=1000, seed=i) for i in range(2)]
    masks: list[Arrays] = [np.zeros(i.size_voxels, np.uint8) for i in images]
    masks[1] = np.ones_like(masks[1])
    found = proposed(make(*images, masks=masks), [0]).preprocessing
    assert found.window is not None
    assert found.window == pytest.approx((-995, 995), abs=10)


def test_mr_takes_each_channels_own_percentiles() -> None:
    channels = (volume(high=900), volume(high=9000, seed=1))
    found = proposed(make(channels)).preprocessing
    assert (found.unit, found.intensity, found.percentiles) == ("raw", "percentiles", (0.5, 99.5))
    assert found.in_channels == 2
    # Mean and deviation are those of evenly spread numbers from 0 to 1.
    assert (found.mean, found.std) == pytest.approx((0.5, 1 / np.sqrt(12)), abs=0.02)


def test_eight_bit_images_keep_their_range() -> None:
    found = proposed(make(volume(high=255))).preprocessing
    assert (found.unit, found.intensity, found.window) == ("0-255", "window", (0, 255))


def test_eight_bit_images_in_place_of_hounsfield_units_are_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wishes: dict[str, Any] = {"unit": "HU", "window": (-1000.0, 400.0)}
    proposed(make(volume(low=-1000.0, high=255.0)), **wishes)
    assert not caplog.records
    proposed(make(volume(high=255.0)), **wishes)
    assert "give --window 0 255 --unit 0-255" in caplog.text


def test_wishes_for_intensities_stand() -> None:
    cases = make(volume(low=-1000, high=1500))
    found = proposed(cases, window=(-160.0, 240.0)).preprocessing
    assert (found.intensity, found.window) == ("window", (-160, 240))
    found = proposed(cases, intensity="zscore").preprocessing
    assert (found.intensity, found.window, found.mean, found.std) == ("zscore", None, 0, 1)
    found = proposed(cases, intensity="none", unit="raw").preprocessing
    assert (found.intensity, found.unit) == ("none", "raw")
    found = proposed(cases, intensity="percentiles").preprocessing
    assert found.percentiles == (0.5, 99.5)


def test_a_window_that_is_not_told_comes_from_the_structures() -> None:
    """Also for numbers of no unit: 0 to 255 would be made up."""
    image = volume(high=4000)
    mask = np.zeros(image.size_voxels, np.uint8)
    mask[3] = 1
    image.array[3] = np.linspace(2000, 3000, 16 * 20).reshape(16, 20)
    found = proposed(make(image, masks=[mask]), intensity="window").preprocessing
    assert found.unit == "raw"
    assert found.window == pytest.approx((2005, 2995), abs=2)


def test_only_the_training_cases_are_looked_at() -> None:
    images = [volume(seed=0), volume((40, 40, 40), (9.0, 9.0, 9.0), low=-1000, seed=1)]
    cases = make(*images)
    assert proposed(cases, [0]).preprocessing == proposed(make(images[0])).preprocessing
    assert proposed(cases, [0]).patch_voxels == (16, 16, 24)


@pytest.mark.parametrize(
    ("size", "spacing_mm", "most", "patch"),
    [
        # Small enough: rounded up to multiples of 8, below that left as it is.
        ((35, 51, 35), (1, 1, 1), 64**3, (40, 56, 40)),
        ((5, 16, 17), (1, 1, 1), 64**3, (5, 16, 24)),
        ((64, 64, 64), (1, 1, 1), 64**3, (64, 64, 64)),
        # The longest edge in mm goes first.
        ((16, 64, 64), (10, 1, 1), 8 * 64 * 64, (8, 64, 64)),
        ((100, 512, 512), (5, 0.8, 0.8), 64**3, (16, 128, 128)),
        # Nothing is shortened below 8.
        ((8, 8, 8), (1, 1, 1), 100, (8, 8, 8)),
        ((4, 200, 8), (1, 1, 1), 1, (4, 8, 8)),
    ],
)
def test_patches_are_shortened_until_they_are_small_enough(
    size: Triple, spacing_mm: tuple[float, float, float], most: int, patch: Triple
) -> None:
    assert shrink_patch(size, spacing_mm, max_voxels=most) == patch


@pytest.mark.parametrize(
    ("size", "spacing_mm", "most", "strides", "patch"),
    [
        # Multiples of the strides, and not a single voxel in the coarsest map.
        ((20, 20, 20), (1, 1, 1), 64**3, (32, 32, 32), (64, 32, 32)),
        ((20, 22, 20), (1, 1, 1), 64**3, (32, 32, 32), (32, 64, 32)),
        ((20, 20, 20), (1, 1, 3), 64**3, (32, 32, 32), (32, 32, 64)),
        ((35, 51, 35), (1, 1, 1), 96**3, (32, 32, 32), (64, 64, 64)),
        ((100, 512, 512), (5, 0.8, 0.8), 96**3, (32, 32, 32), (32, 160, 160)),
        # Rather too large than such that it cannot work.
        ((40, 40, 40), (1, 1, 1), 1, (32, 32, 32), (32, 32, 64)),
        # Strides of 8 and less change little; 3 is no power of 2.
        ((20, 21, 5), (1, 1, 1), 64**3, (8, 8, 1), (24, 24, 5)),
        ((5, 5, 5), (1, 1, 1), 64**3, (8, 8, 8), (16, 8, 8)),
        ((20, 25, 20), (1, 1, 1), 64**3, (3, 3, 3), (24, 48, 24)),
        # An axis that is not strided is left as short as it is.
        ((4, 20, 20), (5, 1, 1), 64**3, (1, 32, 32), (4, 32, 32)),
    ],
)
def test_patches_are_fitted_to_the_strides_of_a_network(
    size: Triple,
    spacing_mm: tuple[float, float, float],
    most: int,
    strides: Triple,
    patch: Triple,
) -> None:
    assert shrink_patch(size, spacing_mm, max_voxels=most, strides=strides) == patch


def test_the_reason_tells_of_strides() -> None:
    found = proposed(make(volume()), strides=(32, 32, 32))
    assert found.patch_voxels == (64, 32, 32)
    assert found.reason.endswith("whose strides total (32, 32, 32)")
    asked = proposed(make(volume()), strides=(32, 32, 32), patch_voxels=(40, 40, 40))
    assert asked.patch_voxels == (40, 40, 40)
    assert "strides" not in asked.reason


def test_wishes_for_a_patch_stand() -> None:
    cases = make(volume())
    assert proposed(cases, patch_voxels=(7, 9, 11)).patch_voxels == (7, 9, 11)
    assert np.prod(proposed(cases, max_patch_voxels=1200).patch_voxels) <= 1200


def test_the_reason_tells_what_was_found() -> None:
    image = volume(low=-900, high=1400)
    image.array[0, 0, :2] = (-1000, 1500)
    reason = proposed(make(image)).reason
    for words in ("1 training cases", "-1000 to 1500 (HU)", "(12, 16, 20) voxels", "patches of"):
        assert words in reason
