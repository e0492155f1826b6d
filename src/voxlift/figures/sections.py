"""Three planes through a point of a large volume, with outlines, positions and patient's sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, withStroke

from voxlift.core.types import Triple
from voxlift.figures.slices import PLANES, Window, plane_spacing, plane_through, round_length
from voxlift.figures.structure_places import Mask, Spacing, values_mask
from voxlift.figures.style import FAINT

Picture = npt.NDArray[np.float32]

# What stands at the top, bottom, left and right of each plane of a volume in canonical order.
SIDES = {
    "axial": ("A", "P", "R", "L"),
    "coronal": ("H", "F", "R", "L"),
    "sagittal": ("H", "F", "A", "P"),
}
# Limits are taken from about as many voxels, spread over the volume.
SAMPLED_VOXELS = 1_000_000
CLIPPED_PERCENT = 0.5

GAP_INCHES = 0.08
MARGIN_INCHES = 0.12
CAPTION_INCHES = 0.17
HEADING_INCHES = 0.18
# A narrow plane has at least the room of its caption.
LEAST_STEP_INCHES = 1.08
MOST_LETTERS = 38
# Letters need room.
LEAST_LETTERED_INCHES = 0.45
HALO = (withStroke(linewidth=1.9, foreground="#000000a8"), Normal())
DASHES = (0, (2.2, 2.2))


@dataclass(frozen=True)
class Layer:
    """A structure of a mask, to be outlined.

    Attributes:
        mask: Values from 0 on, (depth, height, width).
        values: The values that stand for the structure.
        colour: Of its outline.
        is_truth: Whether the outline is white and dashed, over those of the prediction.
    """

    mask: Mask
    values: tuple[int, ...]
    colour: str
    is_truth: bool = False


@dataclass(frozen=True)
class Section:
    """One plane of a volume, cut out and ready to be drawn.

    Attributes:
        plane: `axial`, `coronal` or `sagittal`.
        position_mm: Of the plane, from the first slice.
        picture: Its voxels, the way up that they are drawn.
        spacing_mm: Distance of rows and columns.
        view_mm: Top, bottom, left and right of what is shown.
        outlines: The structures in the plane.
    """

    plane: str
    position_mm: float
    picture: Picture
    spacing_mm: tuple[float, float]
    view_mm: tuple[float, float, float, float]
    outlines: tuple[tuple[npt.NDArray[np.bool_], Layer], ...]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of what is shown."""
        top, bottom, left, right = self.view_mm
        return bottom - top, right - left


@dataclass(frozen=True)
class Block:
    """The three planes through one point, with a heading.

    Attributes:
        heading: In bold above the planes.
        remark: Beside the heading.
        sections: The planes.
        window: The values shown as black and as white.
    """

    heading: str
    remark: str
    sections: tuple[Section, ...]
    window: Window

    def inches_per_mm(self, width_inches: float, most_inches: float) -> float:
        """Scale the three planes alike, so that side by side they fit the width."""
        heights, widths = zip(*(section.size_mm for section in self.sections), strict=True)
        room_inches = width_inches - (len(widths) - 1) * GAP_INCHES
        wide = list(widths)
        while True:
            scale = (room_inches - (len(widths) - len(wide)) * LEAST_STEP_INCHES) / sum(wide)
            still_wide = [width for width in wide if width * scale >= LEAST_STEP_INCHES]
            if len(still_wide) == len(wide):
                return float(min(scale, most_inches / max(heights)))
            wide = still_wide

    def height_inches(self, width_inches: float, most_inches: float) -> float:
        """How much room the block takes."""
        tallest = max(section.size_mm[0] for section in self.sections)
        scale = self.inches_per_mm(width_inches, most_inches)
        return HEADING_INCHES + CAPTION_INCHES + tallest * scale


def cut_sections(
    image: npt.NDArray[Any],
    point: Triple,
    *,
    spacing_mm: Spacing,
    layers: Sequence[Layer],
    first: Triple = (0, 0, 0),
    last: Triple | None = None,
) -> tuple[Section, ...]:
    """Cut the three planes through a voxel out of a volume; nothing else of it is read.

    Args:
        image: The volume, (depth, height, width).
        point: The voxel.
        spacing_mm: Distance between voxels.
        layers: The structures to outline.
        first: The lowest index along each axis that is shown.
        last: The highest; up to the end if left out.
    """
    end = last or (image.shape[0] - 1, image.shape[1] - 1, image.shape[2] - 1)
    # The depth axis is drawn from its end.
    depths = (image.shape[0] - 1 - end[0], image.shape[0] - 1 - first[0])
    heights, widths = (first[1], end[1]), (first[2], end[2])
    ranges = {
        "axial": (heights, widths),
        "coronal": (depths, widths),
        "sagittal": (depths, heights),
    }
    sections = []
    for axis, plane in enumerate(PLANES):
        row_mm, column_mm = plane_spacing(plane, spacing_mm)
        rows, columns = ranges[plane]
        outlines = []
        for layer in layers:
            outline = values_mask(plane_through(layer.mask, plane, point), layer.values)
            if outline.any():
                outlines.append((outline, layer))
        sections.append(
            Section(
                plane=plane,
                position_mm=point[axis] * spacing_mm[axis],
                picture=np.asarray(plane_through(image, plane, point), dtype=np.float32),
                spacing_mm=(row_mm, column_mm),
                view_mm=(
                    rows[0] * row_mm,
                    (rows[1] + 1) * row_mm,
                    columns[0] * column_mm,
                    (columns[1] + 1) * column_mm,
                ),
                outlines=tuple(outlines),
            )
        )
    return tuple(sections)


def sampled_window(image: npt.NDArray[Any]) -> Window:
    """Choose what is shown as black and as white by a sample of the voxels."""
    step = max(1, int((image.size / SAMPLED_VOXELS) ** (1 / 3)))
    sample = np.asarray(image[::step, ::step, ::step], dtype=np.float32)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, [CLIPPED_PERCENT, 100 - CLIPPED_PERCENT])
    return float(low), float(max(high, low + 1e-6))


def shortened(text: str, most: int) -> str:
    """Leave out the middle of a long text, such as a file's name."""
    if len(text) <= most:
        return text
    return text[: most // 2 - 2] + "..." + text[-(most // 2 - 1) :]


def draw_blocks(
    figure: Figure,
    blocks: Sequence[Block],
    *,
    blocks_a_row: int,
    block_inches: float,
    most_inches: float,
    above_inches: float,
    below_inches: float,
) -> None:
    """Set the figure's size and draw blocks in rows, each true to its spacing and with a bar.

    Args:
        figure: An empty figure.
        blocks: What to draw.
        blocks_a_row: How many blocks stand side by side.
        block_inches: Width of a block, at most.
        most_inches: Height of a plane, at most.
        above_inches: Room for a title.
        below_inches: Room for a legend.
    """
    rows = [blocks[start : start + blocks_a_row] for start in range(0, len(blocks), blocks_a_row)]
    heights = [max(block.height_inches(block_inches, most_inches) for block in row) for row in rows]
    step_inches = block_inches + 3 * GAP_INCHES
    width = 2 * MARGIN_INCHES + min(blocks_a_row, len(blocks)) * step_inches - 3 * GAP_INCHES
    height = above_inches + sum(heights) + len(rows) * 2 * GAP_INCHES + below_inches
    figure.set_layout_engine("none")
    figure.set_size_inches(width, height)
    top = height - above_inches
    for row, row_inches in zip(rows, heights, strict=True):
        for number, block in enumerate(row):
            scale = block.inches_per_mm(block_inches, most_inches)
            corner = (MARGIN_INCHES + number * step_inches, top)
            _draw_block(figure, block, corner_inches=corner, inches_per_mm=scale)
        top -= row_inches + 2 * GAP_INCHES


def _draw_block(
    figure: Figure, block: Block, *, corner_inches: tuple[float, float], inches_per_mm: float
) -> None:
    """Draw a block whose upper left corner lies there, from the figure's lower left one."""
    width, height = figure.get_size_inches()
    left, top = corner_inches
    heading = figure.text(
        left / width,
        top / height,
        shortened(block.heading, MOST_LETTERS),
        weight="bold",
        fontsize=9,
        va="top",
    )
    end_inches = heading.get_window_extent().x1 / figure.dpi
    figure.text((end_inches + 0.1) / width, top / height, block.remark, fontsize=8, va="top")
    top -= HEADING_INCHES + CAPTION_INCHES
    for number, section in enumerate(block.sections):
        rows, columns = (length * inches_per_mm for length in section.size_mm)
        box = (left / width, (top - rows) / height, columns / width, rows / height)
        axes = figure.add_axes(box)
        draw_section(axes, section, block.window, size_inches=(rows, columns))
        figure.text(
            left / width,
            (top + 0.03) / height,
            f"{section.plane}, {section.position_mm:.1f} mm",
            fontsize=7.5,
        )
        if number == 0:
            draw_bar(axes, section, inches_per_mm=inches_per_mm)
        left += max(columns, LEAST_STEP_INCHES) + GAP_INCHES


def draw_section(
    axes: Axes, section: Section, window: Window, *, size_inches: tuple[float, float]
) -> None:
    """Draw a plane with its outlines and the patient's sides, in millimetres.

    Args:
        axes: As high and wide as the view is.
        section: The plane.
        window: The values shown as black and as white.
        size_inches: Height and width of the axes.
    """
    rows, columns = section.picture.shape
    row_mm, column_mm = section.spacing_mm
    axes.imshow(
        section.picture,
        extent=(0, columns * column_mm, rows * row_mm, 0),
        vmin=window[0],
        vmax=window[1],
        aspect="auto",
        interpolation="antialiased",
    )
    for outline, layer in section.outlines:
        _draw_outline(axes, outline, layer, section.spacing_mm)
    top, bottom, left, right = section.view_mm
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT, linewidth=0.4)
    for number, letter in enumerate(SIDES[section.plane]):
        if size_inches[number // 2] < LEAST_LETTERED_INCHES:
            continue
        place, alignment = (
            ((0.5, 0.985), ("center", "top")),
            ((0.5, 0.015), ("center", "bottom")),
            ((0.015, 0.5), ("left", "center")),
            ((0.985, 0.5), ("right", "center")),
        )[number]
        axes.text(
            *place,
            letter,
            transform=axes.transAxes,
            ha=alignment[0],
            va=alignment[1],
            color="white",
            fontsize=7,
            path_effects=HALO,
        )


def _draw_outline(
    axes: Axes,
    outline: npt.NDArray[np.bool_],
    layer: Layer,
    spacing_mm: tuple[float, float],
) -> None:
    rows, columns = (np.flatnonzero(outline.any(axis=axis)) for axis in (1, 0))
    part = outline[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # A rim of zeros closes outlines at the border.
    rimmed = np.pad(part, 1).astype(np.float32)
    contours = axes.contour(
        (columns[0] + np.arange(rimmed.shape[1]) - 0.5) * spacing_mm[1],
        (rows[0] + np.arange(rimmed.shape[0]) - 0.5) * spacing_mm[0],
        rimmed,
        levels=[0.5],
        colors=["white" if layer.is_truth else layer.colour],
        linewidths=1.0 if layer.is_truth else 1.4,
        linestyles=[DASHES if layer.is_truth else "solid"],
    )
    contours.set(path_effects=HALO)


def draw_bar(axes: Axes, section: Section, *, inches_per_mm: float) -> None:
    """Draw a bar of a round length, at most a third of the width, into the lower left corner."""
    _, bottom, left, right = section.view_mm
    length_mm = round_length((right - left) / 3)
    pad_mm = 0.07 / inches_per_mm
    ends = (left + pad_mm, left + pad_mm + length_mm)
    axes.plot(
        ends,
        [bottom - pad_mm] * 2,
        color="white",
        linewidth=2,
        solid_capstyle="butt",
        path_effects=(withStroke(linewidth=3.2, foreground="#000000b0"), Normal()),
    )
    axes.text(
        ends[0],
        bottom - 1.5 * pad_mm,
        f"{length_mm:g} mm",
        color="white",
        fontsize=6.5,
        va="bottom",
        path_effects=HALO,
    )
