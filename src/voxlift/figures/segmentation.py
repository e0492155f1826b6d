"""What a segmentation found, outlined over the image: one case, or the worst of many."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.core.types import Triple
from voxlift.figures.sections import (
    DASHES,
    MARGIN_INCHES,
    MOST_LETTERS,
    Block,
    Layer,
    cut_sections,
    draw_blocks,
    sampled_window,
    shortened,
)
from voxlift.figures.slices import Spacing, Window
from voxlift.figures.structure_places import StructurePlace, count_voxels, locate_structure
from voxlift.figures.style import INK, OUTLINE_PALETTE, drawn_figure

Array = npt.NDArray[Any]
Structures = Mapping[str, Sequence[int]]

MOST_STRUCTURES = len(OUTLINE_PALETTE)
# A structure that is small in its volume is shown with this many times its length around it.
DETAIL_LENGTHS = 4
LEAST_DETAIL_MM = 30.0
# Less of a cut is not worth that the rest is not seen.
DETAIL_SHARE = 0.6
WIDTH_INCHES = 7.0
# Of a block where two stand side by side.
PAIRED_INCHES = 4.3
# Of a letter of the legend.
LETTER_INCHES = 0.075
MOST_TITLE_LETTERS = 60
NOTE = "#666666"
POSITIONS_NOTE = "Positions count from the first slice at the foot, front and right."


@dataclass(frozen=True, eq=False)
class JudgedCase:
    """One case of `plot_worst_cases`.

    Attributes:
        id: Its name.
        dice: Its mean Dice.
        image: The voxels, (depth, height, width).
        prediction: What was found, as values.
        truth: What is there, as values.
        spacing_mm: Distance between voxels.
    """

    id: str
    dice: float
    image: Array
    prediction: Array
    truth: Array
    spacing_mm: Spacing


@dataclass(frozen=True)
class _Found:
    """A structure with where it lies."""

    name: str
    values: tuple[int, ...]
    colour: str
    place: StructurePlace
    num_found: int


def values_of_structures(labels: LabelScheme) -> dict[str, tuple[int, ...]]:
    """Tell which values of a written mask stand for each structure.

    A region that was painted over by a later one, which lies within it, has the value of that one
    as well.
    """
    if not labels.is_overlapping:
        return {
            name: (value,) for name, value in zip(labels.names[1:], labels.values[1:], strict=True)
        }
    return {
        region.name: tuple(
            painted.value
            for painted in labels.regions[number:]
            if set(painted.members) <= set(region.members)
        )
        for number, region in enumerate(labels.regions)
    }


def plot_overview(
    image: Array,
    mask: Array,
    path: str | Path,
    *,
    structures: Structures,
    spacing_mm: Spacing,
    window: Window | None = None,
    title: str | None = None,
    truth: Array | None = None,
) -> Path:
    """Draw a row for each structure that was found: three planes through its centre, outlined.

    The arrays are in canonical order: depth from foot to head, height from front to back, width
    from the patient's right to the left. Positions count from the first slice. The centre is the
    voxel of the structure that is nearest to its centroid. A structure that is small in its volume
    is shown as a detail. Of more than six structures the largest are drawn. Of the image only the
    planes and a sample of the voxels are read, so that it may lie on disk.

    Args:
        image: The volume, (depth, height, width).
        mask: What was found, as values from 0 on.
        path: The figure to write.
        structures: The values that stand for each structure (see `values_of_structures`).
        spacing_mm: Distance between voxels.
        window: The values shown as black and as white; None goes by a sample of the voxels.
        title: Heading of the figure.
        truth: What is there, in the same values; drawn dashed.

    Returns:
        The path of the figure.

    Raises:
        DataError: If the arrays do not fit each other, or the file cannot be written.
    """
    masks = [mask] if truth is None else [mask, truth]
    _check(image, masks)
    limits = window or sampled_window(image)
    found, more = _largest(masks, structures, spacing_mm)
    layers = _layers(masks, found)
    blocks = []
    for structure in found:
        first, last = _view(structure.place, image.shape, spacing_mm)
        sections = cut_sections(
            image,
            structure.place.point,
            spacing_mm=spacing_mm,
            layers=layers,
            first=first,
            last=last,
        )
        volume_ml = structure.num_found * math.prod(spacing_mm) / 1000
        remark = f"{volume_ml:.3g} ml" if volume_ml < 100 else f"{volume_ml:.0f} ml"
        if not structure.num_found:
            remark = "not found"
        blocks.append(Block(structure.name, remark, sections, limits))
    if not blocks:
        depth, height, width = (length // 2 for length in image.shape)
        sections = cut_sections(image, (depth, height, width), spacing_mm=spacing_mm, layers=[])
        blocks.append(Block("nothing found", "the middle of the volume", sections, limits))
    notes = [POSITIONS_NOTE]
    if more:
        shown = ", ".join(shortened(name, 24) for name in more[:4]) + (
            ", ..." if len(more) > 4 else ""
        )
        notes.insert(0, f"{len(more)} smaller structures are not shown: {shown}.")
    with drawn_figure(path, size_inches=(WIDTH_INCHES, 4)) as figure:
        _draw(
            figure,
            blocks,
            legend=_legend(found, has_truth=truth is not None),
            title=title,
            notes=notes,
        )
    return Path(path)


def plot_worst_cases(
    cases: Iterable[JudgedCase],
    path: str | Path,
    *,
    structures: Structures,
    window: Window | None = None,
    title: str | None = None,
) -> Path:
    """Draw cases, each as three planes through the truth's centre, outlined with the prediction.

    The arrays are in canonical order, as for `plot_overview`. A case without any truth is cut
    through what was found.

    Args:
        cases: The cases in the order to draw them; read one by one, and not kept.
        path: The figure to write.
        structures: The values that stand for each structure; of more than six, the first count.
        window: The values shown as black and as white; None goes by a sample of each image.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is no case, arrays do not fit, or the file cannot be written.
    """
    shown = dict(list(structures.items())[:MOST_STRUCTURES])
    colours = dict(zip(shown, OUTLINE_PALETTE, strict=False))
    blocks = []
    for case in cases:
        _check(case.image, [case.prediction, case.truth])
        place = _place_of_all([case.truth, case.prediction], shown, case.spacing_mm)
        layers = [
            Layer(mask, tuple(values), colours[name], is_truth=is_truth)
            for mask, is_truth in ((case.prediction, False), (case.truth, True))
            for name, values in shown.items()
        ]
        depth, height, width = (length // 2 for length in case.image.shape)
        point, first, last = (depth, height, width), (0, 0, 0), None
        if place is not None:
            point = place.point
            first, last = _view(place, case.image.shape, case.spacing_mm)
        sections = cut_sections(
            case.image, point, spacing_mm=case.spacing_mm, layers=layers, first=first, last=last
        )
        limits = window or sampled_window(case.image)
        blocks.append(Block(case.id, f"Dice {case.dice:.2f}", sections, limits))
    if not blocks:
        raise DataError("There is no case to draw. Give at least one.")
    handles = [
        Line2D([], [], color=colours[name], label=shortened(name, MOST_LETTERS)) for name in shown
    ]
    with drawn_figure(path, size_inches=(WIDTH_INCHES, 4)) as figure:
        _draw(
            figure,
            blocks,
            legend=[*handles, *_line_styles()],
            title=title,
            notes=[POSITIONS_NOTE],
            blocks_a_row=2 if len(blocks) > 3 else 1,
        )
    return Path(path)


def _check(image: Array, masks: Sequence[Array]) -> None:
    if image.ndim != 3 or not image.size or any(mask.shape != image.shape for mask in masks):
        raise DataError(
            f"The volume to draw has the shape {image.shape} and its masks "
            f"{[mask.shape for mask in masks]}, but the same (depth, height, width) is needed. "
            "Pick one channel and one case first."
        )


def _largest(
    masks: Sequence[Array], structures: Structures, spacing_mm: Spacing
) -> tuple[list[_Found], list[str]]:
    """Find the largest structures, in the prediction or else in the truth, and name the others."""
    counted = [count_voxels(mask) for mask in masks]
    sizes = {
        name: [sum(totals.get(value, 0) for value in values) for totals, _ in counted]
        for name, values in structures.items()
    }
    present = sorted(
        (name for name in structures if max(sizes[name])), key=lambda name: -max(sizes[name])
    )
    kept = [name for name in structures if name in present[:MOST_STRUCTURES]]
    found = []
    for name, colour in zip(kept, OUTLINE_PALETTE, strict=False):
        values = tuple(structures[name])
        source = 0 if sizes[name][0] else 1
        place = _locate(masks[source], values, counted[source][1], spacing_mm)
        found.append(_Found(name, values, colour, place, sizes[name][0]))
    return found, present[MOST_STRUCTURES:]


def _locate(
    mask: Array, values: Sequence[int], slices: Mapping[int, Sequence[int]], spacing_mm: Spacing
) -> StructurePlace:
    depths = sorted({depth for value in values for depth in slices.get(value, ())})
    return locate_structure(mask, values, depths=depths, spacing_mm=spacing_mm)


def _place_of_all(
    masks: Sequence[Array], structures: Structures, spacing_mm: Spacing
) -> StructurePlace | None:
    """Find where all structures together lie, in the first mask that holds any."""
    values = sorted({value for members in structures.values() for value in members})
    for mask in masks:
        totals, slices = count_voxels(mask)
        if any(value in totals for value in values):
            return _locate(mask, values, slices, spacing_mm)
    return None


def _layers(masks: Sequence[Array], found: Sequence[_Found]) -> list[Layer]:
    """Outline the prediction first, and the truth over it."""
    return [
        Layer(mask, structure.values, structure.colour, is_truth=is_truth)
        for mask, is_truth in zip(masks, (False, True), strict=False)
        for structure in found
    ]


def _view(
    place: StructurePlace, size_voxels: Sequence[int], spacing_mm: Spacing
) -> tuple[Triple, Triple]:
    """Choose the box that is shown: the volume, or the surroundings of a small structure."""
    lengths_mm = [length * step for length, step in zip(size_voxels, spacing_mm, strict=True)]
    extent_mm = max(
        (last - first + 1) * step
        for first, last, step in zip(place.first, place.last, spacing_mm, strict=True)
    )
    side_mm = max(DETAIL_LENGTHS * extent_mm, LEAST_DETAIL_MM)
    is_whole = side_mm > DETAIL_SHARE * max(lengths_mm)
    firsts, lasts = [], []
    for axis, step in enumerate(spacing_mm):
        middle = (place.first[axis] + place.last[axis]) / 2
        half = math.inf if is_whole else side_mm / step / 2
        firsts.append(int(max(0, middle - half)))
        lasts.append(int(min(size_voxels[axis] - 1, math.ceil(min(middle + half, 1e9)))))
    return (firsts[0], firsts[1], firsts[2]), (lasts[0], lasts[1], lasts[2])


def _legend(found: Sequence[_Found], *, has_truth: bool) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=structure.colour, label=shortened(structure.name, MOST_LETTERS))
        for structure in found
    ]
    return [*handles, *_line_styles()] if has_truth and found else handles


def _line_styles() -> list[Artist]:
    return [
        Line2D([], [], color=INK, linewidth=1.1, label="prediction"),
        Line2D([], [], color=INK, linewidth=1.1, linestyle=DASHES, label="truth (white)"),
    ]


def _draw(
    figure: Figure,
    blocks: Sequence[Block],
    *,
    legend: Sequence[Artist],
    title: str | None,
    notes: Sequence[str] = (),
    blocks_a_row: int = 1,
) -> None:
    """Draw the blocks with a title above, and legend and notes below."""
    width_inches = WIDTH_INCHES if blocks_a_row == 1 else 2 * PAIRED_INCHES
    letters = max((len(str(handle.get_label())) for handle in legend), default=0)
    columns = max(1, min(4, int(width_inches / (letters * LETTER_INCHES + 0.6))))
    legend_inches = 0.2 * math.ceil(len(legend) / columns)
    notes_inches = 0.15 * len(notes)
    draw_blocks(
        figure,
        blocks,
        blocks_a_row=blocks_a_row,
        block_inches=WIDTH_INCHES if blocks_a_row == 1 else PAIRED_INCHES,
        most_inches=2.9 if blocks_a_row == 1 else 1.9,
        above_inches=0.42 if title else 0.1,
        below_inches=legend_inches + notes_inches + 0.1,
    )
    width, height = figure.get_size_inches()
    if title:
        figure.text(
            MARGIN_INCHES / width,
            1 - 0.1 / height,
            shortened(title, MOST_TITLE_LETTERS),
            fontsize=11,
            weight="bold",
            va="top",
        )
    if legend:
        figure.legend(
            handles=legend,
            loc="upper left",
            bbox_to_anchor=(MARGIN_INCHES / width, (legend_inches + notes_inches + 0.1) / height),
            ncols=columns,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.8,
        )
    for number, note in enumerate(reversed(notes)):
        figure.text(
            MARGIN_INCHES / width, (0.07 + 0.15 * number) / height, note, fontsize=7, color=NOTE
        )
