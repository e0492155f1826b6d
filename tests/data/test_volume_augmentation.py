"""Random changes of volumes: exact where they can be, and pure functions of their draw."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from voxlift.data.volume_augmentation import (
    VolumeAugmentation,
    VolumeChange,
    apply_change,
    draw_change,
)

CUBE = np.random.default_rng(0).normal(size=(2, 9, 9, 9)).astype(np.float32)


def draw(augmentation: VolumeAugmentation, seed: int, size: int = 5) -> VolumeChange:
    generator = np.random.default_rng(seed)
    return draw_change(augmentation, size_voxels=(size, size, size), generator=generator)


def test_the_default_only_crops_the_margin() -> None:
    changed = apply_change(CUBE, draw(VolumeAugmentation(), 0), margin_voxels=2)
    np.testing.assert_array_equal(changed, CUBE[:, 2:7, 2:7, 2:7])


def test_shift_moves_the_crop_and_reaches_both_ends() -> None:
    augmentation = VolumeAugmentation(shift_voxels=2)
    seen = set()
    for seed in range(50):
        change = draw(augmentation, seed)
        d, h, w = (2 + step for step in change.shift_voxels)
        seen |= set(change.shift_voxels)
        changed = apply_change(CUBE, change, margin_voxels=2)
        np.testing.assert_array_equal(changed, CUBE[:, d : d + 5, h : h + 5, w : w + 5])
    assert seen == {-2, -1, 0, 1, 2}


def test_flips_happen_on_the_named_axes_half_the_time() -> None:
    augmentation = VolumeAugmentation(flip_axes=("depth", "width"))
    flips = np.array([draw(augmentation, seed).flipped for seed in range(400)])
    assert not flips[:, 1].any()
    assert abs(flips[:, [0, 2]].mean() - 0.5) < 0.06
    change = next(c for c in (draw(augmentation, s) for s in range(99)) if all(c.flipped[::2]))
    changed = apply_change(CUBE, change, margin_voxels=0)
    np.testing.assert_array_equal(changed, CUBE[:, ::-1, :, ::-1])


def test_one_axis_or_none_is_flipped_each_as_often() -> None:
    """The paper's: a number from -1 to 2, of which -1 flips nothing."""
    augmentation = VolumeAugmentation(flip_axes=("depth", "height", "width"), flip_at_most_one=True)
    flips = np.array([draw(augmentation, seed).flipped for seed in range(800)])
    assert flips.sum(1).max() == 1
    shares = [*flips.mean(0), (flips.sum(1) == 0).mean()]
    np.testing.assert_allclose(shares, 1 / 4, atol=0.05)
    two = VolumeAugmentation(flip_axes=("height", "width"), flip_at_most_one=True)
    flips = np.array([draw(two, seed).flipped for seed in range(800)])
    np.testing.assert_allclose(flips.mean(0), (0, 1 / 3, 1 / 3), atol=0.05)


def test_quarter_turns_are_the_24_rotations_of_a_cube() -> None:
    marked = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    augmentation = VolumeAugmentation(rotation="quarter-turns")
    found = {
        apply_change(marked, draw(augmentation, seed, size=3), margin_voxels=0).tobytes()
        for seed in range(600)
    }
    # The rotations of the octahedral group, applied to voxel coordinates, make the reference.
    voxels = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3) - 1
    expected = set()
    for matrix in Rotation.create_group("O").as_matrix():
        d, h, w = (np.rint(voxels @ matrix.T).astype(int) + 1).T
        expected.add(marked[:, d, h, w].reshape(marked.shape).tobytes())
    assert len(expected) == 24
    assert found == expected


def test_quarter_turns_keep_the_size() -> None:
    flat = np.zeros((1, 3, 5, 5), np.float32)
    tall = np.zeros((1, 3, 4, 5), np.float32)
    augmentation = VolumeAugmentation(rotation="quarter-turns")
    for volume in (flat, tall):
        depth, height, width = volume.shape[1:]
        for seed in range(30):
            change = draw_change(
                augmentation,
                size_voxels=(depth, height, width),
                generator=np.random.default_rng(seed),
            )
            assert apply_change(volume, change, margin_voxels=0).shape == volume.shape


def ball(centre: tuple[float, float, float]) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(31.0) - 15] * 3, indexing="ij")
    distances = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
    values: np.ndarray = np.exp(-distances / 18).astype(np.float32)[None]
    return values


@pytest.mark.parametrize("rotation", ["in-plane", "free"])
def test_turns_move_a_ball_by_the_rotation(rotation: Any) -> None:
    augmentation = VolumeAugmentation(rotation=rotation, rotation_degrees=40)
    centre = (4.0, 5.0, -2.0)
    for seed in range(3):
        change = draw(augmentation, seed, size=31)
        turned = apply_change(ball(centre), change, margin_voxels=0)[0]
        axes = np.meshgrid(*[np.arange(31.0) - 15] * 3, indexing="ij")
        found = [float((turned * axis).sum() / turned.sum()) for axis in axes]
        assert change.rotation is not None
        # The output at p shows the input at R p, so that the ball moves by the inverse of R.
        np.testing.assert_allclose(found, change.rotation.T @ centre, atol=0.05)
        np.testing.assert_allclose(change.rotation @ change.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(change.rotation) == pytest.approx(1)
        angle = np.rad2deg(np.arccos((np.trace(change.rotation) - 1) / 2))
        assert 0 < angle <= 40
        if rotation == "in-plane":
            assert found[0] == pytest.approx(centre[0], abs=0.05)


def test_a_turn_by_nothing_is_the_crop() -> None:
    change = draw(VolumeAugmentation(), 0)
    still = VolumeChange(**{**change.__dict__, "rotation": np.eye(3), "shift_voxels": (1, 0, -2)})
    np.testing.assert_allclose(
        apply_change(CUBE, still, margin_voxels=2), CUBE[:, 3:8, 2:7, 0:5], atol=1e-6
    )


def test_intensities_stay_within_their_bounds() -> None:
    augmentation = VolumeAugmentation(intensity_scale=0.2, intensity_shift=0.5)
    changes = [draw(augmentation, seed) for seed in range(200)]
    scales, offsets = ([c.scale for c in changes], [c.offset for c in changes])
    assert 0.8 <= min(scales) < 0.85
    assert 1.15 < max(scales) <= 1.2
    assert -0.5 <= min(offsets) < -0.4
    changed = apply_change(CUBE, changes[0], margin_voxels=0)
    np.testing.assert_allclose(changed, CUBE * scales[0] + offsets[0], rtol=1e-5, atol=1e-6)


def test_noise_has_its_spread_and_repeats() -> None:
    change = draw(VolumeAugmentation(noise_std=0.3), 5)
    zeros = np.zeros((1, 30, 30, 30), np.float32)
    first = apply_change(zeros, change, margin_voxels=0)
    assert first.std() == pytest.approx(0.3, rel=0.02)
    np.testing.assert_array_equal(first, apply_change(zeros, change, margin_voxels=0))
    assert not np.array_equal(
        first, apply_change(zeros, draw(VolumeAugmentation(noise_std=0.3), 6), margin_voxels=0)
    )


def test_the_volume_itself_is_not_changed() -> None:
    before = CUBE.copy()
    everything = VolumeAugmentation(
        shift_voxels=2,
        rotation="quarter-turns",
        flip_axes=("depth", "height", "width"),
        intensity_scale=0.1,
        intensity_shift=0.1,
        noise_std=0.1,
    )
    changed = apply_change(CUBE, draw(everything, 1), margin_voxels=2)
    assert changed.flags["C_CONTIGUOUS"]
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(CUBE, before)


@pytest.mark.parametrize(
    "fields",
    [
        {"rotation": "free"},
        {"rotation_degrees": 10},
        {"rotation": "quarter-turns", "rotation_degrees": 10},
        {"rotation": "free", "rotation_degrees": 181},
        {"shift_voxels": -1},
        {"flip_axes": ("x",)},
        {"intensity_scale": 1.0},
        {"noise_std": float("inf")},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VolumeAugmentation(**fields)
