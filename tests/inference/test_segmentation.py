import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.label_scheme import LabelScheme, Region
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.preprocess import PreprocessingWarning
from voxlift.data.resample import resample, resample_like
from voxlift.data.volume import Volume
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation import SegmentOptions, segment, window_settings

MakeSegmenter = Callable[..., SavedModel]
IDENTITY = np.eye(3)
REGIONS = LabelScheme(
    names=("background", "oedema", "core", "enhancing"),
    values=(0, 1, 2, 4),
    regions=(
        Region(name="whole tumour", members=(1, 2, 3), value=1),
        Region(name="tumour core", members=(2, 3), value=2),
        Region(name="enhancing tumour", members=(3,), value=4),
    ),
)


def intensities(*size: int, high: float = 2.4) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-0.4, high, size).astype(np.float32)


def scan(array: npt.NDArray[np.generic], direction: npt.ArrayLike = IDENTITY) -> Volume:
    return Volume(
        array,
        spacing_mm=(2.0, 0.5, 1.5),
        origin_mm=(5.0, -7.0, 30.0),
        direction=np.array(direction, dtype=np.float64),
    )


def directions() -> list[npt.NDArray[np.float64]]:
    turns = list(itertools.permutations(range(3)))
    signs = list(itertools.product((1, -1), repeat=3))
    return [np.eye(3)[:, turn] * sign for turn, sign in zip(turns, signs[1:], strict=False)]


def assert_same_grid(found: Volume, expected: Volume) -> None:
    assert found.size_voxels == expected.size_voxels
    assert found.spacing_mm == expected.spacing_mm
    assert found.origin_mm == expected.origin_mm
    np.testing.assert_array_equal(found.direction, expected.direction)


@pytest.mark.parametrize("direction", directions())
def test_the_mask_lies_on_the_grid_of_the_file_whatever_its_axes(
    direction: npt.NDArray[np.float64], make_segmenter: MakeSegmenter
) -> None:
    volume = scan(intensities(9, 6, 7), direction)
    found = segment(make_segmenter(), [volume])
    expected = volume.array.round()
    assert found.mask.array.dtype == np.uint8
    np.testing.assert_array_equal(found.mask.array, expected)
    assert_same_grid(found.mask, volume)
    voxel_ml = 2.0 * 0.5 * 1.5 / 1000
    assert found.volumes_ml == pytest.approx(
        {"liver": (expected == 1).sum() * voxel_ml, "tumour": (expected == 2).sum() * voxel_ml}
    )
    np.testing.assert_array_equal(found.structures.structure(1), expected == 2)
    assert found.probabilities == ()


def test_the_network_sees_the_canonical_orientation(make_segmenter: MakeSegmenter) -> None:
    class FirstSlices(nn.Module):
        """Find what lies towards the feet: the window's first two slices."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, volumes: Tensor) -> Tensor:
            logits = torch.zeros(len(volumes), 3, *volumes.shape[2:])
            logits[:, 1, :2] = 9
            return logits

    array = np.zeros((6, 5, 4), np.float32)
    # The width of the file grows from head to foot.
    direction = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]).astype(np.float64)
    settings = {"network": FirstSlices(), "window_voxels": (4, 5, 6)}
    found = segment(make_segmenter(**settings), [scan(array, direction)])
    assert found.mask.array[:, :, 2:].all()
    assert not found.mask.array[:, :, :2].any()
    stored = Preprocessing(orientation="stored")
    settings = {"network": FirstSlices(), "window_voxels": (6, 5, 4)}
    found = segment(make_segmenter(preprocessing=stored, **settings), [scan(array, direction)])
    assert found.mask.array[:2].all()
    assert not found.mask.array[2:].any()


@pytest.mark.parametrize("direction", directions()[:3])
def test_a_resampled_case_is_decided_on_its_own_grid(
    direction: npt.NDArray[np.float64], make_segmenter: MakeSegmenter
) -> None:
    volume = scan(intensities(9, 16, 7), direction)
    contract = Preprocessing(orientation="stored", spacing_mm=(1.0, 1.0, 1.0))
    model = make_segmenter(preprocessing=contract)
    found = segment(model, [volume], probabilities=True)
    seen = resample(volume, (1.0, 1.0, 1.0))
    logits = model.networks[0](torch.from_numpy(seen.array)[None, None])[0]
    expected = np.stack(
        [
            resample_like(replace(seen, array=part), like=volume).array
            for part in logits.softmax(0).numpy()
        ]
    )
    assert_same_grid(found.mask, volume)
    np.testing.assert_allclose(np.stack(found.probabilities), expected, atol=1e-3)
    surest = np.sort(expected, axis=0)
    sure = surest[-1] - surest[-2] > 1e-3
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(found.mask.array[sure], expected.argmax(0)[sure])


def test_resampling_and_turning_go_together(make_segmenter: MakeSegmenter) -> None:
    # A coarse pattern of blocks survives resampling, but for the voxels at its edges.
    numbers = np.random.default_rng(1).integers(0, 3, (3, 3, 3))
    array = numbers.repeat(8, 0).repeat(8, 1).repeat(8, 2).astype(np.float32)
    direction = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]]).astype(np.float64)
    volume = scan(array, direction)
    contract = Preprocessing(spacing_mm=(1.0, 1.0, 1.0))
    found = segment(make_segmenter(preprocessing=contract), [volume])
    assert_same_grid(found.mask, volume)
    inner = np.ix_(*[[i for i in range(24) if 2 <= i % 8 < 6]] * 3)
    np.testing.assert_array_equal(found.mask.array[inner], array[inner])


def test_channels_are_fed_in_their_order(make_segmenter: MakeSegmenter) -> None:
    class SecondLessFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, volumes: Tensor) -> Tensor:
            difference = volumes[:, 1:] - volumes[:, :1]
            return torch.cat([torch.zeros_like(difference), difference, -9 + 0 * difference], 1)

    model = make_segmenter(channel_names=("T1", "T2"), network=SecondLessFirst())
    first, second = intensities(4, 4, 4), intensities(4, 4, 4)[::-1].copy()
    found = segment(model, [scan(first), scan(second)])
    np.testing.assert_array_equal(found.mask.array, second > first)
    with pytest.raises(DataError, match=r"case 7 has 1 channel"):
        segment(model, [scan(first)], name="case 7")


def test_regions_are_painted_over_each_other_but_counted_in_full(
    make_segmenter: MakeSegmenter,
) -> None:
    volume = scan(intensities(6, 6, 6, high=3.4))
    found = segment(make_segmenter(REGIONS), [volume])
    expected = volume.array.round()
    values = np.array([0, 1, 2, 4])[expected.astype(int)]
    np.testing.assert_array_equal(found.mask.array, values)
    voxel_ml = 2.0 * 0.5 * 1.5 / 1000
    for number, name in enumerate(("whole tumour", "tumour core", "enhancing tumour")):
        inside = expected >= number + 1
        assert found.volumes_ml[name] == pytest.approx(inside.sum() * voxel_ml)
        np.testing.assert_array_equal(found.structures.structure(number), inside)


def test_more_regions_than_bits_in_a_byte(make_segmenter: MakeSegmenter) -> None:
    names = tuple(f"region {number}" for number in range(1, 12))
    labels = LabelScheme(
        names=("background", *names),
        values=tuple(range(12)),
        regions=tuple(
            Region(name=f"from {n}", members=tuple(range(n, 12)), value=n) for n in range(1, 12)
        ),
    )
    volume = scan(intensities(4, 5, 6, high=11.4))
    found = segment(make_segmenter(labels), [volume])
    np.testing.assert_array_equal(found.mask.array, volume.array.round())
    np.testing.assert_array_equal(found.structures.structure(9), volume.array.round() >= 10)


def test_large_values_are_not_cut(make_segmenter: MakeSegmenter) -> None:
    labels = LabelScheme(names=("background", "liver", "tumour"), values=(0, 7, 1000))
    volume = scan(intensities(4, 4, 4))
    found = segment(make_segmenter(labels), [volume])
    assert found.mask.array.dtype == np.uint16
    expected = np.array([0, 7, 1000])[volume.array.round().astype(int)]
    np.testing.assert_array_equal(found.mask.array, expected)


def pieces(number: float) -> npt.NDArray[np.float32]:
    """A larger and a smaller piece of one intensity."""
    array = np.zeros((4, 4, 8), np.float32)
    array[:, :, :3] = number
    array[0, 0, 5:7] = number
    return array


def test_only_the_largest_piece_of_each_structure_stays(make_segmenter: MakeSegmenter) -> None:
    array = pieces(1)
    array[3, 3, 5] = array[3, 3, 7] = array[2, 3, 7] = 2
    options = SegmentOptions(largest_component=True)
    found = segment(make_segmenter(), [scan(array)], options=options)
    expected = array.copy()
    expected[0, 0, 5:7] = 0
    expected[3, 3, 5] = 0
    np.testing.assert_array_equal(found.mask.array, expected)
    assert found.volumes_ml["tumour"] == pytest.approx(2 * 1.5 / 1000)


def test_the_largest_piece_of_a_region_is_found_before_it_is_painted_over(
    make_segmenter: MakeSegmenter,
) -> None:
    array = pieces(1)
    # The core is the larger part of the larger piece, which would fall apart without it.
    array[:, :, :2] = 3
    options = SegmentOptions(largest_component=True)
    found = segment(make_segmenter(REGIONS), [scan(array)], options=options)
    expected = np.where(array == 3, 4, array)
    expected[0, 0, 5:7] = 0
    np.testing.assert_array_equal(found.mask.array, expected)


def test_probabilities_are_those_of_the_network(
    make_segmenter: MakeSegmenter, tmp_path: Path
) -> None:
    model = make_segmenter()
    volume = scan(intensities(5, 6, 7), directions()[2])
    found = segment(model, [volume], probabilities=True, scratch=tmp_path)
    logits = model.networks[0](torch.from_numpy(volume.array)[None, None])[0]
    np.testing.assert_allclose(np.stack(found.probabilities), logits.softmax(0), atol=1e-3)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_for_probabilities_is_told_beforehand(
    make_segmenter: MakeSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    volume = scan(intensities(5, 6, 7))
    windows: list[int] = []
    model = make_segmenter()
    segment(model, [volume], scratch=tmp_path)
    with pytest.raises(DataError, match=r"GB.*--scratch"):
        segment(
            model,
            [volume],
            probabilities=True,
            scratch=tmp_path,
            on_window=lambda done, _: windows.append(done),
        )
    assert windows == []


def test_mirroring_follows_the_training(make_segmenter: MakeSegmenter) -> None:
    volume, options = scan(intensities(4, 4, 4)), SegmentOptions(mirror=True)
    seen: list[Tensor] = []
    model = make_segmenter(mirror_axes=(1, 2))
    model.networks[0].register_forward_hook(lambda _, volumes, __: seen.append(volumes[0]))
    segment(model, [volume], options=options)
    assert len(seen) == 4
    with pytest.raises(ConfigError, match=r"without flipping.*--mirror"):
        segment(make_segmenter(), [volume], options=options)


def test_windows_step_as_in_the_run_unless_an_overlap_is_asked_for(
    make_segmenter: MakeSegmenter,
) -> None:
    model = make_segmenter(window_voxels=(4, 6, 8), window_steps=(3, 2, 8))
    assert window_settings(model, SegmentOptions()).steps == (3, 2, 8)
    assert window_settings(model, SegmentOptions(overlap=0.25)).steps == (3, 4, 6)
    plain = make_segmenter(window_voxels=(4, 6, 8))
    assert window_settings(plain, SegmentOptions()).steps == (2, 3, 4)
    windows: list[int] = []
    segment(model, [scan(intensities(10, 6, 9))], on_window=lambda _, total: windows.append(total))
    assert windows == [3 * 1 * 2] * 6


def test_a_mask_made_in_the_scans_own_pixels_lies_on_its_grid(
    make_segmenter: MakeSegmenter,
) -> None:
    """Only the slices are resampled, as the paper does for the liver."""
    contract = Preprocessing(spacing_mm=(1.0, 0.0, 0.0))
    volume = scan(np.repeat(intensities(1, 6, 7), 5, axis=0))
    found = segment(make_segmenter(preprocessing=contract), [volume])
    np.testing.assert_array_equal(found.mask.array, volume.array.round())
    assert_same_grid(found.mask, volume)


def test_a_classifier_is_refused(make_model: Callable[..., SavedModel]) -> None:
    with pytest.raises(ConfigError, match=r"trained to classify"):
        segment(make_model(), [scan(intensities(4, 4, 4))])


def test_eight_bit_values_for_hounsfield_units_are_warned_about(
    make_segmenter: MakeSegmenter,
) -> None:
    contract = Preprocessing(unit="HU", intensity="window", window=(-100, 100))
    grey = scan(np.arange(64, dtype=np.uint8).reshape(4, 4, 4))
    with pytest.warns(PreprocessingWarning, match=r"case 3.*Hounsfield"):
        segment(make_segmenter(preprocessing=contract), [grey], name="case 3")


def test_padding_about_a_small_case_is_its_lowest_value(make_segmenter: MakeSegmenter) -> None:
    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, volumes: Tensor) -> Tensor:
            seen.append(volumes)
            return torch.zeros(1, 3, *volumes.shape[2:])

    seen: list[Tensor] = []
    contract = Preprocessing(unit="HU", intensity="window", window=(-100, 100), mean=0.5, std=0.2)
    hu = scan(np.full((2, 4, 4), 300, dtype=np.int16))
    segment(make_segmenter(preprocessing=contract, network=Spy()), [hu])
    torch.testing.assert_close(seen[0][0, 0, 0], torch.full((4, 4), -2.5))
    torch.testing.assert_close(seen[0][0, 0, 1], torch.full((4, 4), 2.5))
