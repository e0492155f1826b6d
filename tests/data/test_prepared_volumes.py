from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.prepared_volumes import PreparedVolumes
from voxlift.data.preprocess import PreprocessingWarning, preprocess
from voxlift.data.readable_volumes import VolumeFile, VolumeFiles

RAW = Preprocessing(intensity="zscore")


def make_cases(*sizes: int) -> ClassificationCases:
    generator = np.random.default_rng(0)
    arrays = [generator.normal(size=(size, 4, 5)).astype(np.float32) for size in sizes]
    return ClassificationCases.from_arrays(arrays, np.arange(len(sizes)) % 2)


@pytest.mark.parametrize("cache_gb", [1.0, 5e-7, 0.0])
def test_volumes_come_in_their_order_in_every_pass(cache_gb: float) -> None:
    cases = make_cases(*[3] * 7)
    indices = np.array([6, 0, 3, 2, 5])
    volumes = PreparedVolumes(cases, indices, preprocessing=RAW, cache_gb=cache_gb)
    assert len(volumes) == 5
    for batch_size in (1, 2, 3, 9):
        batches = [batch.numpy() for batch in volumes.batches(batch_size)]
        assert max(map(len, batches)) <= batch_size
        assert max(map(len, batches)) - min(map(len, batches)) <= 1
        expected = [preprocess(cases.read_volume(int(i)), RAW) for i in indices]
        np.testing.assert_array_equal(np.concatenate(batches), np.stack(expected))


def test_sizes_are_not_mixed_in_a_batch() -> None:
    volumes = PreparedVolumes(make_cases(3, 3, 6, 3), np.arange(4), preprocessing=RAW)
    assert [tuple(batch.shape[:3]) for batch in volumes.batches(8)] == [
        (2, 1, 3),
        (1, 1, 6),
        (1, 1, 3),
    ]


def test_bad_volumes_are_refused_or_listed(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((4, 4), np.float32))
    np.save(tmp_path / "good.npy", np.ones((4, 4, 4), np.float32))
    names = ("flat.npy", "good.npy", "missing.npy")
    files = VolumeFiles(tuple(VolumeFile(tmp_path / name) for name in names))
    with pytest.raises(DataError, match=r"flat\.npy"):
        PreparedVolumes(files, np.arange(3), preprocessing=RAW)
    volumes = PreparedVolumes(files, np.arange(3), preprocessing=RAW, skip_bad=True)
    assert volumes.indices.tolist() == [1]
    assert set(volumes.failures) == {str(tmp_path / name) for name in ("flat.npy", "missing.npy")}
    with pytest.raises(DataError, match="none of the 1 volumes can be used"):
        PreparedVolumes(files, np.array([0]), preprocessing=RAW, skip_bad=True)


def test_odd_numbers_are_warned_of_once() -> None:
    hounsfield = Preprocessing(intensity="window", window=(-1000, 400), unit="HU")
    arrays = np.full((3, 4, 4, 4), 100, np.float32)
    arrays[:, 0] = 0
    cases = ClassificationCases.from_arrays(arrays, [0, 1, 1])
    with pytest.warns(PreprocessingWarning, match="Hounsfield") as caught:
        PreparedVolumes(cases, np.arange(3), preprocessing=hounsfield)
    assert len(caught) == 1


def test_memory_cannot_be_negative() -> None:
    with pytest.raises(ConfigError, match="cache_gb is -1"):
        PreparedVolumes(make_cases(3, 3), np.arange(2), preprocessing=RAW, cache_gb=-1)
