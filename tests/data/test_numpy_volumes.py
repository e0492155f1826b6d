"""Volumes in NumPy files: which array is meant, what is missing, what lies."""

import io
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.volumes import read_channels, read_volume


def test_npy_has_unit_spacing_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "cube.npy", np.arange(24, dtype=">i2").reshape(2, 3, 4))
    with caplog.at_level(logging.INFO):
        volume = read_volume(tmp_path / "cube.npy")
    assert volume.array.dtype == np.int16
    assert volume.array.dtype.isnative
    assert volume.array[1, 2, 3] == 23
    assert volume.spacing_mm == (1.0, 1.0, 1.0)
    assert "cube.npy states no geometry" in caplog.text


@pytest.mark.parametrize("shape", [(3, 4), (2, 2, 3, 4), (2, 2, 2, 3, 4), (0, 2, 3)])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_numpy_of_other_dimensions_is_refused(
    tmp_path: Path, shape: tuple[int, ...], suffix: str
) -> None:
    path = tmp_path / f"other{suffix}"
    if suffix == ".npy":
        np.save(path, np.zeros(shape))
    else:
        np.savez(path, np.zeros(shape))
    with pytest.raises(DataError, match=f"other{suffix}.*(three dimensions|nothing to read)"):
        read_volume(path)


def test_npz_takes_the_named_array_else_the_only_solid_one(tmp_path: Path) -> None:
    cube = np.ones((2, 3, 4), np.uint8)
    np.savez(tmp_path / "lidc.npz", voxel=cube, answer1=0 * cube)
    assert read_volume(tmp_path / "lidc.npz").array.min() == 1
    np.savez(tmp_path / "one.npz", scan=cube, name=np.array([1, 2]))
    assert read_volume(tmp_path / "one.npz").size_voxels == (2, 3, 4)
    np.savez(tmp_path / "two.npz", first=cube, second=cube)
    with pytest.raises(DataError, match=r"two.npz: which array .*first \(2, 3, 4\), second"):
        read_volume(tmp_path / "two.npz")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickles_are_never_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pickle{suffix}"
    objects = np.array([{"a": 1}], dtype=object)
    if suffix == ".npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, volume=objects)
    with pytest.raises(DataError, match=r"plain array.*(?i:object)"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_numpy_header_that_claims_too_much_is_refused(tmp_path: Path, suffix: str) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i2", "fortran_order": False, "shape": (60000, 60000, 60000)}
    )
    path = tmp_path / f"huge{suffix}"
    if suffix == ".npy":
        path.write_bytes(header.getvalue() + b"0" * 100)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("volume.npy", header.getvalue() + b"0" * 100)
    with pytest.raises(DataError, match=f"huge{suffix}"):
        read_volume(path)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_npz_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "scan.npz"
    np.savez_compressed(path, volume=np.random.default_rng(0).random((8, 8, 8)))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[1000] ^= 0xFF
    path.write_bytes(data if damage == "flip" else data[:1000])
    with pytest.raises(DataError, match=r"scan\.npz"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_four_dimensions_are_channels(tmp_path: Path, suffix: str) -> None:
    array = np.arange(2 * 3 * 4 * 5, dtype=">i2").reshape(2, 3, 4, 5)
    path = tmp_path / f"two{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        np.savez(path, image=array, answer=array[0], spacing_mm=np.array([3.0, 2, 1]))
    channels = read_channels(path)
    assert [one.array.tolist() for one in channels] == array.tolist()
    assert {one.spacing_mm for one in channels} == {
        (1.0, 1.0, 1.0) if suffix == ".npy" else (3.0, 2.0, 1.0)
    }
    with pytest.raises(DataError, match=f"two{suffix}: .*2 channels.*read_channels"):
        read_volume(path)


def test_npz_without_a_solid_array_takes_the_only_one_of_channels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scans=np.zeros((2, 3, 4, 5)), names=np.zeros(2))
    assert len(read_channels(tmp_path / "a.npz")) == 2


def test_one_channel_is_a_volume(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((1, 3, 4, 5)))
    assert read_volume(tmp_path / "one.npy").size_voxels == (3, 4, 5)


def test_npz_with_impossible_geometry_is_refused(tmp_path: Path) -> None:
    cube = np.zeros((3, 4, 5))
    for spacing in ([0.0, 1, 1], [np.nan, 1, 1], [-1.0, 1, 1], [1.0, 1]):
        np.savez(tmp_path / "flat.npz", volume=cube, spacing_mm=np.array(spacing))
        with pytest.raises(DataError, match=r"flat\.npz: spacing_mm .*positive"):
            read_volume(tmp_path / "flat.npz")
