"""Arrays out of .npz files that may lie, be cut off or hold pickles."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.npz import npz_names, read_npz


def test_reads_only_what_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez_compressed(path, a=np.arange(6).reshape(2, 3), b=np.array([None], dtype=object))
    assert npz_names(path) == ("a", "b")
    read = read_npz(path, ["a"])
    assert list(read) == ["a"]
    np.testing.assert_array_equal(read["a"], [[0, 1, 2], [3, 4, 5]])


def test_big_endian_becomes_native(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", a=np.array([1, 2], dtype=">i4"))
    assert read_npz(tmp_path / "some.npz", ["a"])["a"].dtype == np.dtype("i4")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, a=np.array([None], dtype=object))
    with pytest.raises(DataError, match=r"plain arrays.*--skip-bad"):
        read_npz(path, ["a"])


@pytest.mark.parametrize("kept", [0, 10, 200, 900])
def test_cut_off_files(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "some.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).random(200))
    assert path.stat().st_size > 900
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"some\.npz could not be read"):
        npz_names(path)


def test_a_wrong_check_sum_is_found(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, a=np.zeros(1000))
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="could not be read"):
        read_npz(path, ["a"])


def test_a_claim_of_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    path = tmp_path / "some.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(DataError, match="claims 8000000000000 bytes"):
        read_npz(path, ["a"])


def test_missing_file_and_missing_array(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz could not be read"):
        npz_names(tmp_path / "gone.npz")
    np.savez(tmp_path / "some.npz", a=np.zeros(1))
    with pytest.raises(DataError, match="no array b; it has a"):
        read_npz(tmp_path / "some.npz", ["b"])
