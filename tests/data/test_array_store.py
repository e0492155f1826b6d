import gc
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from torch.utils.data import DataLoader, Dataset

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.array_store import ArrayStore


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def make_arrays() -> list[npt.NDArray[Any]]:
    generator = np.random.default_rng(0)
    return [
        generator.normal(size=(2, 3, 4, 5)).astype(np.float32),
        generator.integers(0, 4, (3, 5, 7)).astype(np.uint8),
        np.asfortranarray(generator.normal(size=(4, 6))),
        generator.normal(size=(6, 7, 8))[::2, 1:, ::-1],
        np.array(True),
    ]


@pytest.mark.parametrize(
    ("memory_gb", "num_on_disk"), [(1.0, 0), (0.0, 5), (600e-9, 2)], ids=["memory", "disk", "both"]
)
def test_arrays_come_back_as_they_were(memory_gb: float, num_on_disk: int) -> None:
    store = ArrayStore(memory_gb)
    arrays = make_arrays()
    assert [store.add(array) for array in arrays] == list(range(5))
    assert len(store) == 5
    assert store.num_on_disk == num_on_disk
    for number, array in enumerate(arrays):
        kept = store.read(number)
        assert kept.dtype == array.dtype
        np.testing.assert_array_equal(kept, array)


def test_what_is_kept_is_a_copy() -> None:
    store = ArrayStore(1.0)
    array = np.zeros((3, 3))
    number = store.add(array)
    array[:] = 7
    assert not store.read(number).any()


def test_many_small_arrays_share_a_few_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxlift.data.array_store._CHUNK_BYTES", 1000)
    store = ArrayStore(1.0)
    arrays = [np.full(n, n % 251, np.uint8) for n in (1, 900, 50, 60, 3000, 17, 5)]
    for array in arrays:
        store.add(array)
    assert [len(chunk) for chunk in store._chunks] == [1000, 1000, 3008, 1000]
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(store.read(number), array)


def test_files_are_gone_with_the_store(tmp_path: Path) -> None:
    store = ArrayStore(0.0)
    for array in make_arrays():
        store.add(array)
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 5
    del store
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_made_where_memory_is_enough(tmp_path: Path) -> None:
    ArrayStore(1.0).add(np.zeros(9))
    assert list(tmp_path.iterdir()) == []


class _Sums(Dataset[float]):
    def __init__(self, store: ArrayStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, number: int) -> float:
        return float(self.store.read(number).sum())


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_workers_read_it_and_leave_its_files_alone(memory_gb: float) -> None:
    store = ArrayStore(memory_gb)
    arrays = make_arrays()
    for array in arrays:
        store.add(array)
    for _ in range(2):
        loaded = DataLoader(_Sums(store), batch_size=None, num_workers=1)
        assert [float(s) for s in loaded] == pytest.approx([float(a.sum()) for a in arrays])


def test_a_copy_sent_to_a_process_leaves_the_files_alone(tmp_path: Path) -> None:
    """As where workers are spawned instead of forked."""
    store = ArrayStore(0.0)
    store.add(np.arange(5))
    sent = pickle.loads(pickle.dumps(store))
    assert sent.read(0).tolist() == [0, 1, 2, 3, 4]
    del sent
    assert store.read(0).tolist() == [0, 1, 2, 3, 4]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(path: Path, array: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    store = ArrayStore(0.0)
    store.add(np.zeros(3))
    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(DataError, match=r"No space left on device.*TMPDIR.*--cache-gb") as caught:
        store.add(np.zeros(3))
    assert str(tmp_path) in str(caught.value)
    # It is as it was, and cleans up after itself.
    assert len(store) == 1
    assert store.read(0).tolist() == [0, 0, 0]
    del store, caught
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(DataError, match=r"cannot be written to /proc/nowhere"):
        ArrayStore(0.0).add(np.zeros(3))


def test_negative_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cache_gb is -1.*0 or more"):
        ArrayStore(-1)
