"""MetaImage and NRRD files that are cut, corrupt, or lie about their size."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data.volume_integrity import MAX_VOXELS, check_size
from voxlift.data.volumes import read_volume


def save(path: Path, *, compressed: bool = False) -> bytes:
    array = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(np.int16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path), compressed)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("compressed", [True, False])
def test_cut_data_are_refused(tmp_path: Path, suffix: str, compressed: bool) -> None:
    path = tmp_path / f"scan{suffix}"
    data = save(path, compressed=compressed)
    assert read_volume(path).size_voxels == (6, 7, 8)
    for length in (10, 60, 200, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=f"scan{suffix}"):
            read_volume(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_flipped_bytes_in_compressed_data_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    data = bytearray(save(path, compressed=True))
    data[-40] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"decompressed to its end|end too early"):
        read_volume(path)


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".mha", b"DimSize = 8 7 6", b"DimSize = 60000 60000 60000"),
        (".nrrd", b"sizes: 8 7 6", b"sizes: 60000 60000 60000"),
    ],
)
def test_impossible_sizes_are_refused_before_reading(
    tmp_path: Path, suffix: str, old: bytes, new: bytes
) -> None:
    path = tmp_path / f"huge{suffix}"
    data = save(path)
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(DataError, match="60000 x 60000 x 60000 voxels"):
        read_volume(path)


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        (".mha", b"ElementSpacing = 1 1 1", b"ElementSpacing = 0 1 1"),
        (".mha", b"ElementSpacing = 1 1 1", b"ElementSpacing = -1 1 1"),
        (".mha", b"DimSize = 8 7 6", b"DimSize = 8 x 6"),
        (".mha", b"DimSize = 8 7 6", b"DimSize = 8 0 6"),
        (".mha", b"MET_SHORT", b"MET_NOVEL"),
        (".mha", b"ElementDataFile = LOCAL", b"ElementDataFile = gone.raw"),
        (".mha", b"ElementDataFile = LOCAL", b"ElementDataFile = LIST"),
        (".nrrd", b"directions: (1,0,0)", b"directions: (0,0,0)"),
        (".nrrd", b"(0,1,0)", b"(0.5,1,0)"),
        (".nrrd", b"sizes: 8 7 6", b"sizes: 8 7 -6"),
        (".nrrd", b"NRRD0004", b"NERD0004"),
    ],
)
def test_broken_headers_are_refused(tmp_path: Path, suffix: str, old: bytes, new: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    data = save(path)
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(DataError, match=f"broken{suffix}"):
        read_volume(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_data_beside_the_header(tmp_path: Path, compressed: bool) -> None:
    save(tmp_path / "scan.mhd", compressed=compressed)
    assert read_volume(tmp_path / "scan.mhd").size_voxels == (6, 7, 8)
    raw = tmp_path / ("scan.zraw" if compressed else "scan.raw")
    raw.write_bytes(raw.read_bytes()[:100])
    with pytest.raises(DataError, match=r"scan\.mhd is damaged"):
        read_volume(tmp_path / "scan.mhd")
    raw.unlink()
    with pytest.raises(DataError, match="is not there"):
        read_volume(tmp_path / "scan.mhd")


def test_header_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.nrrd").write_bytes(b"NRRD0004\n" + (b"#" * 999 + b"\n") * 1100)
    with pytest.raises(DataError, match="no end"):
        read_volume(tmp_path / "long.nrrd")
    (tmp_path / "long.mha").write_bytes((b"Comment = " + b"x" * 990 + b"\n") * 1100)
    with pytest.raises(DataError, match="ElementDataFile"):
        read_volume(tmp_path / "long.mha")


def test_check_size(tmp_path: Path) -> None:
    check_size(tmp_path, (1000, 512, 512))
    with pytest.raises(DataError, match="more than"):
        check_size(tmp_path, (MAX_VOXELS + 1,))
    with pytest.raises(DataError, match="nothing to read"):
        check_size(tmp_path, ())
