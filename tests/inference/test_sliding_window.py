from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.inferers import sliding_window_inference
from pydantic import ValidationError
from torch import Tensor, nn

from voxlift.core.errors import VoxliftError
from voxlift.core.types import Triple
from voxlift.data.prepared_image import Region
from voxlift.inference import sliding_window
from voxlift.inference.scratch import scratch_array
from voxlift.inference.sliding_window import (
    Network,
    WindowSettings,
    count_windows,
    predict_slices,
    predict_windows,
    slab_bytes,
    window_starts,
)

Array = npt.NDArray[np.float32]


def image(*size: int, channels: int = 1) -> Array:
    return np.random.default_rng(0).normal(size=(channels, *size)).astype(np.float32)


def pointwise(outputs: int = 3, channels: int = 1) -> nn.Module:
    """A network that sees one voxel alone, so that windows cannot matter."""
    layers = nn.Sequential(nn.Conv3d(channels, 4, 1), nn.Tanh(), nn.Conv3d(4, outputs, 1))
    return layers.eval()


def contextual(outputs: int = 2) -> nn.Module:
    layers = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, outputs, 3, padding=1)
    )
    return layers.eval()


def predict(
    network: Network | Sequence[Network],
    array: Array,
    *,
    window: Triple,
    outputs: int,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: tuple[int, ...] = (),
    overlapping: bool = False,
    padding: float = 0.0,
    out: npt.NDArray[np.floating] | None = None,
    scratch: Path | None = None,
) -> npt.NDArray[np.floating]:
    return predict_windows(
        network,
        lambda region: array[:, *region],
        size_voxels=array.shape[1:],
        num_outputs=outputs,
        settings=WindowSettings(
            size_voxels=window, overlap=overlap, batch_size=batch_size, mirror_axes=mirror_axes
        ),
        overlapping=overlapping,
        padding=[padding] * len(array),
        out=np.empty((outputs, *array.shape[1:]), np.float32) if out is None else out,
        scratch=scratch,
    )


@torch.no_grad()
def direct(network: nn.Module, array: Array, *, overlapping: bool = False) -> Array:
    logits = network(torch.from_numpy(array)[None])
    probabilities = logits.sigmoid() if overlapping else logits.softmax(1)
    return probabilities[0].numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize(
    ("window", "overlap", "batch_size"),
    [((4, 5, 6), 0.5, 1), ((3, 3, 3), 0.0, 7), ((7, 2, 5), 0.75, 4), ((20, 5, 16), 0.25, 2)],
)
def test_a_network_that_sees_one_voxel_answers_as_on_the_whole_image(
    window: Triple, overlap: float, batch_size: int, overlapping: bool
) -> None:
    network, array = pointwise(channels=2), image(11, 9, 13, channels=2)
    found = predict(
        network,
        array,
        window=window,
        outputs=3,
        overlap=overlap,
        batch_size=batch_size,
        overlapping=overlapping,
    )
    np.testing.assert_allclose(found, direct(network, array, overlapping=overlapping), atol=1e-5)


def gaussian(*window: int) -> npt.NDArray[np.float64]:
    axes = [(np.arange(edge) - (edge - 1) / 2) / (edge / 8) for edge in window]
    return np.exp(-sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) / 2)  # type: ignore[no-any-return]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_windows_blend_as_in_monai(batch_size: int) -> None:
    network, array = contextual(), image(20, 15, 24)
    window = (8, 6, 8)
    found = predict(network, array, window=window, outputs=2, batch_size=batch_size)
    with torch.no_grad():
        expected = sliding_window_inference(
            torch.from_numpy(array)[None],
            roi_size=window,
            sw_batch_size=1,
            predictor=lambda part: network(part).softmax(1),
            overlap=0.5,
            mode="gaussian",
            # MONAI's own map is the same, but for weights below 0.001, which it raises.
            roi_weight_map=torch.from_numpy(gaussian(*window)).float(),
        )[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_the_weights_are_a_gaussian_of_an_eighth_of_the_window() -> None:
    network, array = contextual(), image(10, 17, 8)
    window = (5, 7, 8)
    weight = gaussian(*window)
    total, weights = np.zeros((2, 10, 17, 8)), np.zeros((10, 17, 8))
    for depth in (0, 2, 3, 5):
        for height in (0, 2, 5, 8, 10):
            part = np.s_[depth : depth + 5, height : height + 7, :]
            total[:, *part] += weight * direct(network, array[:, *part])
            weights[part] += weight
    found = predict(network, array, window=window, outputs=2)
    np.testing.assert_allclose(found, total / weights, atol=1e-5)


def test_windows_are_as_few_as_overlap_enough() -> None:
    assert window_starts(16, 8, 4) == [0, 4, 8]
    assert window_starts(17, 8, 4) == [0, 3, 6, 9]
    assert window_starts(8, 8, 4) == [0]
    assert window_starts(3, 8, 4) == [0]
    assert window_starts(100, 8, 8)[-2:] == [84, 92]
    settings = WindowSettings(size_voxels=(8, 8, 8))
    assert count_windows((17, 8, 16), settings) == 4 * 1 * 3


def test_steps_follow_from_the_overlap_or_are_given() -> None:
    # A window of one voxel cannot overlap, but still moves on.
    assert WindowSettings(size_voxels=(8, 10, 1), overlap=0.9).steps == (1, 1, 1)
    assert WindowSettings(size_voxels=(8, 10, 1), overlap=0.25).steps == (6, 7, 1)
    papers = WindowSettings(size_voxels=(32, 256, 256), overlap=0.0, step_voxels=(12, 128, 128))
    assert papers.steps == (12, 128, 128)
    assert WindowSettings(size_voxels=(8, 10, 1), step_voxels=(12, 5, 2)).steps == (8, 5, 1)
    # In the paper's code a window starts at each step, and a last one at the end.
    for size in ((148, 512, 512), (150, 384, 500)):
        paper = [
            max(length - edge + step - 1, 0) // step + 1
            for length, edge, step in zip(size, papers.size_voxels, papers.steps, strict=True)
        ]
        assert count_windows(size, papers) == np.prod(paper)


def test_a_small_image_is_padded_with_the_lowest_value_and_cropped_again() -> None:
    network, array = contextual(), image(3, 9, 4)
    padded = np.pad(array, ((0, 0), (2, 3), (0, 0), (1, 1)), constant_values=-2.0)
    expected = direct(network, padded)[:, 2:5, :, 1:5]
    found = predict(network, array, window=(8, 9, 6), outputs=2, padding=-2.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_channel_has_its_own_padding() -> None:
    seen: list[Tensor] = []

    def spy(volumes: Tensor) -> Tensor:
        seen.append(volumes)
        return volumes

    array = image(2, 4, 4, channels=2)
    predict_windows(
        spy,
        lambda region: array[:, *region],
        size_voxels=(2, 4, 4),
        num_outputs=2,
        settings=WindowSettings(size_voxels=(4, 4, 4)),
        overlapping=True,
        padding=[-1.0, -5.0],
    )
    assert (seen[0][0, 0, [0, 3]] == -1).all()
    assert (seen[0][0, 1, [0, 3]] == -5).all()
    torch.testing.assert_close(seen[0][0, :, 1:3], torch.from_numpy(array))


def test_mirroring_averages_the_answers_of_all_combinations() -> None:
    network, array = contextual(), image(6, 5, 4)
    turned = [(), (1,), (3,), (1, 3)]
    expected = np.mean(
        [np.flip(direct(network, np.flip(array, axes).copy()), axes) for axes in turned], axis=0
    )
    found = predict(network, array, window=(6, 5, 4), outputs=2, mirror_axes=(0, 2))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_networks_are_averaged() -> None:
    networks, array = [contextual(), contextual()], image(6, 5, 4)
    expected = np.mean([direct(network, array) for network in networks], axis=0)
    found = predict(networks, array, window=(6, 5, 4), outputs=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_large_slab_lies_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, array = contextual(), image(9, 8, 7)
    expected = predict(network, array, window=(4, 4, 4), outputs=2)
    settings = WindowSettings(size_voxels=(4, 4, 9))
    assert slab_bytes((9, 8, 7), 2, settings) == 0
    monkeypatch.setattr(sliding_window, "_MAX_SLAB_BYTES", 10)
    # As deep as the window, as wide as the padded image.
    assert slab_bytes((9, 8, 7), 2, settings) == 2 * 4 * 8 * 9 * 4
    mapped: list[object] = []

    def spy(shape: tuple[int, ...], dtype: np.dtype[np.generic], *, folder: Path) -> np.memmap:
        mapped.append((shape, folder))
        return scratch_array(shape, dtype, folder=folder)

    monkeypatch.setattr(sliding_window, "scratch_array", spy)
    found = predict(network, array, window=(4, 4, 4), outputs=2, scratch=tmp_path)
    assert mapped == [((2, 4, 8, 7), tmp_path)]
    np.testing.assert_array_equal(found, expected)


def test_slices_are_given_out_as_soon_as_no_window_reaches_them() -> None:
    network, array = contextual(), image(10, 4, 4)
    done: list[int] = []
    slices = predict_slices(
        network,
        lambda region: array[:, *region],
        size_voxels=(10, 4, 4),
        num_outputs=2,
        settings=WindowSettings(size_voxels=(4, 4, 4)),
        overlapping=False,
        padding=[0.0],
        on_window=lambda number, _: done.append(number),
    )
    # Windows begin at slices 0, 2, 4 and 6.
    windows_before = []
    kept = []
    for probabilities in slices:
        windows_before.append(len(done))
        kept.append(probabilities)
    assert windows_before == [1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    expected = predict(network, array, window=(4, 4, 4), outputs=2)
    np.testing.assert_array_equal(np.stack(kept, axis=1), expected)


def test_half_precision_and_a_mapped_file_hold_the_probabilities(tmp_path: Path) -> None:
    network, array = pointwise(), image(9, 8, 7)
    out = np.lib.format.open_memmap(
        tmp_path / "p.npy", mode="w+", dtype=np.float16, shape=(3, 9, 8, 7)
    )
    found = predict(network, array, window=(4, 4, 4), outputs=3, out=out)
    assert found is out
    np.testing.assert_allclose(found, direct(network, array), atol=6e-4)
    plain = predict_windows(
        network,
        lambda region: array[:, *region],
        size_voxels=(9, 8, 7),
        num_outputs=3,
        settings=WindowSettings(size_voxels=(4, 4, 4)),
        overlapping=False,
        padding=[0.0],
    )
    assert plain.dtype == np.float16
    np.testing.assert_array_equal(plain, found)


def test_progress_and_depth_order_are_told() -> None:
    array = image(9, 8, 7)
    regions: list[Region] = []
    told: list[tuple[int, int]] = []

    def read(region: Region) -> Array:
        regions.append(region)
        return array[:, *region]

    settings = WindowSettings(size_voxels=(4, 4, 4), batch_size=5)
    predict_windows(
        pointwise(),
        read,
        size_voxels=(9, 8, 7),
        num_outputs=3,
        settings=settings,
        overlapping=False,
        padding=[0.0],
        on_window=lambda done, total: told.append((done, total)),
    )
    total = count_windows((9, 8, 7), settings)
    assert told == [(done, total) for done in range(1, total + 1)]
    depths = [region[0].start for region in regions]
    assert depths == sorted(depths)
    assert all(part.stop - part.start == 4 for region in regions for part in region)


def test_the_caller_chooses_the_precision() -> None:
    seen: list[torch.dtype] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv3d(1, 2, 1)

        def forward(self, volumes: Tensor) -> Tensor:
            logits: Tensor = self.layer(volumes)
            seen.append(logits.dtype)
            return logits

    array = image(4, 4, 4)
    network = Spy().eval()
    found = predict_windows(
        network,
        lambda region: array[:, *region],
        size_voxels=(4, 4, 4),
        num_outputs=2,
        settings=WindowSettings(size_voxels=(4, 4, 4)),
        overlapping=False,
        padding=[0.0],
        autocast=lambda: torch.autocast("cpu", torch.bfloat16),
    )
    assert seen == [torch.bfloat16]
    np.testing.assert_allclose(found, direct(network, array), atol=2e-2)


@pytest.mark.gpu
def test_a_gpu_answers_as_the_cpu_does() -> None:
    network, array = contextual(), image(20, 15, 24)
    expected = predict(network, array, window=(8, 6, 8), outputs=2, mirror_axes=(0,))
    found = predict_windows(
        network.cuda(),
        lambda region: array[:, *region],
        size_voxels=(20, 15, 24),
        num_outputs=2,
        settings=WindowSettings(size_voxels=(8, 6, 8), batch_size=4, mirror_axes=(0,)),
        overlapping=False,
        padding=[0.0],
        device="cuda",
    )
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_network_that_answers_nan_is_refused() -> None:
    with pytest.raises(VoxliftError, match=r"slice 0 is NaN.*fp32"):
        predict(lambda volumes: volumes * float("nan"), image(4, 4, 4), window=(4, 4, 4), outputs=1)


@pytest.mark.parametrize("axes", [(0, 0), (3,), (-1,)])
def test_mirror_axes_are_checked(axes: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="mirror_axes"):
        WindowSettings(size_voxels=(4, 4, 4), mirror_axes=axes)
