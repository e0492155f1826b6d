"""Arrays out of .npz files that may lie, be cut off or hold pickles."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.medmnist import read_medmnist
from voxlift.data.npz import npz_names, read_npz
from voxlift.data.volumes import read_volume


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


BROKEN_HEADERS = (
    b"{'descr': '<i2', 'fortran_order': False, 'shape': (3, (",
    b"1" * 99 + b"a b c",
    b"{[}",
    b"{None}",
)


@pytest.mark.parametrize("header", BROKEN_HEADERS)
def test_headers_that_are_no_python_are_refused(tmp_path: Path, header: bytes) -> None:
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(60)
    (tmp_path / "scan.npy").write_bytes(array)
    for name in ("scan.npz", "set.npz"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("train_images.npy" if name == "set.npz" else "volume.npy", array)
            archive.writestr("train_labels.npy", array)
    for read, name in ((read_volume, "scan.npy"), (read_volume, "scan.npz")):
        with pytest.raises(DataError, match=name):
            read(tmp_path / name)
    with pytest.raises(DataError, match=r"set\.npz"):
        read_medmnist(tmp_path / "set.npz")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, a=np.arange(3))
    data = bytearray(path.read_bytes())
    for at in (6, data.index(b"PK\x01\x02") + 8):
        data[at] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"some\.npz could not be read.*encrypted"):
        read_npz(path, ["a"])


def test_a_size_that_compression_cannot_reach_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<i2", "fortran_order": False, "shape": (2**33,)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", stream.getvalue())
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="claims 17179869184 bytes"):
        read_npz(path, ["a"])
