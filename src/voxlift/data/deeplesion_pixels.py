"""CT slices as DeepLesion stores them: one 16-bit PNG a slice, whose values are HU + 32768."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL.PngImagePlugin import PngImageFile

from voxlift.core.errors import DataError
from voxlift.data.detection_cases import Slices, Unit
from voxlift.data.slice_context import context_positions, interpolate

HU_OFFSET = 32768
# No CT has slices as large; a file of a few kB may claim to.
MAX_SLICE_PIXELS = 4096 * 4096

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8s8xIIBB")
_GREY = 0


class PngHeader(NamedTuple):
    """What the header of a PNG says."""

    height: int
    width: int
    bits: int
    is_grey: bool

    @property
    def is_hounsfield(self) -> bool:
        """Whether it can hold HU + 32768."""
        return self.bits == 16 and self.is_grey

    @property
    def is_too_large(self) -> bool:
        """Whether it is not decoded for its size."""
        return self.height * self.width > MAX_SLICE_PIXELS

    def describe(self) -> str:
        """Say how many bits of what the pixels have."""
        return f"{self.bits} bits of {'grey' if self.is_grey else 'colours'}"


def read_png_header(path: Path) -> PngHeader:
    """Read the header of a PNG, nothing more.

    Raises:
        DataError: If it is not there or is no PNG.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER.size)
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror or error}.") from error
    if len(start) < _HEADER.size or not start.startswith(_SIGNATURE):
        raise DataError(f"{path} is no PNG, or is cut off.")
    _, width, height, bits, colours = _HEADER.unpack(start)
    if not (height and width):
        raise DataError(f"{path} is damaged: it claims {height} x {width} pixels. Fetch it again.")
    return PngHeader(height, width, bits, colours == _GREY)


def read_hounsfield(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read one slice in HU.

    Raises:
        DataError: If it is no 16-bit greyscale PNG, is too large or is damaged.
    """
    header = read_png_header(path)
    if not header.is_hounsfield:
        raise DataError(
            f"{path} has {header.describe()} a pixel; expected 16 bits of grey, HU + 32768. "
            "Images scaled to 8 bits have lost their HU: give the original files."
        )
    if header.is_too_large:
        raise DataError(
            f"{path} is too large to decode safely: {header.height} x {header.width} pixels; at "
            f"most {MAX_SLICE_PIXELS:,} are read. Give the original files."
        )
    try:
        with path.open("rb") as file, PngImageFile(file) as image:
            stored = np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}. Fetch it again.") from error
    return stored.astype(np.float32) - HU_OFFSET


@dataclass(frozen=True)
class KeySlice:
    """A key slice among its neighbours.

    Attributes:
        folder: Where the slices of its scan are.
        number: Its own number.
        first: Number of the first slice of the unbroken run that it lies in.
        last: Number of the last one.
        interval_mm: Distance between two stored slices.
        spacing_mm: Edge of a pixel, where it is known.
    """

    folder: Path
    number: int
    first: int
    last: int
    interval_mm: float
    spacing_mm: float | None = None
    unit: Unit = "HU"

    @property
    def path(self) -> Path:
        """The file of the key slice itself."""
        return slice_path(self.folder, self.number)

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        """Read it with its context.

        DeepLesion numbers slices from head to foot; they are returned from foot to head, the
        canonical order of volumes.

        Raises:
            DataError: If a slice is missing, damaged, no 16-bit PNG or of another size.
            ConfigError: If the number of slices or the interval is out of range.
        """
        offsets = context_positions(
            num_slices, interval_mm=interval_mm, stored_interval_mm=self.interval_mm
        )
        try:
            array = interpolate(
                lambda number: read_hounsfield(slice_path(self.folder, number)),
                self.number - offsets,
                first=self.first,
                last=self.last,
            )
        except DataError as error:
            raise DataError(f"The context of {self.path}: {error}") from error
        return Slices(array, self.unit, self.spacing_mm)


def slice_path(folder: Path, number: int) -> Path:
    """Return where the slice of a number is."""
    return folder / slice_name(number)


def slice_name(number: int) -> str:
    """Return the file name of the slice of a number."""
    return f"{number:03d}.png"
