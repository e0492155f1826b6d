"""Reading one photograph, of whatever kind, as 8-bit RGB."""

import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from voxlift.core.errors import DataError

RgbImage = UInt8[np.ndarray, "height width 3"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 180_000_000

# Phones write MPO, a JPEG with further pictures behind it, under the name .jpg.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
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
)
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
    try:
        with _open(path) as image:
            width, height = image.size
            if width * height <= max_pixels:
                return _decode(image, draft_size=draft_size)
        found = f"{width} x {height} pixels"
    except (Image.DecompressionBombError, MemoryError) as error:
        found = str(error)
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path} is not a JPEG, PNG or WebP image, whatever its name says. {_REMEDY}"
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Check the path.") from error
    except _DECODING_ERRORS as error:
        raise DataError(f"{path} is damaged or cannot be read: {error}. {_REMEDY}") from error
    raise DataError(
        f"{path} is too large to decode safely: {found}; at most {max_pixels:,} pixels are read. "
        "Scale it down first, or leave it out with --skip-bad."
    )


def _open(path: str | Path) -> Image.Image:
    with warnings.catch_warnings():
        # The size has a bound of its own here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=_FORMATS)


def _decode(image: Image.Image, *, draft_size: int | None) -> RgbImage:
    width, height = image.size
    if draft_size is not None:
        share = draft_size / min(width, height)
        image.draft(None, (math.ceil(width * share), math.ceil(height * share)))
    return _as_rgb(ImageOps.exif_transpose(image))


def _as_rgb(image: Image.Image) -> RgbImage:
    if image.mode.startswith("I"):
        grey: npt.NDArray[np.uint8] = np.rint(
            np.asarray(image).astype(np.float32).clip(0, 65535) / 257
        ).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
