"""Which slices of DeepLesion's scans are there, and whether they can be used."""

from pathlib import Path
from typing import NamedTuple

from voxlift.core.errors import DataError
from voxlift.data.deeplesion_pixels import (
    read_hounsfield,
    read_png_header,
    slice_name,
    slice_path,
)
from voxlift.data.lesion_images import LesionImage
from voxlift.data.slice_context import unbroken_run

# DeepLesion gives so much of a scan to either side of a key slice.
_CONTEXT_MM = 30.0


class KeySliceProblem(NamedTuple):
    """Why a key slice cannot be used: what it has in common with others, and what not."""

    kind: str
    more: str = ""


class ScanFiles:
    """The slices of the scans in one folder."""

    def __init__(self, folder: Path) -> None:
        """Look into no scan yet."""
        self.folder = folder
        self._numbers: dict[str, set[int]] = {}
        self._left_out: dict[str, set[int]] = {}
        # Height and width of slices that can be used, None for others.
        self._sizes: dict[tuple[str, int], tuple[int, int] | None] = {}

    def numbers(self, series: str) -> set[int]:
        """Return the numbers of the slices of a scan."""
        if series not in self._numbers:
            try:
                names = [path.name for path in (self.folder / series).iterdir()]
            except (FileNotFoundError, NotADirectoryError):
                names = []
            except OSError as error:
                raise DataError(
                    f"{self.folder / series} could not be read: {error.strerror or error}."
                ) from error
            stems = {name[:-4] for name in names if name.endswith(".png")}
            found = {int(stem) for stem in stems if stem.isascii() and stem.isdigit()}
            self._numbers[series] = {n for n in found if slice_name(n)[:-4] in stems}
        return self._numbers[series]

    def run(self, image: LesionImage) -> tuple[int, int]:
        """Return the first and the last slice of the unbroken run about a key slice."""
        return unbroken_run(self._usable(image), image.number)

    def lacks_neighbours(self, image: LesionImage) -> bool:
        """Tell whether slices are missing that belong to the surroundings of a key slice."""
        numbers = self._usable(image)
        if image.slice_range is not None:
            return not numbers.issuperset(range(image.slice_range[0], image.slice_range[1] + 1))
        reach = int(min(_CONTEXT_MM / image.interval_mm, 1e9))
        first = max(min(numbers), image.number - reach)
        last = min(max(numbers), image.number + reach)
        return not numbers.issuperset(range(first, last + 1))

    def check(self, image: LesionImage, *, read: bool) -> KeySliceProblem | None:
        """Tell why a key slice cannot be used, if so, by its header or by reading it whole."""
        if image.number not in self.numbers(image.series):
            return KeySliceProblem(f"key slice not in {self.folder}")
        path = slice_path(self.folder / image.series, image.number)
        try:
            header = read_png_header(path)
            if not header.is_hounsfield:
                return KeySliceProblem(
                    f"key slice of {header.describe()} where 16 bits of grey are due"
                )
            size = (header.height, header.width)
            if header.is_too_large:
                return KeySliceProblem("key slice too large to decode safely", f" ({_text(size)})")
            if image.sizes and size not in image.sizes:
                return KeySliceProblem(
                    "key slice of another size (height x width) than its boxes were drawn for",
                    f" ({_text(size)} instead of {' or '.join(map(_text, image.sizes))})",
                )
            if read:
                read_hounsfield(path)
        except DataError:
            # Nor can it be the neighbour of another one.
            self._sizes[image.series, image.number] = None
            return KeySliceProblem("key slice that is damaged")
        return None

    def leave_out_unusable(self, image: LesionImage) -> set[str]:
        """Take slices in a key slice's run for missing that cannot be read with it.

        Returns:
            Their names.
        """
        first, last = self.run(image)
        size = self._size(image.series, image.number)
        bad = {n for n in range(first, last + 1) if self._size(image.series, n) != size}
        self._left_out[image.name] = bad
        return {f"{image.series}/{slice_name(number)}" for number in bad}

    def _usable(self, image: LesionImage) -> set[int]:
        numbers = self.numbers(image.series)
        left_out = self._left_out.get(image.name)
        return numbers - left_out if left_out else numbers

    def _size(self, series: str, number: int) -> tuple[int, int] | None:
        if (series, number) not in self._sizes:
            self._sizes[series, number] = _usable_size(slice_path(self.folder / series, number))
        return self._sizes[series, number]


def _usable_size(path: Path) -> tuple[int, int] | None:
    """Return height and width of a slice by its header; None for one that cannot be used."""
    try:
        header = read_png_header(path)
    except DataError:
        return None
    usable = header.is_hounsfield and not header.is_too_large
    return (header.height, header.width) if usable else None


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
