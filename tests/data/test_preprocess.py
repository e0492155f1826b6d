"""The preprocessing contract, applied: numbers against plain NumPy, and every breach of it."""

import warnings
from typing import Any, Literal

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.preprocess import PreprocessingWarning, crop_or_pad, preprocess
from voxlift.data.volume import Volume

CT = np.random.default_rng(0).uniform(-1000, 400, (4, 6, 8))


def test_without_steps_the_numbers_stay() -> None:
    made = preprocess(CT, Preprocessing())
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, CT[None].astype(np.float32))


def test_window_mean_and_std() -> None:
    preprocessing = Preprocessing(
        intensity="window", window=(-900, 300), unit="HU", mean=0.4, std=0.2
    )
    expected = (np.clip((CT + 900) / 1200, 0, 1) - 0.4) / 0.2
    np.testing.assert_allclose(preprocess(CT, preprocessing)[0], expected, atol=1e-5)


def test_percentiles_are_those_of_the_volume() -> None:
    preprocessing = Preprocessing(intensity="percentiles", percentiles=(5, 95))
    low, high = np.percentile(CT, [5, 95])
    expected = np.clip((CT - low) / (high - low), 0, 1)
    np.testing.assert_allclose(preprocess(CT, preprocessing)[0], expected, atol=1e-5)
    blank = preprocess(np.full((2, 2, 2), 7.0), preprocessing)
    np.testing.assert_array_equal(blank, 0.0)


def test_crops_and_pads_about_the_centre() -> None:
    array = np.arange(2 * 5 * 4, dtype=np.float32).reshape(1, 2, 5, 4)
    made = crop_or_pad(array, (4, 3, 4), fill=-1.0)
    assert made.shape == (1, 4, 3, 4)
    np.testing.assert_array_equal(made[:, 1:3], array[:, :, 1:4])
    np.testing.assert_array_equal(made[:, [0, 3]], -1)
    # What cannot be even has the extra voxel behind.
    odd = crop_or_pad(array, (3, 5, 3), fill=-1.0)
    np.testing.assert_array_equal(odd[:, :2], array[..., :3])
    np.testing.assert_array_equal(odd[:, 2], -1)


def test_padding_has_the_lowest_value() -> None:
    size = (6, 6, 8)
    plain = preprocess(CT, Preprocessing(size_voxels=size))
    assert plain[0, 0].min() == plain[0, 0].max() == np.float32(CT.min())
    window = Preprocessing(
        intensity="window", window=(-2000, 400), unit="HU", mean=0.5, std=0.5, size_voxels=size
    )
    np.testing.assert_array_equal(preprocess(CT, window)[0, 0], -1.0)


def test_a_margin_is_kept_on_every_side() -> None:
    preprocessing = Preprocessing(size_voxels=(2, 2, 2))
    wide = preprocess(CT, preprocessing, margin_voxels=1)
    assert wide.shape == (1, 4, 4, 4)
    np.testing.assert_array_equal(wide[:, 1:3, 1:3, 1:3], preprocess(CT, preprocessing))
    assert preprocess(CT, Preprocessing(), margin_voxels=1).shape == (1, 6, 8, 10)


def test_resamples_to_the_spacing() -> None:
    ramp = np.broadcast_to(np.arange(10.0)[:, None, None], (10, 4, 4))
    volume = Volume(np.ascontiguousarray(ramp), spacing_mm=(2.0, 1.0, 1.0))
    made = preprocess(volume, Preprocessing(spacing_mm=(1.0, 1.0, 2.0)))
    assert made.shape == (1, 20, 4, 2)
    # Twice as fine: a quarter voxel to either side of each old centre.
    np.testing.assert_allclose(made[0, 1:-1, 0, 0], np.arange(0.25, 9, 0.5), atol=1e-6)


def test_an_axis_of_0_mm_is_not_resampled() -> None:
    volume = Volume(np.random.default_rng(0).normal(size=(6, 4, 5)), spacing_mm=(2.0, 0.7, 0.9))
    made = preprocess(volume, Preprocessing(spacing_mm=(1.0, 0.0, 0.0)))
    assert made.shape == (1, 12, 4, 5)
    stored = preprocess(volume, Preprocessing(spacing_mm=(0.0, 0.0, 0.0)))
    np.testing.assert_array_equal(stored, preprocess(volume, Preprocessing()))


def test_turns_to_the_canonical_orientation_unless_asked_not_to() -> None:
    # A file whose depth axis runs from head to foot.
    volume = Volume(CT, direction=np.diag([1.0, 1.0, -1.0]))
    turned = preprocess(volume, Preprocessing())
    np.testing.assert_array_equal(turned[0], CT[::-1].astype(np.float32))
    stored = preprocess(volume, Preprocessing(orientation="stored"))
    np.testing.assert_array_equal(stored[0], CT.astype(np.float32))


def test_the_volume_itself_is_not_changed() -> None:
    array = CT.astype(np.float32)
    before = array.copy()
    made = preprocess(Volume(array), Preprocessing(mean=1.0))
    made += 1
    np.testing.assert_array_equal(array, before)


def with_value(value: float) -> Any:
    array = CT.copy()
    array[1, 2, 3] = value
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (CT[0], r"scan has 2 dimension\(s\), of size \(6, 8\).*whole volume"),
        (CT[None], r"scan has 4 dimension\(s\).*one channel"),
        (CT[None, None], "5 dimension"),
        (with_value(np.nan), "scan holds NaN or Inf in 1 of 192 voxels.*Replace"),
        (with_value(-np.inf), "NaN or Inf"),
        (with_value(1e300), "NaN or Inf"),
        (CT[:0], "empty"),
        (CT.astype(complex), "complex128; expected real numbers"),
        (np.full((2, 2, 2), "x"), "expected real numbers"),
    ],
)
def test_breaches_of_the_contract_are_errors(array: Any, message: str) -> None:
    units: tuple[Literal["raw", "HU", "0-255"], ...] = ("raw", "HU", "0-255")
    for unit in units:
        with pytest.raises(DataError, match=message):
            preprocess(array, Preprocessing(unit=unit), name="scan")


def test_nan_in_a_volume_is_found_before_it_spreads() -> None:
    with pytest.raises(DataError, match="in 1 of 192 voxels"):
        preprocess(Volume(with_value(np.nan)), Preprocessing(spacing_mm=(0.5, 0.5, 0.5)))


def test_wrong_channel_count() -> None:
    two = Preprocessing(in_channels=2)
    assert preprocess(np.stack([CT, CT]), two).shape == (2, 4, 6, 8)
    with pytest.raises(DataError, match=r"\(3, 4, 6, 8\); expected \(2, depth.*2 channels"):
        preprocess(np.stack([CT] * 3), two)
    with pytest.raises(DataError, match="stack them in front"):
        preprocess(Volume(CT), two)


def test_an_array_without_voxel_size_cannot_be_resampled() -> None:
    with pytest.raises(DataError, match="without a voxel size"):
        preprocess(CT, Preprocessing(spacing_mm=(1, 1, 1)))


@pytest.mark.parametrize(
    "array",
    [
        np.full((3, 3, 3), 200, np.uint8),
        np.linspace(0, 255, 27).reshape(3, 3, 3),
        np.linspace(0, 1, 27).reshape(3, 3, 3),
    ],
    ids=["uint8", "8-bit as float", "scaled to 1"],
)
def test_eight_bit_values_where_hu_were_trained_on_warn_loudly(array: Any) -> None:
    preprocessing = Preprocessing(intensity="window", window=(-1000, 400), unit="HU")
    with pytest.warns(PreprocessingWarning, match="scan holds values.*Hounsfield.*wrong"):
        preprocess(array, preprocessing, name="scan")


def test_hu_where_eight_bit_values_were_trained_on_warn_loudly() -> None:
    with pytest.warns(PreprocessingWarning, match="8-bit values from 0 to 255"):
        preprocess(CT, Preprocessing(unit="0-255"))


def test_the_right_unit_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess(CT, Preprocessing(unit="HU"))
        preprocess(np.full((2, 2, 2), 255, np.uint8), Preprocessing(unit="0-255"))
        preprocess(CT, Preprocessing(unit="raw"))
