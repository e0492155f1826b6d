import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.surface import surface_metrics

Mask = npt.NDArray[np.bool_]


def _blob(seed: int, size_voxels: tuple[int, int, int] = (7, 10, 12)) -> Mask:
    noise = np.random.default_rng(seed).normal(size=size_voxels)
    mask: Mask = np.greater(gaussian_filter(noise, 1.5), 0.05)
    return mask


def _boundary(mask: Mask) -> list[tuple[int, int, int]]:
    """Walk over the voxels: those with a neighbour, of six, outside the mask or the array."""
    found = []
    for voxel in np.argwhere(mask):
        for axis in range(3):
            for step in (-1, 1):
                neighbour = voxel.copy()
                neighbour[axis] += step
                beyond = neighbour[axis] < 0 or neighbour[axis] >= mask.shape[axis]
                if beyond or not mask[tuple(neighbour)]:
                    found.append((int(voxel[0]), int(voxel[1]), int(voxel[2])))
    return sorted(set(found))


def _distances_mm(
    prediction: Mask, truth: Mask, spacing_mm: tuple[float, float, float]
) -> tuple[list[float], list[float]]:
    """Try every pair of boundary voxels."""
    surfaces = [_boundary(prediction), _boundary(truth)]
    return (
        [
            min(math.dist(np.multiply(a, spacing_mm), np.multiply(b, spacing_mm)) for b in there)
            for a in here
        ]
        for here, there in (surfaces, surfaces[::-1])
    )  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(4))
def test_distances_agree_with_all_pairs_of_boundary_voxels(seed: int) -> None:
    spacing_mm = (2.5, 0.7, 1.1)
    prediction, truth = _blob(seed), _blob(seed) & _blob(seed + 50)
    assert truth.any()
    metrics = surface_metrics(prediction, truth, spacing_mm=spacing_mm, tolerance_mm=1.1)
    found, true = _distances_mm(prediction, truth, spacing_mm)
    everything = [*found, *true]
    assert metrics.assd_mm == pytest.approx(sum(everything) / len(everything), rel=1e-6)
    assert metrics.hd95_mm == pytest.approx(
        max(np.percentile(found, 95), np.percentile(true, 95)), rel=1e-6
    )
    within = sum(distance <= 1.1 + 1e-9 for distance in everything)
    assert metrics.surface_dice == pytest.approx(within / len(everything))
    # The distances are not all nought or beyond the tolerance.
    assert 0 < metrics.assd_mm < metrics.hd95_mm
    assert 0 < metrics.surface_dice < 1


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own call.
def test_the_three_agree_with_monai_on_the_whole_volume() -> None:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    spacing_mm = (3.0, 1.0, 0.5)
    prediction, truth = np.zeros((2, 20, 30, 30), dtype=bool)
    prediction[5:12, 9:19, 9:21] = _blob(1)
    truth[6:13, 9:19, 8:20] = _blob(2)
    metrics = surface_metrics(prediction, truth, spacing_mm=spacing_mm, tolerance_mm=1.0)
    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    distance = compute_average_surface_distance(
        *pair, include_background=True, symmetric=True, spacing=spacing_mm
    )
    hausdorff = compute_hausdorff_distance(
        *pair, include_background=True, percentile=95, spacing=spacing_mm
    )
    dice = compute_surface_dice(
        *pair, class_thresholds=[1.0], include_background=True, spacing=spacing_mm
    )
    assert metrics.assd_mm == pytest.approx(distance.item(), rel=1e-5)
    assert metrics.hd95_mm == pytest.approx(hausdorff.item(), rel=1e-5)
    assert metrics.surface_dice == pytest.approx(dice.item(), rel=1e-5)


def test_empty_space_around_and_the_edge_of_the_volume_change_nothing() -> None:
    spacing_mm = (2.0, 1.0, 1.0)
    prediction, truth = _blob(3), _blob(4)
    # These blobs reach to the edges.
    assert prediction[0].any()
    assert truth[:, :, -1].any()
    alone = surface_metrics(prediction, truth, spacing_mm=spacing_mm)
    around = [np.pad(mask, ((9, 2), (0, 5), (3, 0))) for mask in (prediction, truth)]
    assert surface_metrics(*around, spacing_mm=spacing_mm) == alone


def test_a_box_shifted_by_a_known_way() -> None:
    spacing_mm = (1.0, 1.0, 1.5)
    box = np.zeros((12, 12, 40), dtype=bool)
    box[3:9, 3:9, 5:25] = True
    shifted = np.roll(box, 4, axis=2)
    metrics = surface_metrics(shifted, box, spacing_mm=spacing_mm)
    # Each end of 6 x 6 voxels is 4 voxels off, and more than 5 % of the surface.
    assert metrics.hd95_mm == pytest.approx(6.0)
    thin = surface_metrics(box[:, :, ::4], box[:, :, ::4], spacing_mm=(1.0, 1.0, 6.0))
    assert (thin.surface_dice, thin.hd95_mm, thin.assd_mm) == (1, 0, 0)


def test_spheres_of_two_radii_lie_their_difference_apart() -> None:
    spacing_mm = (0.8, 0.5, 0.5)
    axes = [
        (np.arange(n) - n // 2) * step for n, step in zip((41, 65, 65), spacing_mm, strict=True)
    ]
    radius_mm = np.sqrt(sum(np.meshgrid(*(axis**2 for axis in axes), indexing="ij")))
    metrics = surface_metrics(
        radius_mm <= 13, radius_mm <= 10, spacing_mm=spacing_mm, tolerance_mm=2.0
    )
    assert metrics.assd_mm == pytest.approx(3, abs=0.2)
    assert metrics.hd95_mm == pytest.approx(3, abs=0.6)
    assert metrics.surface_dice == 0
    loose = surface_metrics(
        radius_mm <= 13, radius_mm <= 10, spacing_mm=spacing_mm, tolerance_mm=4.0
    )
    assert loose.surface_dice == 1


def test_a_distance_of_just_the_tolerance_is_within_it() -> None:
    voxel = np.zeros((3, 3, 9), dtype=bool)
    voxel[1, 1, 2] = True
    pair = voxel, np.roll(voxel, 3, axis=2)
    # 3 x 0.1 is no more than 0.3, whichever way it is rounded.
    assert surface_metrics(*pair, spacing_mm=(1, 1, 0.1), tolerance_mm=0.3).surface_dice == 1
    assert surface_metrics(*pair, spacing_mm=(1, 1, 0.1), tolerance_mm=0.29).surface_dice == 0


def test_empty_masks_count_as_documented() -> None:
    empty, blob = np.zeros((7, 10, 12), dtype=bool), _blob(0)
    spacing_mm = (2.0, 1.0, 0.5)
    neither = surface_metrics(empty, empty, spacing_mm=spacing_mm)
    assert np.isnan([neither.surface_dice, neither.hd95_mm, neither.assd_mm]).all()
    diagonal_mm = math.sqrt(14**2 + 10**2 + 6**2)
    for pair in ((empty, blob), (blob, empty)):
        one = surface_metrics(*pair, spacing_mm=spacing_mm)
        assert one.surface_dice == 0
        assert one.hd95_mm == one.assd_mm == pytest.approx(diagonal_mm)
    corners = np.zeros((2, 7, 10, 12), dtype=bool)
    corners[0, 0, 0, 0] = corners[1, -1, -1, -1] = True
    assert surface_metrics(*corners, spacing_mm=spacing_mm).hd95_mm < diagonal_mm


def test_other_input_is_refused() -> None:
    blob = _blob(0)
    with pytest.raises(DataError, match=r"sizes \(7, 10, 12\) and \(6, 10, 12\)"):
        surface_metrics(blob, blob[1:], spacing_mm=(1, 1, 1))
    for spacing_mm in ((1.0, 0.0, 1.0), (1.0, math.nan, 1.0), (1.0, 1.0)):
        with pytest.raises(DataError, match="three positive numbers"):
            surface_metrics(blob, blob, spacing_mm=spacing_mm)  # type: ignore[arg-type]
    for tolerance_mm in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="0 or more"):
            surface_metrics(blob, blob, spacing_mm=(1, 1, 1), tolerance_mm=tolerance_mm)
