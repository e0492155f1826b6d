"""What a detector found and what it missed: true and detected boxes on the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from voxlift.core.errors import DataError
from voxlift.figures.sections import DASHES, HALO, shortened
from voxlift.figures.style import OUTLINE_PALETTE, drawn_figure, image_axes

Floats = npt.NDArray[np.floating]
View = tuple[float, float, float, float]

FOUND_COLOUR, TRUE_COLOUR = OUTLINE_PALETTE[:2]
PANEL_INCHES = 2.1
TITLE_INCHES = 0.42
LEGEND_INCHES = 0.5
# A small box is shown with so many times its length around it, and never less of the image.
VIEW_LENGTHS = 3.5
LEAST_VIEW_SHARE = 0.3
# A longer text would run into the next panel.
MOST_LETTERS = 34
# More boxes would hide the image.
MOST_FOUND = 6
LINE_WIDTH = 1.2


@dataclass(frozen=True, eq=False)
class DetectionPicture:
    """One image of `plot_detections`, with what is to be seen in it. Boxes are x1, y1, x2, y2.

    Attributes:
        name: Of the image.
        remark: What it is shown for.
        image: Brightness from 0 to 1, (height, width), or colours, (height, width, 3).
        focus: The box that it is shown for.
        truths: True boxes, (boxes, 4).
        ignored: Regions to be ignored.
        found: Detected boxes, those that matter most first: six are drawn of what is in view.
        texts: What stands at each of them.
    """

    name: str
    remark: str
    image: Floats
    focus: Floats
    truths: Floats
    ignored: Floats
    found: Floats
    texts: tuple[str, ...]


def plot_detections(
    rows: Mapping[str, Sequence[DetectionPicture]],
    path: str | Path,
    *,
    note: str = "",
    title: str | None = None,
) -> Path:
    """Draw images with true and detected boxes, a row for each kind.

    What surrounds a small box is shown enlarged.

    Args:
        rows: The images by what the row is called; empty rows are left out.
        path: The figure to write.
        note: Below the images, such as which boxes are shown.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is no image, or the file cannot be written.
    """
    shown = {name: pictures for name, pictures in rows.items() if pictures}
    if not shown:
        raise DataError("There is no image to draw. Give at least one.")
    columns = max(len(pictures) for pictures in shown.values())
    # Legend and note need the room of two panels.
    width = max(columns, 2) * PANEL_INCHES + 0.4
    height = len(shown) * (PANEL_INCHES + TITLE_INCHES) + LEGEND_INCHES + (0.3 if title else 0)
    with drawn_figure(path, size_inches=(width, height)) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        grid = figure.subplots(len(shown), columns, squeeze=False)
        for panels, (name, pictures) in zip(grid, shown.items(), strict=True):
            for panel, picture in zip(panels[: len(pictures)], pictures, strict=True):
                _draw_picture(image_axes(panel), picture)
            for panel in panels[len(pictures) :]:
                panel.set_axis_off()
            panels[0].set_ylabel(name, weight="bold")
        has_ignored = any(len(each.ignored) for row in shown.values() for each in row)
        figure.legend(
            handles=_legend(has_ignored=has_ignored),
            loc="outside lower left",
            ncols=3,
            title=note or None,
            alignment="left",
            title_fontsize=8,
        )
    return Path(path)


def _draw_picture(axes: Axes, picture: DetectionPicture) -> None:
    height, width = picture.image.shape[:2]
    view = choose_view(picture.focus, size=(height, width))
    axes.imshow(
        picture.image,
        vmin=0,
        vmax=1,
        cmap="gray",
        interpolation="antialiased",
        extent=(0, width, height, 0),
    )
    for corners in picture.ignored:
        axes.add_patch(_rectangle(corners, TRUE_COLOUR, line=":"))
    for corners in picture.truths:
        axes.add_patch(_rectangle(corners, TRUE_COLOUR, line=DASHES))
    seen = np.flatnonzero(_in_view(picture.found, view))[:MOST_FOUND]
    for corners, text in [(picture.found[row], picture.texts[row]) for row in seen]:
        axes.add_patch(_rectangle(corners, FOUND_COLOUR, line="-"))
        _write_beside(axes, corners, text, view)
    axes.set(xlim=(view[0], view[2]), ylim=(view[3], view[1]), anchor="N")
    lines = [shortened(line, MOST_LETTERS) for line in (picture.name, picture.remark)]
    axes.set_title("\n".join(lines), fontsize=7, weight="normal")


def choose_view(focus: Floats, *, size: tuple[int, int]) -> View:
    """Choose the part of an image that is shown: a square about a box, or less at the borders.

    Args:
        focus: The box, x1, y1, x2, y2.
        size: Height and width of the image.

    Returns:
        Left, upper, right and lower edge, within the image.
    """
    height, width = size
    edge = max(
        VIEW_LENGTHS * float(max(focus[2] - focus[0], focus[3] - focus[1])),
        LEAST_VIEW_SHARE * max(size),
    )
    spans = []
    for low, high, length in ((focus[0], focus[2], width), (focus[1], focus[3], height)):
        span = min(edge, length)
        start = min(max((float(low) + float(high) - span) / 2, 0.0), length - span)
        spans.append((start, start + span))
    (left, right), (upper, lower) = spans
    return left, upper, right, lower


def _in_view(boxes: Floats, view: View) -> npt.NDArray[np.bool_]:
    left, upper, right, lower = view
    inside: npt.NDArray[np.bool_] = np.all(boxes[:, :2] < [right, lower], axis=1) & np.all(
        boxes[:, 2:] > [left, upper], axis=1
    )
    return inside


def _rectangle(
    corners: Floats, colour: str, *, line: str | tuple[int, tuple[float, float]]
) -> Rectangle:
    x1, y1, x2, y2 = (float(edge) for edge in corners)
    return Rectangle(
        (x1, y1),
        x2 - x1,
        y2 - y1,
        fill=False,
        edgecolor=colour,
        linestyle=line,
        linewidth=LINE_WIDTH,
    )


def _write_beside(axes: Axes, corners: Floats, text: str, view: View) -> None:
    """Write above a box, or within it where there is no room above."""
    left, upper, right, lower = view
    x1, y1, x2, _ = (float(edge) for edge in corners)
    has_room = y1 - upper > 0.08 * (lower - upper)
    is_left = x1 < left + 0.65 * (right - left)
    axes.annotate(
        text,
        (max(x1, left) if is_left else min(x2, right), max(y1, upper)),
        xytext=(1 if is_left else -1, 1.5 if has_room else -1.5),
        textcoords="offset points",
        va="bottom" if has_room else "top",
        ha="left" if is_left else "right",
        fontsize=7,
        color=FOUND_COLOUR,
        path_effects=HALO,
        annotation_clip=True,
        clip_on=True,
    )


def _legend(*, has_ignored: bool) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=FOUND_COLOUR, label="found, with its score"),
        Line2D([], [], color=TRUE_COLOUR, linestyle=DASHES, label="true"),
    ]
    if has_ignored:
        handles.append(Line2D([], [], color=TRUE_COLOUR, linestyle=":", label="to be ignored"))
    return handles
