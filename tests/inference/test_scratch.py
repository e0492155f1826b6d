import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.inference.scratch import check_scratch, scratch_array


def test_an_array_lies_in_a_file_that_has_no_name(tmp_path: Path) -> None:
    array = scratch_array((3, 4, 5), np.dtype(np.float16), folder=tmp_path)
    assert isinstance(array, np.memmap)
    assert array.shape == (3, 4, 5)
    assert not array.any()
    array[1] = 0.5
    assert array.sum() == 10
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_size_place_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match=r"2\.0 GB in .*--scratch .*TMPDIR.*No space left"):
        scratch_array((1000, 1000, 1000), np.dtype(np.float16), folder=tmp_path)


def test_too_little_room_is_told_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    check_scratch(10**9, folder=tmp_path)
    check_scratch(0, folder=tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"need 1\.1 GB in {tmp_path}, where 1\.0 GB are free"):
        check_scratch(11 * 10**8, folder=tmp_path)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*is not there.*--scratch"):
        check_scratch(10, folder=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"nowhere.*No such file"):
        scratch_array((1,), np.dtype(np.float32), folder=tmp_path / "nowhere")


def test_the_folder_of_the_system_is_taken_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(DataError, match=str(tmp_path)):
        check_scratch(1, folder=None)
