"""MetaImage files that are cut, corrupt, or lie about themselves."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data.volumes import read_channels, read_volume

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(np.int16)


def save(path: Path, *, compressed: bool = False) -> bytes:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ARRAY), str(path), compressed)
    return path.read_bytes()


def assert_refused(path: Path, message: str) -> None:
    for read in (read_volume, read_channels):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert path.name in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_cut_data_are_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "scan.mha"
    data = save(path, compressed=compressed)
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)
    for length in (*range(1, 400, 7), len(data) // 2, len(data) - 9, len(data) - 1):
        path.write_bytes(data[:length])
        assert_refused(path, "scan.mha")


def test_flipped_bytes_in_compressed_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.mha"
    data = save(path, compressed=True)
    start = data.index(b"LOCAL\n") + len(b"LOCAL\n")
    for place in range(start + 0, len(data), 5):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        assert_refused(path, r"decompressed to its end|end too early|it holds")


SPACING = "ElementSpacing = 1 1 1"
MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DimSize = 8 7 6", "DimSize = 60000 60000 60000", "60000 x 60000 x 60000 voxels"),
        ("DimSize = 8 7 6", "DimSize = 1200 1200 1200", "holds 672 of the 3456000000 bytes"),
        ("DimSize = 8 7 6", "DimSize = 8 x 6", "DimSize is '8 x 6'"),
        ("DimSize = 8 7 6", "DimSize = 8 0 6", "nothing to read"),
        ("DimSize = 8 7 6", "DimSize = 8 -7 -6", "nothing to read"),
        ("DimSize = 8 7 6", "DimSize = 8 7 6\nDimSize = 4 4 4", "states dimsize twice"),
        ("NDims = 3", "NDims = 4", "4 dimensions, but the size"),
        # SimpleITK crashes on this one.
        ("NDims = 3", "NDims = 99999", "99999 dimensions, but the size"),
        ("NDims = 3", "NDims = three", "NDims is 'three'"),
        (SPACING, "ElementSpacing = 0 1 1", "ElementSpacing is .*expected positive"),
        (SPACING, "ElementSpacing = -1 1 1", "ElementSpacing is .*expected positive"),
        (SPACING, "ElementSpacing = nan 1 1", "ElementSpacing is .*expected positive"),
        (SPACING, "ElementSpacing = 1 inf 1", "ElementSpacing is .*expected positive"),
        (SPACING, "ElementSpacing = 1 1", "ElementSpacing is .*expected 3 number"),
        (SPACING, "ElementSpacing =", "ElementSpacing is .*expected 3 number"),
        (SPACING, "ElementSize = 2 -1 1", "ElementSize is .*expected positive"),
        ("Offset = 0 0 0", "Offset = nan 0 0", "Offset is 'nan 0 0'; expected finite"),
        ("Offset = 0 0 0", "Position = 0 inf 0", "Position is '0 inf 0'; expected finite"),
        (MATRIX, "TransformMatrix = 1 0 0", "TransformMatrix is .*expected 9 number"),
        (MATRIX, "TransformMatrix = nan 0 0 0 1 0 0 0 1", "TransformMatrix is .*expected finite"),
        (MATRIX, "TransformMatrix = 0 0 0 0 0 0 0 0 0", "broken.mha"),
        (MATRIX, "TransformMatrix = 1 0.3 0 0 1 0 0 0 1", "right angles"),
        (SPACING, SPACING + "\nElementNumberOfChannels = x", "Channels is 'x'"),
        (SPACING, SPACING + "\nElementNumberOfChannels = 0", "nothing to read"),
        (SPACING, SPACING + "\nElementNumberOfChannels = 2", "holds 672 of the 1344 bytes"),
        (SPACING, SPACING + "\nElementNumberOfChannels = 99999999999", "more than"),
        ("MET_SHORT", "MET_NOVEL", "ElementType is 'MET_NOVEL'"),
        ("ElementDataFile = LOCAL", "ElementDataFile = gone.raw", "gone.raw, is not there"),
        ("ElementDataFile = LOCAL", "ElementDataFile = LIST", "several files"),
        (SPACING, SPACING + "\nHeaderSize = -2", "HeaderSize -2"),
        (SPACING, SPACING + "\nHeaderSize = 99999999999", "of the 672 bytes"),
        ("CompressedData = False", "CompressedData = maybe", "CompressedData is 'maybe'"),
        ("ElementDataFile = LOCAL", "ElementDataFile = slice%03d.raw 1 6 1", "several files"),
    ],
)
def test_broken_headers_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "broken.mha"
    data = save(path)
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode()))
    assert_refused(path, message)


@pytest.mark.parametrize("compressed", [True, False])
def test_data_beside_the_header(tmp_path: Path, compressed: bool) -> None:
    save(tmp_path / "scan.mhd", compressed=compressed)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.mhd").array, ARRAY)
    raw = tmp_path / ("scan.zraw" if compressed else "scan.raw")
    raw.write_bytes(raw.read_bytes()[:100])
    assert_refused(tmp_path / "scan.mhd", r"scan\.mhd is damaged")
    raw.unlink()
    assert_refused(tmp_path / "scan.mhd", "is not there")


def test_header_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.mha").write_bytes((b"Comment = " + b"x" * 990 + b"\n") * 1100)
    assert_refused(tmp_path / "long.mha", "ElementDataFile")


VOXELS = np.arange(60, dtype="<i2").reshape(3, 4, 5)
TWO = np.stack([VOXELS, VOXELS + 1])
TURNED = "0 1 0 -1 0 0 0 0 1"


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ("Offset = 1 2 3\nElementSpacing = 0.5 0.75 2", VOXELS),
        (f"TransformMatrix = {TURNED}\nPosition = 1 2 3\nElementSize = 2 3 4", VOXELS),
        (f"Rotation = {TURNED}\nElementSize = 2 3 4\nElementSpacing = 1 1.5 2", VOXELS),
        (f"Orientation = {TURNED}\nAnatomicalOrientation = RAI", VOXELS),
        ("BinaryDataByteOrderMSB = True", VOXELS.astype(">i2")),
        ("ElementByteOrderMSB = True", VOXELS.astype(">i2")),
        ("ElementNumberOfChannels = 2", np.ascontiguousarray(np.moveaxis(TWO, 0, -1))),
        ("NDims = 4\nDimSize = 5 4 3 2", TWO),
        ("HeaderSize = 8", np.concatenate([np.zeros(4, "<i2"), VOXELS.ravel()])),
        ("HeaderSize = -1", np.concatenate([np.zeros(4, "<i2"), VOXELS.ravel()])),
    ],
)
def test_reads_what_simpleitk_reads(tmp_path: Path, fields: str, data: np.ndarray) -> None:
    path = tmp_path / "scan.mhd"
    size = "" if "NDims" in fields else "NDims = 3\nDimSize = 5 4 3\n"
    path.write_text(
        f"ObjectType = Image\n{size}BinaryData = True\n{fields}\nElementType = MET_SHORT\n"
        "ElementDataFile = scan.raw\n"
    )
    (tmp_path / "scan.raw").write_bytes(data.tobytes())
    expected = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(expected)
    if expected.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    found = read_channels(path)
    np.testing.assert_array_equal(
        np.stack([one.array for one in found]), array.reshape(-1, 3, 4, 5)
    )
    assert found[0].spacing_mm[::-1] == pytest.approx(expected.GetSpacing()[:3])
    assert found[0].origin_mm == pytest.approx(expected.GetOrigin()[:3])
    side = expected.GetDimension()
    direction = np.array(expected.GetDirection()).reshape(side, side)[:3, :3]
    np.testing.assert_allclose(found[0].direction, direction, atol=1e-6)
