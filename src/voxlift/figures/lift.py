"""Pictures of the method: a photograph becoming a volume, and what the stem learns from it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

from voxlift.core.errors import DataError
from voxlift.figures.style import FAINT, INK, PALETTE, drawn_figure, image_axes, size_text

Photograph = npt.NDArray[np.uint8]
CHANNELS = ("red", "green", "blue")
# The tints of the channels' frames: vermilion, green and blue of the palette.
CHANNEL_TINTS = (PALETTE[1], PALETTE[2], PALETTE[0])


def plot_lift(image: npt.ArrayLike, path: str | Path, *, title: str | None = None) -> Path:
    """Draw how one photograph becomes a thin volume: its colour channels become three slices.

    Args:
        image: The photograph, uint8 (height, width, 3).
        path: The figure to write.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If it is no such photograph, or the file cannot be written.
    """
    photograph = _checked(image)
    height, width = photograph.shape[:2]
    with drawn_figure(path, size_inches=(9.5, 2.2 if title is None else 2.5)) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        panels = figure.subplots(1, 7, gridspec_kw={"width_ratios": [1, 0.25, 1, 1, 1, 0.25, 1.5]})
        for axes in panels:
            image_axes(axes)
        panels[0].imshow(photograph)
        panels[0].set_xlabel(f"photograph\n{size_text(3, height, width)}")
        _draw_arrow(panels[1])
        for channel, axes in enumerate(panels[2:5]):
            axes.imshow(photograph[..., channel], vmin=0, vmax=255)
            axes.set_xlabel(f"{CHANNELS[channel]}\nslice {channel}")
            for spine in axes.spines.values():
                spine.set(visible=True, color=CHANNEL_TINTS[channel], linewidth=2)
        _draw_arrow(panels[5])
        _draw_stack(panels[6], photograph)
        panels[6].set_xlabel(f"volume, one channel\n{size_text(1, 3, height, width)}")
    return Path(path)


def plot_lifted_with_kernels(
    images: Sequence[npt.ArrayLike],
    kernels: npt.ArrayLike,
    path: str | Path,
    *,
    max_images: int = 4,
    max_kernels: int = 16,
    title: str | None = None,
) -> Path:
    """Draw lifted photographs beside the stem kernels that were learned from such.

    Photographs are cropped to their central square. The kernels with the largest weights come
    first; each is a row of its depth slices, scaled to
    its own largest weight and summed over its input channels.

    Args:
        images: Photographs, uint8 (height, width, 3) each.
        kernels: Weights of the stem convolution.
        path: The figure to write.
        max_images: How many photographs to draw, at most.
        max_kernels: How many kernels to draw, at most.
        title: Heading of the figure.

    Shape:
        `kernels`: `(out channels, in channels, depth, height, width)`.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is no photograph, or the kernels are none of a 3D convolution.
    """
    photographs = [_central_square(_checked(image)) for image in images[:max_images]]
    weights = np.asarray(kernels, dtype=np.float64)
    if not photographs or weights.ndim != 5 or not np.isfinite(weights).all():
        raise DataError(
            f"There are {len(photographs)} photographs and kernels of the shape {weights.shape}, "
            "but at least one photograph and the finite weights of a 3D convolution, "
            "(out, in, depth, height, width), are needed."
        )
    picture = kernel_montage(weights, max_kernels=max_kernels)
    left_inches, height_inches = 5.2, 1.3 * len(photographs) + 0.5
    right_inches = min(7.0, height_inches * picture.shape[1] / picture.shape[0] + 0.6)
    with drawn_figure(path, size_inches=(left_inches + right_inches, height_inches)) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        parts = figure.subfigures(1, 2, squeeze=False, width_ratios=[left_inches, right_inches])
        left, right = parts[0]
        grid = left.subplots(len(photographs), 4, squeeze=False)
        for row, photograph in enumerate(photographs):
            image_axes(grid[row, 0]).imshow(photograph)
            for channel in range(3):
                axes = image_axes(grid[row, channel + 1])
                axes.imshow(photograph[..., channel], vmin=0, vmax=255)
        headings = ("photograph", "slice 0", "slice 1", "slice 2")
        for axes, heading in zip(grid[0], headings, strict=True):
            axes.set_title(heading, loc="center", fontweight="normal")
        axes = image_axes(right.add_subplot())
        image = axes.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(
            f"stem kernels {size_text(*weights.shape[2:])}, a row of slices each",
            loc="center",
            fontweight="normal",
        )
        bar = right.colorbar(image, ax=axes, shrink=0.6, ticks=[-1, 0, 1])
        bar.outline.set_visible(False)
    return Path(path)


def kernel_montage(
    kernels: npt.NDArray[np.float64], *, max_kernels: int = 16
) -> npt.NDArray[np.float64]:
    """Lay kernels out in two columns, each as a row of its depth slices with gaps of NaN.

    Args:
        kernels: Weights of a 3D convolution.
        max_kernels: How many kernels to lay out; those with the largest weights come first.

    Shape:
        `(out channels, in channels, depth, height, width)` -> `(rows, columns)` in -1 to 1.
    """
    summed = kernels.sum(axis=1)
    strength = np.square(summed).sum(axis=(1, 2, 3))
    chosen = summed[np.argsort(-strength, kind="stable")[:max_kernels]]
    num_kernels, depth, height, width = chosen.shape
    largest = np.abs(chosen).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(chosen, largest, out=np.zeros_like(chosen), where=largest > 0)
    columns = min(2, num_kernels)
    rows = -(-num_kernels // columns)
    # One empty pixel between slices, two between the columns of kernels.
    kernel_width = depth * (width + 1) + 1
    picture = np.full((rows * (height + 1) - 1, columns * kernel_width - 2), np.nan)
    for number, kernel in enumerate(scaled):
        top = (number // columns) * (height + 1)
        for index, plane in enumerate(kernel):
            start = (number % columns) * kernel_width + index * (width + 1)
            picture[top : top + height, start : start + width] = plane
    return picture


def _checked(image: npt.ArrayLike) -> Photograph:
    photograph = np.asarray(image)
    if photograph.ndim != 3 or photograph.shape[2] != 3 or photograph.dtype != np.uint8:
        raise DataError(
            f"A photograph to draw is {photograph.dtype} of the shape {photograph.shape}, but "
            "uint8 (height, width, 3) is needed."
        )
    return photograph.astype(np.uint8)


def _central_square(photograph: Photograph) -> Photograph:
    height, width = photograph.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return photograph[top : top + side, left : left + side]


def _draw_arrow(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.add_patch(
        FancyArrowPatch((0, 0.5), (1, 0.5), arrowstyle="-|>", mutation_scale=14, color=FAINT)
    )


def _draw_stack(axes: Axes, photograph: Photograph) -> None:
    """Draw the slices one behind the other, the first in front at the lower left."""
    height, width = photograph.shape[:2]
    step = 0.22 * max(height, width)
    for channel in (2, 1, 0):
        left, top = channel * step, -channel * step
        axes.imshow(
            photograph[..., channel],
            vmin=0,
            vmax=255,
            extent=(left, left + width, top + height, top),
            zorder=6 - 2 * channel,
        )
        frame = Rectangle(
            (left, top), width, height, fill=False, edgecolor=CHANNEL_TINTS[channel], linewidth=1.6
        )
        frame.set_zorder(7 - 2 * channel)
        axes.add_patch(frame)
    start = (width + 0.3 * step, height + 0.1 * step)
    stop = (start[0] + 2 * step, start[1] - 2 * step)
    axes.add_patch(FancyArrowPatch(start, stop, arrowstyle="-|>", mutation_scale=10, color=INK))
    axes.text(
        start[0] + 1.15 * step,
        start[1] - 0.85 * step,
        "depth",
        rotation=45,
        ha="left",
        va="top",
        rotation_mode="anchor",
        fontsize=8,
    )
    axes.set(xlim=(-0.1 * step, width + 3 * step), ylim=(height + 0.3 * step, -2.1 * step))
    axes.set_aspect("equal")
