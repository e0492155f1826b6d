import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import IGNORED, LabelScheme
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.prepared_image import prepare_image, to_network_grid
from voxlift.data.preprocess import PreprocessingWarning
from voxlift.data.segmentation_cache import SegmentationCache, find_places
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.data.volume import Volume

LABELS = LabelScheme(names=("background", "a", "b"), values=(0, 3, 7), ignore_value=99)
PREPROCESSING = Preprocessing(spacing_mm=(1.0, 1.0, 1.0), mean=0.5, std=2.0)


def make_cases(count: int = 3) -> SegmentationCases:
    generator = np.random.default_rng(0)
    cases = []
    for number in range(count):
        size = (4 + number, 5, 6)
        image = Volume(generator.normal(size=size).astype(np.float32), (2.0, 1.0, 1.0))
        mask = generator.choice([0, 3, 7, 99], size).astype(np.uint8)
        cases.append(
            SegmentationCase(str(number), (image,), replace(image, array=mask), f"g{number}")
        )
    return SegmentationCases(tuple(cases), LABELS, origin="the set")


CASES = make_cases()


@pytest.mark.parametrize("cache_gb", [1.0, 0.0], ids=["memory", "disk"])
def test_cases_are_prepared_once_and_kept(cache_gb: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SegmentationCache(
        CASES, np.array([2, 0, 2]), preprocessing=PREPROCESSING, cache_gb=cache_gb
    )

    def refuse(self: SegmentationCases, index: int) -> None:
        raise AssertionError("read again")

    expected = {}
    for index in (0, 2):
        channels = CASES.read_image(index)
        mask = CASES.read_label(index, like=channels[0])
        expected[index] = (
            prepare_image(channels, PREPROCESSING).read_all(),
            to_network_grid(mask, PREPROCESSING, method="label").array,
        )
    monkeypatch.setattr(SegmentationCases, "read_image", refuse)
    for index, (image, label) in expected.items():
        case = cache.read(index)
        np.testing.assert_array_equal(case.image, image)
        np.testing.assert_array_equal(case.label, label)
        assert case.size_voxels == (2 * (4 + index), 5, 6)
        assert case.lowest == pytest.approx((image.min(),))
        assert set(case.places) == {1, 2}
        for number, places in case.places.items():
            assert (label[tuple(places.T)] == number).all()
            assert len(np.unique(places, axis=0)) == len(places) == (label == number).sum()
    with pytest.raises(KeyError):
        cache.read(1)


def test_what_does_not_fit_is_told_and_goes_to_files(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with caplog.at_level(logging.INFO):
        cache = SegmentationCache(
            CASES, np.arange(3), preprocessing=PREPROCESSING, cache_gb=8 * 30 * 5e-9
        )
    assert "4 of 6 prepared volumes and masks do not fit" in caplog.text
    assert "--cache-gb" in caplog.text
    assert list(tmp_path.iterdir())
    del cache
    assert list(tmp_path.iterdir()) == []


def test_a_case_that_breaks_the_contract_is_named() -> None:
    preprocessing = PREPROCESSING.model_copy(update={"in_channels": 2})
    with pytest.raises(DataError, match=r"the set: case 0 has 1 channel\(s\)"):
        SegmentationCache(CASES, np.arange(3), preprocessing=preprocessing)


def test_numbers_of_another_unit_warn_once() -> None:
    preprocessing = Preprocessing(intensity="window", window=(-100, 100), unit="HU")
    eight_bit = Volume(np.full((4, 5, 6), 9, np.uint8), (2.0, 1.0, 1.0))
    case = replace(CASES.cases[0], images=(eight_bit,))
    cases = replace(CASES, cases=(case, replace(case, id="other")))
    with pytest.warns(PreprocessingWarning, match="not reported") as caught:
        SegmentationCache(cases, np.arange(2), preprocessing=preprocessing)
    assert len(caught) == 1


def test_progress_is_told_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxlift.data.segmentation_cache._SECONDS_BETWEEN_REPORTS", 0.0)
    with caplog.at_level(logging.INFO):
        SegmentationCache(CASES, np.arange(3), preprocessing=PREPROCESSING)
    assert "prepared 2 of 3 cases" in caplog.text


def test_places_of_large_structures_are_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxlift.data.segmentation_cache._MOST_PLACES", 20)
    label = np.zeros((6, 6, 6), np.uint8)
    label[:3] = 1
    label[3, :2] = 2
    label[4] = IGNORED
    places = find_places(label, seed=1)
    assert {number: len(found) for number, found in places.items()} == {1: 20, 2: 12}
    assert (label[tuple(places[1].T)] == 1).all()
    assert len(np.unique(places[1], axis=0)) == 20
    again: dict[int, Any] = find_places(label, seed=1)
    np.testing.assert_array_equal(again[1], places[1])
    assert not np.array_equal(find_places(label, seed=2)[1], places[1])
    assert find_places(np.full((2, 2, 2), IGNORED, np.uint8), seed=0) == {}
