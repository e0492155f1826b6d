import numpy as np
import pytest

from voxlift.core.preprocessing import Preprocessing
from voxlift.data.intensity import find_scale

CHANNEL = np.random.default_rng(0).normal(-300, 400, (9, 10, 11))
PART = CHANNEL[2:5, :4]


def test_a_window_is_clipped_and_scaled() -> None:
    preprocessing = Preprocessing(
        intensity="window", window=(-200, 300), unit="HU", mean=0.4, std=0.25
    )
    scale = find_scale(CHANNEL, preprocessing)
    expected = ((PART + 200) / 500).clip(0, 1)
    np.testing.assert_allclose(scale.apply(PART), (expected - 0.4) / 0.25, atol=1e-6)
    assert scale.lowest == pytest.approx(-0.4 / 0.25)


def test_percentiles_are_of_the_whole_channel() -> None:
    preprocessing = Preprocessing(intensity="percentiles", percentiles=(1, 99))
    scale = find_scale(CHANNEL, preprocessing)
    low, high = np.percentile(CHANNEL, (1, 99))
    expected = ((PART - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(scale.apply(PART), expected, atol=1e-6)
    assert scale.lowest == 0


def test_zscore_takes_mean_and_deviation_and_clips_nothing() -> None:
    scale = find_scale(CHANNEL, Preprocessing(intensity="zscore"))
    scaled = scale.apply(CHANNEL)
    np.testing.assert_allclose(scaled, (CHANNEL - CHANNEL.mean()) / CHANNEL.std(), atol=1e-5)
    assert scale.lowest == pytest.approx(scaled.min(), abs=1e-6)


def test_numbers_are_taken_as_they_are() -> None:
    scale = find_scale(CHANNEL, Preprocessing(mean=10, std=2))
    np.testing.assert_allclose(scale.apply(PART), (PART - 10) / 2, rtol=1e-5)
    assert scale.lowest == pytest.approx((CHANNEL.min() - 10) / 2)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64, np.bool_])
def test_any_type_of_number_becomes_32_bit_floats(dtype: type) -> None:
    array: np.ndarray = np.zeros((2, 2, 2), dtype)
    array[0] = 1
    for preprocessing in (Preprocessing(intensity="zscore"), Preprocessing()):
        scaled = find_scale(array, preprocessing).apply(array)
        assert scaled.dtype == np.float32
        assert scaled[0, 0, 0] == 1
    assert array[0].all()


@pytest.mark.parametrize("intensity", ["percentiles", "zscore"])
def test_a_channel_of_one_value_becomes_zero(intensity: str) -> None:
    percentiles = (1, 99) if intensity == "percentiles" else None
    preprocessing = Preprocessing.model_validate(
        {"intensity": intensity, "percentiles": percentiles, "mean": 0.5, "std": 0.5}
    )
    array = np.full((3, 3, 3), 7)
    assert (find_scale(array, preprocessing).apply(array) == -1).all()


def test_large_channels_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxlift.data.intensity._MOST_SAMPLED", 200)
    preprocessing = Preprocessing(intensity="percentiles", percentiles=(10, 90))
    scale = find_scale(CHANNEL, preprocessing)
    low, high = np.percentile(CHANNEL[::2, ::2, ::2], (10, 90))
    assert (scale.low, scale.high) == pytest.approx((low, high))
