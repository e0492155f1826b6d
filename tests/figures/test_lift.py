from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread
from skimage import data

from voxlift.core.errors import DataError
from voxlift.figures.lift import kernel_montage, plot_lift, plot_lifted_with_kernels


def _photographs() -> list[npt.NDArray[np.uint8]]:
    return [data.astronaut()[::4, ::4], data.coffee()[::4, ::4], data.chelsea()[::3, ::3]]


def test_the_lift_is_drawn(tmp_path: Path) -> None:
    path = plot_lift(_photographs()[0], tmp_path / "lift.png", title="A photograph as a volume")
    assert imread(path)[..., :3].std() > 0.1
    assert plot_lift(_photographs()[1], tmp_path / "wide.png").exists()


def test_lifted_photographs_are_drawn_beside_kernels(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for depth in (3, 7):
        ramp = np.linspace(-1, 1, depth)
        directions = generator.normal(size=(32, 1, 3))
        waves = np.einsum("oca,adhw->ocdhw", directions, np.stack(np.meshgrid(ramp, ramp, ramp)))
        path = plot_lifted_with_kernels(
            _photographs(), np.sin(3 * waves), tmp_path / f"kernels{depth}.png"
        )
        assert imread(path)[..., :3].std() > 0.1


def test_kernels_are_laid_out_strongest_first() -> None:
    kernels = np.zeros((3, 1, 2, 2, 2))
    kernels[0, 0] = 0.5
    kernels[1, 0] = np.arange(8).reshape(2, 2, 2)
    kernels[2, 0, 0, 0, 0] = -2
    picture = kernel_montage(kernels)
    nan = np.nan
    seventh = np.arange(8) / 7
    expected = [
        [*seventh[:2], nan, *seventh[4:6], nan, nan, -1, 0, nan, 0, 0],
        [*seventh[2:4], nan, *seventh[6:8], nan, nan, 0, 0, nan, 0, 0],
        [nan] * 12,
        [1, 1, nan, 1, 1, *[nan] * 7],
        [1, 1, nan, 1, 1, *[nan] * 7],
    ]
    assert np.allclose(picture, expected, equal_nan=True)
    assert kernel_montage(kernels, max_kernels=1).shape == (2, 5)


def test_input_channels_are_summed() -> None:
    kernels = np.random.default_rng(0).normal(size=(4, 3, 3, 3, 3))
    assert np.allclose(
        kernel_montage(kernels), kernel_montage(kernels.sum(axis=1, keepdims=True)), equal_nan=True
    )


def test_kernels_of_zeros_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "zeros.png"
    assert plot_lifted_with_kernels(_photographs(), np.zeros((2, 1, 3, 3, 3)), path).exists()


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lift.png"
    photograph = _photographs()[0]
    with pytest.raises(DataError, match=r"float64 of the shape"):
        plot_lift(photograph / 255, path)
    with pytest.raises(DataError, match=r"shape \(128, 128\)"):
        plot_lift(photograph[..., 0], path)
    with pytest.raises(DataError, match="0 photographs"):
        plot_lifted_with_kernels([], np.zeros((2, 1, 3, 3, 3)), path)
    with pytest.raises(DataError, match=r"shape \(2, 3, 3, 3\)"):
        plot_lifted_with_kernels([photograph], np.zeros((2, 3, 3, 3)), path)
    assert not path.exists()
