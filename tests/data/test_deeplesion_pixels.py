"""16-bit slices and their context."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voxlift.core.errors import DataError
from voxlift.data.deeplesion_pixels import (
    KeySlice,
    PngHeader,
    read_hounsfield,
    read_png_header,
    slice_path,
)

HU = np.random.default_rng(0).integers(-1024, 3000, (12, 5, 6))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, plane in enumerate(HU):
        Image.fromarray((plane + 32768).astype(np.uint16)).save(slice_path(tmp_path, number))
    return tmp_path


def test_reads_hounsfield_units(folder: Path) -> None:
    path = folder / "003.png"
    assert read_png_header(path) == PngHeader(height=5, width=6, bits=16, is_grey=True)
    np.testing.assert_array_equal(read_hounsfield(path), HU[3])


def test_numbers_beyond_three_digits(tmp_path: Path) -> None:
    assert slice_path(tmp_path, 1234).name == "1234.png"


@pytest.mark.parametrize(("mode", "found"), [("L", "8 bits of grey"), ("RGB", "8 bits of colours")])
def test_8_bits_are_refused(folder: Path, mode: str, found: str) -> None:
    Image.new(mode, (6, 5)).save(folder / "003.png")
    with pytest.raises(DataError, match=f"{found} a pixel; expected 16 bits"):
        read_hounsfield(folder / "003.png")


def test_damaged_and_absent_files(folder: Path) -> None:
    path = folder / "003.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"003\.png is damaged"):
        read_hounsfield(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"003\.png is no PNG, or is cut off"):
        read_hounsfield(path)
    path.unlink()
    with pytest.raises(DataError, match="could not be read: No such file"):
        read_hounsfield(path)


@pytest.mark.parametrize(
    ("size", "message"),
    [((5000, 5000), "too large to decode safely: 5000 x 5000"), ((0, 5), "claims 0 x 5 pixels")],
)
def test_unlikely_sizes_are_refused_before_decoding(
    folder: Path, size: tuple[int, int], message: str
) -> None:
    path = folder / "003.png"
    content = path.read_bytes()
    path.write_bytes(content[:16] + struct.pack(">II", size[1], size[0]) + content[24:])
    with pytest.raises(DataError, match=message):
        read_hounsfield(path)


def test_context_runs_from_foot_to_head(folder: Path) -> None:
    # DeepLesion numbers slices from head to foot.
    key = KeySlice(folder, number=4, first=0, last=11, interval_mm=5.0, spacing_mm=0.8)
    slices = key.read(num_slices=5, interval_mm=2.5)
    assert (slices.unit, slices.spacing_mm) == ("HU", 0.8)
    expected = [HU[5], (HU[5] + HU[4]) / 2, HU[4], (HU[4] + HU[3]) / 2, HU[3]]
    np.testing.assert_allclose(slices.array, expected)


def test_an_unusable_neighbour_is_named(folder: Path) -> None:
    Image.new("L", (6, 5)).save(folder / "005.png")
    key = KeySlice(folder, number=4, first=0, last=11, interval_mm=5.0)
    with pytest.raises(DataError, match=r"context of .*004\.png: .*005\.png has 8 bits"):
        key.read(num_slices=5, interval_mm=2.5)
