"""Reading one photograph, of whatever kind, as 8-bit RGB."""

import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from voxlift.core.errors import DataError

_Result = TypeVar("_Result")
RgbImage = UInt8[np.ndarray, "height width 3"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 180_000_000

# Formats are told by their first bytes: `Image.open` has a size limit of its own, which warns.
_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
}
# What Pillow's decoders raise on damaged files.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# How an EXIF orientation is undone.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)
_REMEDY = "Replace or remove the file, or leave out unreadable files with --skip-bad."


def read_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, draft_size: int | None = None
) -> RgbImage:
    """Read a JPEG, PNG or WebP file as RGB of 8 bits.

    Greyscale is repeated in all channels; transparency is laid over white; palettes and CMYK are
    converted; 16-bit values are scaled from 0..65535 to 0..255; a rotation noted in EXIF is
    applied.

    Args:
        path: The file.
        max_pixels: Larger images are refused by their header, before anything is decoded.
        draft_size: If the shorter side may come out smaller, down to this many pixels: JPEG is
            then decoded at 1/2, 1/4 or 1/8 of its size, which is much faster. Other formats come
            whole.

    Shape:
        `(height, width, 3)`.

    Raises:
        DataError: If the file cannot be read, is no image or is too large.
    """

    def read(image: ImageFile.ImageFile) -> RgbImage:
        return _decode(image, draft_size=draft_size)

    return _with_image(path, read, max_pixels=max_pixels)


def read_image_size(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return height and width that `read_image` gives, by the header alone.

    Raises:
        DataError: If the header cannot be read, or the image is too large.
    """
    return _with_image(path, _upright_size, max_pixels=max_pixels)


def _with_image(
    path: str | Path, use: Callable[[ImageFile.ImageFile], _Result], *, max_pixels: int
) -> _Result:
    """Open a file of a kind that is known, and do with it what was asked for."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(12)
            file.seek(0)
            for magic, reader in _READERS.items():
                if start.startswith(magic):
                    with reader(file) as image:
                        width, height = image.size
                        if width * height <= max_pixels:
                            return use(image)
                    problem = (
                        f"is too large to decode safely: {width} x {height} pixels; at most "
                        f"{max_pixels:,} are read. Scale it down first"
                    )
                    break
            else:
                problem = "is empty" if not start else "is not a JPEG, PNG or WebP image inside"
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Check the path.") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory. Scale it down first.") from error
    except _DECODING_ERRORS as error:
        raise DataError(f"{path} is damaged or cannot be read: {error}. {_REMEDY}") from error
    raise DataError(f"{path} {problem}. {_REMEDY}")


def _decode(image: ImageFile.ImageFile, *, draft_size: int | None) -> RgbImage:
    width, height = image.size
    if draft_size is not None:
        share = draft_size / min(width, height)
        image.draft(None, (math.ceil(width * share), math.ceil(height * share)))
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    rgb = _as_rgb(image)
    if orientation in _UPRIGHT:
        return np.array(Image.fromarray(rgb).transpose(_UPRIGHT[orientation]))
    return rgb


def _upright_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    width, height = image.size
    # The method of PNG images itself would decode them, to look for what may stand at their end.
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return (width, height) if orientation in _TURNED else (height, width)


def _as_rgb(image: Image.Image) -> RgbImage:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        grey: UInt8[np.ndarray, "height width"] = np.rint(values / 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return np.array(Image.alpha_composite(white, colours).convert("RGB"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
