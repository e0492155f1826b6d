"""Pictures of geometries: the size of each feature map, as boxes in a row."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from voxlift.core.errors import DataError
from voxlift.core.geometry import Geometry
from voxlift.core.types import Triple
from voxlift.figures.style import FAINT, INK, PALETTE, drawn_figure, image_axes, size_text

STAGES = ("input", "stem", "stage 1", "stage 2", "stage 3", "stage 4")
# How depth, height and width run on the page.
DEPTH_ON_PAGE = np.array([0.55, 0.4])
HEIGHT_ON_PAGE = np.array([0.0, -1.0])
WIDTH_ON_PAGE = np.array([1.0, 0.0])


def plot_geometries(
    rows: Mapping[str, tuple[Geometry, Triple]], path: str | Path, *, title: str | None = None
) -> Path:
    """Draw the sizes of the feature maps under several geometries, a row each.

    Edges are drawn to the square root of their length, so that small maps can still be seen.

    Args:
        rows: By name, a geometry and the size of the volume that it is shown for.
        path: The figure to write.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is no row, a volume is too small for its geometry, or the file cannot be
            written.
    """
    if not rows:
        raise DataError("There is no geometry to draw. Give at least one.")
    with drawn_figure(path, size_inches=(8.6, 2.05 * len(rows) + 0.3)) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for axes, (name, (geometry, size_voxels)) in zip(panels, rows.items(), strict=True):
            image_axes(axes)
            axes.set(xlim=(-0.05, len(STAGES) * 1.6 - 0.6), ylim=(-0.6, 1.45), aspect="equal")
            axes.set_title(name)
            largest = max(size_voxels)
            sizes = map_sizes(geometry, size_voxels)
            for number, (stage, size) in enumerate(zip(STAGES, sizes, strict=True)):
                colour = FAINT if number == 0 else PALETTE[0]
                edges = np.sqrt(np.array(size) / largest)
                _draw_box(axes, 1.6 * number, edges, colour=colour)
                text = f"{stage}\n{size_text(*size)}"
                axes.text(1.6 * number, -0.12, text, va="top", fontsize=8)
    return Path(path)


def map_sizes(geometry: Geometry, size_voxels: Triple) -> list[Triple]:
    """Compute the sizes of the input and of the five feature maps, in voxels.

    Every layer pads so that an axis of n voxels strided by s keeps n / s of them, rounded up.

    Raises:
        DataError: If the volume is too small for the geometry.
    """
    geometry.check_size(size_voxels)
    depth, height, width = size_voxels
    return [
        size_voxels,
        *(
            (-(-depth // strides[0]), -(-height // strides[1]), -(-width // strides[2]))
            for strides in geometry.strides
        ),
    ]


def _draw_box(axes: Axes, left: float, edges: np.ndarray, *, colour: str) -> None:
    """Draw the three visible faces of a box whose front's lower left corner stands at `left`."""
    depth, height, width = edges
    into, up, right = depth * DEPTH_ON_PAGE, -height * HEIGHT_ON_PAGE, width * WIDTH_ON_PAGE
    corner = np.array([left, 0.0])
    faces = (
        (corner, right, up, 0.25),
        (corner + up, right, into, 0.12),
        (corner + right, into, up, 0.45),
    )
    for start, first, second, shade in faces:
        outline = [start, start + first, start + first + second, start + second]
        axes.add_patch(Polygon(outline, facecolor="white", edgecolor="none"))
        axes.add_patch(Polygon(outline, facecolor=colour, alpha=shade, edgecolor="none"))
        axes.add_patch(Polygon(outline, fill=False, edgecolor=INK, linewidth=0.8))
