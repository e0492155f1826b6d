"""Voxels where a header says that they are, with NumPy's own bytes as the reference."""

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.stored_voxels import StoredVoxels, gunzip, inflate

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (3, 4, 5)).astype(">i2")
PACKED = {
    "none": ARRAY.tobytes(),
    "gzip": gzip.compress(b"ab" + ARRAY.tobytes()),
    "zlib": zlib.compress(b"ab" + ARRAY.tobytes()),
    "text": " ".join(map(str, ARRAY.ravel())).encode(),
}


def stored(path: Path, packing: str, content: bytes) -> StoredVoxels:
    path.write_bytes(b"header" + content)
    skipped = 2 if packing in ("gzip", "zlib") else 0
    return StoredVoxels(path, path, ARRAY.shape, ARRAY.dtype, packing, 6, skipped)  # type: ignore[arg-type]


@pytest.mark.parametrize("packing", PACKED)
def test_voxels_are_read_and_checked(tmp_path: Path, packing: str) -> None:
    voxels = stored(tmp_path / "a", packing, PACKED[packing])
    voxels.check()
    found = voxels.read()
    np.testing.assert_array_equal(found, ARRAY)
    assert found.dtype == np.int16
    for length in (0, 1, len(PACKED[packing]) // 2):
        cut = stored(tmp_path / "a", packing, PACKED[packing][:length])
        for use in (cut.check, cut.read):
            with pytest.raises(DataError, match="damaged or cut off"):
                use()


@pytest.mark.parametrize(
    "text", ["x " * 60, "10 " * 59, "1 " * 59 + "x", "99999 " * 60, "\0" * 200]
)
def test_text_that_is_no_voxels_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"not numbers|59 of the 60 numbers|do not fit into int16"):
        stored(tmp_path / "a", "text", text.encode()).read()


def test_what_goes_on_behind_the_voxels_is_read_for_a_while_only(tmp_path: Path) -> None:
    behind = gzip.compress(bytes(2**20), compresslevel=1)
    voxels = stored(tmp_path / "a", "gzip", PACKED["gzip"] + behind)
    np.testing.assert_array_equal(voxels.read(), ARRAY)
    endless = stored(tmp_path / "a", "gzip", PACKED["gzip"] + behind * 70)
    with pytest.raises(DataError, match="far more than the 120 bytes"):
        endless.read()


@pytest.mark.parametrize("packing", PACKED)
def test_a_place_behind_the_end_is_refused(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(99))
    for start in (100, 2**63, 10**30):
        beyond = StoredVoxels(path, path, ARRAY.shape, ARRAY.dtype, packing, start)  # type: ignore[arg-type]
        for use in (beyond.check, beyond.read):
            with pytest.raises(DataError, match=r"behind the end|it holds"):
                use()


def test_streams_are_decompressed_to_their_end() -> None:
    path = Path("scan.nrrd")
    data = np.random.default_rng(0).integers(0, 2, 1_200_000).astype(np.uint8).tobytes()
    for unpack, packed in ((gunzip, gzip.compress(data)), (inflate, zlib.compress(data))):
        assert b"".join(unpack(path, io.BytesIO(packed))) == data
        for broken in (packed[:-1], packed[: len(packed) // 2], packed[:-3] + b"xyz", b"", b"text"):
            if unpack is gunzip and not broken:
                # An empty stream is a whole one; that it holds too little is found by its size.
                assert not list(unpack(path, io.BytesIO(broken)))
                continue
            with pytest.raises(DataError, match=r"decompressed to its end|end too early"):
                list(unpack(path, io.BytesIO(broken)))
