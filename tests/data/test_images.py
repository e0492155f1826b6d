import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from voxlift.core.errors import DataError
from voxlift.data.images import read_image


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_reads_png_exactly(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.PNG")
    read = read_image(tmp_path / "a.PNG")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)


def test_reads_lossless_webp_exactly(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), pixels)


def test_format_is_told_by_content_not_by_name(
    tmp_path: Path, pixels: npt.NDArray[np.uint8]
) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), pixels)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_greyscale_fills_all_channels(
    tmp_path: Path, pixels: npt.NDArray[np.uint8], mode: str
) -> None:
    grey = Image.fromarray(pixels[..., 0]).convert(mode)
    grey.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    for channel in range(3):
        np.testing.assert_array_equal(read[..., channel], np.asarray(grey.convert("L")))


def test_transparency_is_laid_over_white(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    alpha = np.tile(np.array([0, 100, 255], dtype=np.uint8), (6, 3))
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "a.png")
    share = alpha[..., None] / 255
    expected = pixels * share + 255 * (1 - share)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), expected, atol=1)


def test_grey_with_transparency(tmp_path: Path) -> None:
    values = np.array([[10, 10]], dtype=np.uint8)
    alpha = np.array([[0, 255]], dtype=np.uint8)
    Image.merge("LA", [Image.fromarray(values), Image.fromarray(alpha)]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[255] * 3, [10] * 3])


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=1)
    expected = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png")[0], expected)
    expected[1] = [255, 255, 255]
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png")[0], expected)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    # Ink shares of cyan, magenta, yellow and black: plain red, and half black.
    for ink, colour in (((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 128), (127, 127, 127))):
        Image.new("CMYK", (16, 16), ink).save(tmp_path / "a.jpg", quality=95)
        np.testing.assert_allclose(
            read_image(tmp_path / "a.jpg"), np.broadcast_to(colour, (16, 16, 3)), atol=3
        )


def test_sixteen_bits_are_scaled_by_their_range(tmp_path: Path) -> None:
    values = np.array([[0, 257, 1000, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read[..., 1], np.rint(values / 65535 * 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    tmp_path: Path, pixels: npt.NDArray[np.uint8], orientation: int
) -> None:
    # What each orientation does to the upright picture when it is stored, by the EXIF standard.
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


def test_draft_halves_large_jpegs(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1600, dtype=np.float32).astype(np.uint8)
    image = Image.fromarray(np.repeat(np.tile(ramp, (1200, 1))[..., None], 3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (1600, 1200, 3)
    small = read_image(tmp_path / "a.jpg", draft_size=200)
    assert small.shape == (400, 300, 3)
    np.testing.assert_allclose(small[:, 0, 0], ramp.reshape(-1, 4).mean(axis=1), atol=2)
    assert read_image(tmp_path / "a.jpg", draft_size=5000).shape == (1600, 1200, 3)


def png_header(width: int, height: int) -> bytes:
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (fields, body)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg_header(width: int, height: int) -> bytes:
    whole = BytesIO()
    Image.new("RGB", (8, 8)).save(whole, format="JPEG")
    content = bytearray(whole.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize("header", [png_header(40_000, 40_000), jpeg_header(40_000, 40_000)])
def test_huge_image_is_refused_by_its_header(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "huge.png").write_bytes(header)
    with pytest.raises(DataError, match=r"huge\.png is too large .*40000 x 40000.*--skip-bad"):
        read_image(tmp_path / "huge.png")


def test_size_bound_is_inclusive(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=54).shape == (6, 9, 3)
    with pytest.raises(DataError, match="9 x 6 pixels; at most 53"):
        read_image(tmp_path / "a.png", max_pixels=53)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("draft_size", [None, 8])
def test_truncated_file(tmp_path: Path, suffix: str, draft_size: int | None) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for length in (13, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"cut\.{suffix} is damaged.*--skip-bad"):
            read_image(path, draft_size=draft_size)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match=r"empty\.jpg is empty.*--skip-bad"):
        read_image(tmp_path / "empty.jpg")


def test_text_named_png(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("These are words.")
    with pytest.raises(DataError, match=r"text\.png is not a JPEG, PNG or WebP.*--skip-bad"):
        read_image(tmp_path / "text.png")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.png does not exist"):
        read_image(tmp_path / "no.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.data
def test_reads_greyscale_photographs_of_a_real_set(data_folder: Path) -> None:
    num_grey = 0
    for path in sorted((data_folder / "tiny-imagenet-20k" / "val").glob("*/*.jpg"))[:200]:
        with Image.open(path) as image:
            if image.mode == "L":
                num_grey += 1
                expected = np.repeat(np.asarray(image)[..., None], 3, axis=2)
                np.testing.assert_array_equal(read_image(path), expected)
    assert num_grey > 0


def test_webp_that_claims_an_impossible_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.webp"
    size = (2**24 - 1).to_bytes(3, "little") * 2
    path.write_bytes(b"RIFF\x1e\0\0\0WEBPVP8X\n\0\0\0" + bytes(4) + size + bytes(12))
    with pytest.raises(DataError, match=r"bomb\.webp is damaged or cannot be read"):
        read_image(path)
