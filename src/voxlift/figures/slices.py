"""Volumes as pictures: the three planes through a point, or slices in a row, true to scale."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from voxlift.core.errors import DataError
from voxlift.core.types import Triple
from voxlift.figures.style import PALETTE, drawn_figure, image_axes

Spacing = tuple[float, float, float]
Window = tuple[float, float]
Plane = npt.NDArray[np.float64]

# Without a window, the darkest and the brightest percent of the voxels are clipped.
CLIPPED_PERCENT = 1
PLANES = ("axial", "coronal", "sagittal")
CELL_INCHES = 1.7


def plot_planes(
    volumes: Sequence[npt.ArrayLike],
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    window_hu: Window | None = None,
    masks: Sequence[npt.ArrayLike] | None = None,
    title: str | None = None,
) -> Path:
    """Draw volumes side by side, each as three planes through its mask's centre or its own.

    Each picture is true to the spacing. In the coronal and sagittal planes the last slice of the
    depth axis is on top, as head is over feet in CT.

    Args:
        volumes: Volumes, (depth, height, width) each.
        path: The figure to write.
        titles: A heading for each volume.
        spacing_mm: Distance between voxels, the same for all volumes.
        window_hu: The values shown as black and as white, in the volumes' unit; None clips the
            darkest and the brightest percent of each volume.
        masks: A mask for each volume, drawn as an outline.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If a volume has not three dimensions or is empty, or titles or masks do not fit.
    """
    arrays = [_checked(volume) for volume in volumes]
    outlines = _masks(masks, arrays)
    if not arrays or (titles is not None and len(titles) != len(arrays)):
        raise DataError(
            f"There are {len(arrays)} volumes and "
            f"{'no' if titles is None else len(titles)} titles to draw. Give at least one volume, "
            "and a title for each or none."
        )
    heights_inches = _row_heights(arrays, spacing_mm)
    size_inches = (CELL_INCHES * len(arrays) + 0.6, sum(heights_inches) + 1.1)
    with drawn_figure(path, size_inches=size_inches) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        grid = figure.subplots(3, len(arrays), squeeze=False, height_ratios=heights_inches)
        for column, (array, mask) in enumerate(zip(arrays, outlines, strict=True)):
            point = _centre(array, mask)
            limits = window_hu or _limits(array)
            for row, plane in enumerate(PLANES):
                axes = image_axes(grid[row, column])
                _draw_plane(axes, array, mask, plane, point, spacing_mm, limits)
                if column == 0:
                    axes.set_ylabel(plane)
            if titles is not None:
                grid[0, column].set_title(titles[column], loc="center", fontweight="normal")
            _draw_scale(grid[0, column], array.shape[2] * spacing_mm[2])
    return Path(path)


def plot_montage(
    volume: npt.ArrayLike,
    path: str | Path,
    *,
    num_slices: int = 12,
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    window_hu: Window | None = None,
    mask: npt.ArrayLike | None = None,
    title: str | None = None,
) -> Path:
    """Draw axial slices of one volume, spread evenly over its depth and true to the spacing.

    Args:
        volume: The volume, (depth, height, width).
        path: The figure to write.
        num_slices: How many slices to draw, at most.
        spacing_mm: Distance between voxels.
        window_hu: The values shown as black and as white; None clips the darkest and the brightest
            percent.
        mask: A mask, drawn as an outline.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If the volume has not three dimensions or is empty, or the mask does not fit.
    """
    array = _checked(volume)
    outline = _masks(None if mask is None else [mask], [array])[0]
    limits = window_hu or _limits(array)
    chosen = np.unique(np.linspace(0, len(array) - 1, max(1, num_slices)).round().astype(int))
    columns = min(len(chosen), 6)
    rows = math.ceil(len(chosen) / columns)
    height_inches = rows * (CELL_INCHES + 0.2) + (0.4 if title else 0.1)
    with drawn_figure(path, size_inches=(columns * CELL_INCHES, height_inches)) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        for number, depth in enumerate(chosen):
            axes = image_axes(figure.add_subplot(rows, columns, number + 1))
            point = (int(depth), 0, 0)
            _draw_plane(axes, array, outline, "axial", point, spacing_mm, limits)
            axes.set_title(
                f"{depth * spacing_mm[0]:.0f} mm", loc="center", fontweight="normal", fontsize=8
            )
    return Path(path)


def plane_through(array: npt.NDArray[Any], plane: str, point: Triple) -> npt.NDArray[Any]:
    """Cut one plane out of a volume, the way up that it is drawn.

    Args:
        array: The volume, (depth, height, width).
        plane: `axial` (rows are height), `coronal` or `sagittal` (rows are depth, the last on top).
        point: Index of a voxel in the plane.
    """
    depth, height, width = point
    planes: dict[str, npt.NDArray[Any]] = {
        "axial": array[depth],
        "coronal": array[::-1, height],
        "sagittal": array[::-1, :, width],
    }
    return planes[plane]


def plane_spacing(plane: str, spacing_mm: Spacing) -> tuple[float, float]:
    """Give the distance of the rows and of the columns of a plane."""
    depth_mm, height_mm, width_mm = spacing_mm
    return {
        "axial": (height_mm, width_mm),
        "coronal": (depth_mm, width_mm),
        "sagittal": (depth_mm, height_mm),
    }[plane]


def round_length(most: float) -> float:
    """Find the longest of 1, 2, 5, 10, 20, ... that is no longer than this."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most)


def _row_heights(arrays: Sequence[Plane], spacing_mm: Spacing) -> list[float]:
    """Give each row of planes the height that the largest volume fills at the columns' width."""
    depth_mm, height_mm, width_mm = (
        max(array.shape[axis] for array in arrays) * spacing_mm[axis] for axis in range(3)
    )
    # The name of a plane needs some room, even where the volume is thin.
    scale = CELL_INCHES / max(width_mm, height_mm)
    thin = min(max(depth_mm * scale, 0.6), 2 * CELL_INCHES)
    return [max(height_mm * scale, 0.6), thin, thin]


def _draw_plane(
    axes: Axes,
    array: Plane,
    mask: Plane | None,
    plane: str,
    point: Triple,
    spacing_mm: Spacing,
    limits: Window,
) -> None:
    """Draw a plane in millimetres, so that its picture is true to the spacing."""
    row_mm, column_mm = plane_spacing(plane, spacing_mm)
    picture = plane_through(array, plane, point)
    rows, columns = picture.shape
    extent = (0, columns * column_mm, rows * row_mm, 0)
    axes.imshow(picture, extent=extent, vmin=limits[0], vmax=limits[1], aspect="equal")
    if mask is None:
        return
    # A rim of zeros closes outlines at the border.
    rimmed = np.pad(plane_through(mask, plane, point), 1)
    if rimmed.any():
        axes.contour(
            (np.arange(columns + 2) - 0.5) * column_mm,
            (np.arange(rows + 2) - 0.5) * row_mm,
            rimmed,
            levels=[0.5],
            colors=[PALETTE[4]],
            linewidths=1,
        )
        axes.set(xlim=(0, columns * column_mm), ylim=(rows * row_mm, 0))


def _draw_scale(axes: Axes, width_mm: float) -> None:
    """Draw a bar of a round length, about a third of the width."""
    length_mm = round_length(width_mm / 2)
    axes.annotate(
        f"{length_mm:g} mm",
        (length_mm / 2 / width_mm, 0),
        xycoords="axes fraction",
        xytext=(0, -5),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=7,
    )
    axes.plot(
        [0, length_mm / width_mm],
        [-0.03, -0.03],
        transform=axes.transAxes,
        color="black",
        clip_on=False,
        linewidth=1.5,
    )


def _checked(volume: npt.ArrayLike) -> Plane:
    array = np.asarray(volume, dtype=np.float64)
    if array.ndim != 3 or not array.size:
        raise DataError(
            f"A volume to draw has the shape {array.shape}, but (depth, height, width) is needed. "
            "Pick one channel and one case first."
        )
    return array


def _masks(masks: Sequence[npt.ArrayLike] | None, arrays: Sequence[Plane]) -> list[Plane | None]:
    if masks is None:
        return [None] * len(arrays)
    outlines = [np.not_equal(np.asarray(mask), 0).astype(np.float64) for mask in masks]
    shapes = [mask.shape for mask in outlines]
    if shapes != [array.shape for array in arrays]:
        raise DataError(
            f"The masks have the shapes {shapes}, but the volumes "
            f"{[array.shape for array in arrays]}. Give one mask of the same shape for each volume."
        )
    return list(outlines)


def _limits(array: Plane) -> Window:
    low, high = np.percentile(array, [CLIPPED_PERCENT, 100 - CLIPPED_PERCENT])
    return float(low), float(high)


def _centre(array: Plane, mask: Plane | None) -> Triple:
    """Give the voxel nearest to the mask's centre, or to the volume's."""
    middle = [length // 2 for length in array.shape]
    if mask is not None and mask.any():
        middle = [round(float(index.mean())) for index in np.nonzero(mask)]
    return middle[0], middle[1], middle[2]
