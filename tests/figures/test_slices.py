from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from voxlift.core.errors import DataError
from voxlift.figures.slices import plane_through, plot_montage, plot_planes

ORANGE = np.array([230, 159, 0])


def _ball(
    size_voxels: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """A ball of 14 mm radius in HU, with a bright top and a noisy ground."""
    axes = [
        (np.arange(length) - (length - 1) / 2) * step
        for length, step in zip(size_voxels, spacing_mm, strict=True)
    ]
    squares = np.meshgrid(*(axis**2 for axis in axes), indexing="ij")
    volume = np.where(sum(squares) < 14**2, 40.0, -800.0)
    volume += np.random.default_rng(0).normal(0, 40, size=size_voxels)
    volume[-2:] = 300
    return volume


def _extent(picture: npt.NDArray[np.bool_]) -> tuple[int, int]:
    rows, columns = np.nonzero(picture)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_planes_are_true_to_the_spacing(tmp_path: Path) -> None:
    # Half as many slices, twice as far apart: the ball is round in all planes.
    spacing_mm = (2.0, 1.0, 1.0)
    ball = _ball((24, 48, 48), spacing_mm)
    mask = np.zeros(ball.shape, dtype=bool)
    mask[:-2] = ball[:-2] > -400
    path = plot_planes(
        [ball, ball + 100],
        tmp_path / "planes.png",
        titles=["smooth", "brighter"],
        spacing_mm=spacing_mm,
        window_hu=(-1000, 400),
        masks=[mask, mask],
        title="Example nodules",
    )
    pixels = imread(path)[..., :3] * 255
    outline = np.abs(pixels - ORANGE).max(axis=-1) < 40
    height = len(pixels)
    # The outlines of the left column, plane by plane.
    column = outline[:, : outline.shape[1] // 2]
    gaps = np.flatnonzero(np.diff(column.any(axis=1).astype(int)))
    assert len(gaps) == 6
    for start, stop in zip(gaps[::2], gaps[1::2], strict=True):
        rows, columns = _extent(column[start : stop + 1])
        assert rows == pytest.approx(columns, rel=0.1)
        assert rows > height / 10


def test_the_last_slice_is_on_top() -> None:
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(float)
    point = (1, 2, 3)
    assert np.array_equal(plane_through(volume, "axial", point), volume[1])
    coronal = plane_through(volume, "coronal", point)
    assert coronal.tolist() == [volume[1, 2].tolist(), volume[0, 2].tolist()]
    sagittal = plane_through(volume, "sagittal", point)
    assert sagittal.tolist() == [volume[1, :, 3].tolist(), volume[0, :, 3].tolist()]


def test_volumes_without_mask_or_title_are_drawn(tmp_path: Path) -> None:
    path = plot_planes([_ball((16, 32, 32), (2, 1, 1))], tmp_path / "planes.png")
    assert imread(path)[..., :3].std() > 0.1


def test_a_mask_with_nothing_in_it_is_no_trouble(tmp_path: Path) -> None:
    ball = _ball((1, 32, 32), (2, 1, 1))
    path = plot_planes([ball], tmp_path / "planes.png", masks=[np.zeros(ball.shape)])
    assert path.exists()
    plot_planes([ball], tmp_path / "full.png", masks=[np.ones(ball.shape)])


@pytest.mark.parametrize(("num_slices", "rows"), [(12, 2), (3, 1), (100, 4)])
def test_a_montage_shows_slices_over_the_depth(tmp_path: Path, num_slices: int, rows: int) -> None:
    ball = _ball((20, 40, 40), (2, 1, 1))
    path = plot_montage(
        ball, tmp_path / f"m{num_slices}.png", num_slices=num_slices, mask=ball > -400, title="CT"
    )
    picture = imread(path)
    assert picture.shape[0] == pytest.approx((rows * 1.9 + 0.4) * 150, abs=2)
    assert picture[..., :3].std() > 0.1


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "planes.png"
    ball = _ball((4, 8, 8), (2, 1, 1))
    with pytest.raises(DataError, match=r"shape \(8, 8\)"):
        plot_planes([ball[0]], path)
    with pytest.raises(DataError, match="0 volumes"):
        plot_planes([], path)
    with pytest.raises(DataError, match="1 volumes and 2 titles"):
        plot_planes([ball], path, titles=["a", "b"])
    with pytest.raises(DataError, match="masks have the shapes"):
        plot_planes([ball], path, masks=[ball[:2]])
    with pytest.raises(DataError, match="masks have the shapes"):
        plot_planes([ball], path, masks=[])
    with pytest.raises(DataError, match=r"shape \(0, 8, 8\)"):
        plot_montage(ball[:0], path)
    assert not path.exists()
