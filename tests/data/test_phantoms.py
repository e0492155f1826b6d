"""The simulated nodules: repeatable, of the size asked for, and told apart by shape alone."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from voxlift.core.errors import ConfigError
from voxlift.data.phantoms import (
    CLASS_NAMES,
    NoduleParameters,
    NoduleSet,
    nodule_phantom,
    nodule_set,
)


@pytest.fixture(scope="module")
def nodules() -> NoduleSet:
    return nodule_set(200, seed=1)


def test_same_seed_gives_the_same_phantom_and_another_seed_another() -> None:
    first = nodule_phantom(label=1, seed=3)
    again = nodule_phantom(label=1, seed=3)
    other = nodule_phantom(label=1, seed=4)
    np.testing.assert_array_equal(first.array, again.array)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert not np.array_equal(first.array, other.array)


def test_sizes_and_types() -> None:
    phantom = nodule_phantom(label=0, seed=0, size_voxels=(24, 30, 28))
    assert phantom.array.shape == phantom.mask.shape == (24, 30, 28)
    assert phantom.array.dtype == np.float32
    assert phantom.mask.dtype == bool
    assert phantom.label == 0
    assert len(CLASS_NAMES) == 2


def test_set_is_balanced_shuffled_and_stacked(nodules: NoduleSet) -> None:
    volumes, masks, labels = nodules
    assert volumes.shape == masks.shape == (200, 32, 32, 32)
    assert np.bincount(labels).tolist() == [100, 100]
    assert not np.array_equal(labels, np.arange(200) % 2)
    assert labels.dtype == np.int64


def test_sets_of_different_seeds_share_no_phantom() -> None:
    first, second = nodule_set(8, seed=0), nodule_set(8, seed=1)
    sums = np.concatenate([first.volumes.sum((1, 2, 3)), second.volumes.sum((1, 2, 3))])
    assert len(np.unique(sums)) == 16


def test_neither_intensity_nor_size_gives_the_answer_away(nodules: NoduleSet) -> None:
    volumes, masks, labels = nodules
    volume_of_mask = masks.sum((1, 2, 3))
    mean_in_mask = np.array([v[m].mean() for v, m in zip(volumes, masks, strict=True)])
    for feature in (volume_of_mask, volumes.mean((1, 2, 3)), volumes.std((1, 2, 3))):
        # With 100 against 100 the standard error of an AUC of one half is 0.041.
        assert abs(roc_auc_score(labels, feature) - 0.5) < 0.1
    # Thin spicules take in some lung by partial volume: a weak hint is physical, not a leak.
    assert abs(roc_auc_score(labels, mean_in_mask) - 0.5) < 0.2


def test_surface_gives_the_answer_away(nodules: NoduleSet) -> None:
    surface = np.array([np.sum(mask & ~ndimage.binary_erosion(mask)) for mask in nodules.masks])
    roundness = surface / np.cbrt(nodules.masks.sum((1, 2, 3))) ** 2
    assert roc_auc_score(nodules.labels, roundness) > 0.9


def test_volume_is_that_of_the_ball_asked_for() -> None:
    parameters = NoduleParameters(radius_mm=(6.0, 6.0))
    expected = 4 / 3 * np.pi * 6**3
    for label in (0, 1):
        volumes = [
            nodule_phantom(label=label, seed=seed, parameters=parameters).mask.sum()
            for seed in range(10)
        ]
        np.testing.assert_allclose(volumes, expected, rtol=0.05)


def test_spacing_is_kept_in_mm() -> None:
    parameters = NoduleParameters(spacing_mm=(2.0, 1.0, 0.5), radius_mm=(6.0, 6.0))
    phantom = nodule_phantom(label=0, seed=2, size_voxels=(16, 32, 64), parameters=parameters)
    depth, height, width = (np.ptp(index) + 1 for index in np.nonzero(phantom.mask))
    assert phantom.mask.sum() == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.05)
    assert 5 <= depth <= 8
    assert 11 <= height <= 15
    assert 22 <= width <= 30


def test_attenuation_is_that_of_lung_and_nodule(nodules: NoduleSet) -> None:
    inside = ndimage.binary_erosion(
        nodules.masks, structure=np.ones((1, 3, 3, 3), bool), iterations=2
    )
    assert -130 < nodules.volumes[inside].mean() < 90
    assert -900 < np.median(nodules.volumes[~nodules.masks]) < -780


def test_masks_leave_the_border_free(nodules: NoduleSet) -> None:
    core = nodules.masks[:, 1:-1, 1:-1, 1:-1]
    assert core.sum() == nodules.masks.sum()


def test_noise_and_blur_can_be_off() -> None:
    parameters = NoduleParameters(
        noise_hu=0, blur_mm=0, texture_hu=0, texture_mm=0, num_vessels=(0, 0), lung_hu=(-850, -850)
    )
    phantom = nodule_phantom(label=0, seed=0, parameters=parameters)
    assert phantom.array[0, 0, 0] == pytest.approx(-850)
    assert np.unique(np.round(phantom.array[~phantom.mask]))[0] == -850


@pytest.mark.parametrize("label", [2, -1])
def test_unknown_label_is_refused(label: int) -> None:
    with pytest.raises(ConfigError, match="smooth"):
        nodule_phantom(label=label, seed=0)


def test_volume_that_is_too_small_is_refused_with_the_size_that_works() -> None:
    with pytest.raises(ConfigError, match=r"at least \(18, 18, 18\)"):
        nodule_phantom(label=0, seed=0, size_voxels=(8, 32, 32))


def test_empty_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        nodule_set(0, seed=0)


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValidationError):
        NoduleParameters(radius=3)  # type: ignore[call-arg]
