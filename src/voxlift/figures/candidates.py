"""The surest lesion candidates of a volume: each in its key slice, whole and as a detail."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from voxlift.core.errors import DataError
from voxlift.figures.sections import (
    GAP_INCHES,
    HALO,
    MARGIN_INCHES,
    Section,
    draw_bar,
    draw_section,
    sampled_window,
    shortened,
)
from voxlift.figures.slices import Spacing, Window
from voxlift.figures.style import OUTLINE_PALETTE, drawn_figure

MOST_CANDIDATES = 12
COLUMNS = 3
# Height and width at most, of the slice and of the detail beside it.
PICTURE_INCHES = 2.1
TITLE_INCHES = 0.46
NOTE_INCHES = 0.18
# The detail shows this many times the longer edge of the box, and at least so much.
DETAIL_LENGTHS = 3
LEAST_DETAIL_MM = 40.0
BOX_COLOUR = OUTLINE_PALETTE[0]
NOTE_COLOUR = "#666666"
MOST_LETTERS = 30
MOST_TITLE_LETTERS = 60
LETTER_INCHES = 0.057
NOTE = (
    "Slices count from 1 as the file stores them. mm: centre in the patient, LPS (x to the left, y "
    "to the back, z to the head)."
)
# Positions that were computed from millimetres are whole numbers but for rounding.
_DECIMALS = 4
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class ShownCandidate:
    """A candidate as it is drawn.

    Attributes:
        rank: From 1, the surest first.
        class_name: What it is.
        score: How sure.
        box: Edges x1, y1, x2, y2 in the key slice, where pixel i spans i to i + 1.
        position: Index of the key slice along the depth of the drawn volume.
        num_slices: In how many slices it was found.
        slice_axis: What the file calls its slices: slice, row or column.
        slice_number: Number of the key slice as the file stores it, from 1.
        num_stored: How many of them the file has.
        centre_mm: Centre in the patient, LPS.
        window: The values shown as black and as white; None goes by the volume.
        window_name: What the window is called.
    """

    rank: int
    class_name: str
    score: float
    box: tuple[float, float, float, float]
    position: float
    num_slices: int
    slice_axis: str
    slice_number: float
    num_stored: int
    centre_mm: tuple[float, float, float]
    window: Window | None = None
    window_name: str | None = None

    @property
    def heading(self) -> str:
        """Its first line."""
        return f"{self.rank}  {shortened(self.class_name, MOST_LETTERS)}  {self.score:.2f}"

    @property
    def remark(self) -> str:
        """Its second line."""
        place = ", ".join(f"{value:.1f}" for value in self.centre_mm).replace("-", MINUS)
        found = f" (found in {self.num_slices})" if self.num_slices > 1 else ""
        window = f", {self.window_name}" if self.window_name else ""
        return (
            f"{self.slice_axis} {self.slice_number:g} of {self.num_stored}{found}, "
            f"({place}) mm{window}"
        )


def plot_candidates(
    image: npt.NDArray[Any],
    candidates: Sequence[ShownCandidate],
    path: str | Path,
    *,
    spacing_mm: Spacing,
    num_found: int | None = None,
    title: str | None = None,
) -> Path:
    """Draw the surest candidates, each in its whole key slice and beside it as a detail.

    The image is in canonical order: depth from foot to head, height from front to back, width from
    the patient's right to the left. A key slice between two voxels is interpolated. Pictures are
    true to the spacing. Without candidates the middle slice is drawn, and that there are none. Of
    the image only the key slices and a sample of the voxels are read, so that it may lie on disk.

    Args:
        image: The volume, (depth, height, width).
        candidates: The surest first; twelve at most are drawn.
        path: The figure to write.
        spacing_mm: Distance between voxels.
        num_found: How many candidates there are, if these are not all.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If the image is no volume, a box or slice is not in it, or the file cannot be
            written.
    """
    if image.ndim != 3 or not image.size:
        raise DataError(
            f"The volume to draw has the shape {image.shape}, but (depth, height, width) is "
            "needed. Pick one channel and one case first."
        )
    shown = list(candidates[:MOST_CANDIDATES])
    for candidate in shown:
        _check(candidate, image.shape)
    limits = sampled_window(image)
    number = max(1, len(shown))
    # Two in a row leave no hole where four are to be drawn.
    columns = min(number, 2 if number == 4 else COLUMNS)
    cell_inches = 2 * PICTURE_INCHES + GAP_INCHES
    width = 2 * MARGIN_INCHES + columns * cell_inches + (columns - 1) * 3 * GAP_INCHES
    notes = textwrap.wrap(NOTE, int((width - 2 * MARGIN_INCHES) / LETTER_INCHES)) if shown else []
    total = len(candidates) if num_found is None else num_found
    if total > len(shown):
        notes.insert(0, f"The surest {len(shown)} of {total} candidates.")
    above, below = (0.4 if title else 0.1), 0.1 + NOTE_INCHES * len(notes)
    row_inches = TITLE_INCHES + PICTURE_INCHES + 2 * GAP_INCHES
    height = above + -(-number // columns) * row_inches + below
    with drawn_figure(path, size_inches=(width, height)) as figure:
        figure.set_layout_engine("none")
        for place in range(number):
            row, column = divmod(place, columns)
            left = MARGIN_INCHES + column * (cell_inches + 3 * GAP_INCHES)
            corner = (left, height - above - row * row_inches)
            if shown:
                _draw_candidate(figure, image, shown[place], spacing_mm, limits, corner)
            else:
                _draw_nothing(figure, image, spacing_mm, limits, corner)
        if title:
            _write(
                figure,
                (MARGIN_INCHES, height - 0.1),
                shortened(title, MOST_TITLE_LETTERS),
                fontsize=11,
                weight="bold",
            )
        for line, note in enumerate(reversed(notes), start=1):
            _write(
                figure,
                (MARGIN_INCHES, 0.06 + NOTE_INCHES * line),
                note,
                fontsize=7,
                color=NOTE_COLOUR,
            )
    return Path(path)


def _check(candidate: ShownCandidate, shape: Sequence[int]) -> None:
    x1, y1, x2, y2 = candidate.box
    depth, height, width = shape
    is_in_slice = max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height)
    if not (is_in_slice and 0 <= round(candidate.position, _DECIMALS) <= depth - 1):
        raise DataError(
            f"Candidate {candidate.rank} has the box {candidate.box} in slice "
            f"{candidate.position:g}, which is not in a volume of {tuple(shape)} voxels. Give "
            "boxes and slices on the volume's own grid."
        )


def _draw_candidate(
    figure: Figure,
    image: npt.NDArray[Any],
    candidate: ShownCandidate,
    spacing_mm: Spacing,
    limits: Window,
    corner_inches: tuple[float, float],
) -> None:
    """Draw a candidate whose upper left corner lies there, from the figure's lower left one."""
    left, top = corner_inches
    _write(figure, corner_inches, candidate.heading, fontsize=9, weight="bold")
    _write(figure, (left, top - 0.2), candidate.remark, fontsize=7)
    top -= TITLE_INCHES
    picture = _key_slice(image, candidate.position)
    for view in (_whole(picture, spacing_mm), _detail(picture, candidate.box, spacing_mm)):
        axes = _draw_view(
            figure, picture, view, spacing_mm, candidate.window or limits, corner_inches=(left, top)
        )
        _draw_box(axes, candidate.box, spacing_mm)
        left += PICTURE_INCHES + GAP_INCHES


def _draw_nothing(
    figure: Figure,
    image: npt.NDArray[Any],
    spacing_mm: Spacing,
    limits: Window,
    corner_inches: tuple[float, float],
) -> None:
    left, top = corner_inches
    _write(figure, corner_inches, "no candidates", fontsize=9, weight="bold")
    _write(figure, (left, top - 0.2), "the middle of the volume", fontsize=7)
    picture = _key_slice(image, image.shape[0] // 2)
    view = _whole(picture, spacing_mm)
    _draw_view(figure, picture, view, spacing_mm, limits, corner_inches=(left, top - TITLE_INCHES))


def _key_slice(image: npt.NDArray[Any], position: float) -> npt.NDArray[np.float32]:
    position = round(position, _DECIMALS)
    below = math.floor(position)
    share = position - below
    picture = np.asarray(image[below], dtype=np.float32)
    if share == 0:
        return picture
    mixed: npt.NDArray[np.float32] = (
        (1 - share) * picture + share * np.asarray(image[below + 1], dtype=np.float32)
    ).astype(np.float32)
    return mixed


def _whole(
    picture: npt.NDArray[np.float32], spacing_mm: Spacing
) -> tuple[float, float, float, float]:
    rows, columns = picture.shape
    return 0.0, rows * spacing_mm[1], 0.0, columns * spacing_mm[2]


def _detail(
    picture: npt.NDArray[np.float32],
    box: tuple[float, float, float, float],
    spacing_mm: Spacing,
) -> tuple[float, float, float, float]:
    """Choose a square about the box, moved so that it does not reach beyond the slice."""
    _, rows_mm, _, columns_mm = _whole(picture, spacing_mm)
    x1, x2 = box[0] * spacing_mm[2], box[2] * spacing_mm[2]
    y1, y2 = box[1] * spacing_mm[1], box[3] * spacing_mm[1]
    side = max(DETAIL_LENGTHS * max(x2 - x1, y2 - y1), LEAST_DETAIL_MM)
    view = []
    for low, high, length in ((y1, y2, rows_mm), (x1, x2, columns_mm)):
        shown = min(side, length)
        start = min(max((low + high - shown) / 2, 0.0), length - shown)
        view += [start, start + shown]
    return view[0], view[1], view[2], view[3]


def _draw_view(
    figure: Figure,
    picture: npt.NDArray[np.float32],
    view_mm: tuple[float, float, float, float],
    spacing_mm: Spacing,
    window: Window,
    *,
    corner_inches: tuple[float, float],
) -> Axes:
    section = Section(
        plane="axial",
        position_mm=0.0,
        picture=picture,
        spacing_mm=(spacing_mm[1], spacing_mm[2]),
        view_mm=view_mm,
        outlines=(),
    )
    inches_per_mm = PICTURE_INCHES / max(section.size_mm)
    rows, columns = (length * inches_per_mm for length in section.size_mm)
    width, height = figure.get_size_inches()
    left, top = corner_inches
    axes = figure.add_axes((left / width, (top - rows) / height, columns / width, rows / height))
    draw_section(axes, section, window, size_inches=(rows, columns))
    draw_bar(axes, section, inches_per_mm=inches_per_mm)
    return axes


def _draw_box(axes: Axes, box: tuple[float, float, float, float], spacing_mm: Spacing) -> None:
    x1, y1, x2, y2 = box
    _, height_mm, width_mm = spacing_mm
    axes.add_patch(
        Rectangle(
            (x1 * width_mm, y1 * height_mm),
            (x2 - x1) * width_mm,
            (y2 - y1) * height_mm,
            fill=False,
            edgecolor=BOX_COLOUR,
            linewidth=1.2,
            snap=False,
            path_effects=HALO,
        )
    )


def _write(figure: Figure, place_inches: tuple[float, float], text: str, **style: Any) -> None:
    width, height = figure.get_size_inches()
    figure.text(place_inches[0] / width, place_inches[1] / height, text, va="top", **style)
