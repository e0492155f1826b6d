"""Curves of starts beside each other, over several seeds: a mean and the span of the seeds."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from voxlift.core.errors import DataError
from voxlift.figures.style import PALETTE, drawn_figure

Curve = Sequence[Sequence[float]]
"""Pairs of step (or rate) and value."""

PANEL_INCHES = (2.5, 2.3)
MOST_MARKED = 12


def plot_start_curves(
    panels: Sequence[Sequence[tuple[str, Mapping[str, Sequence[Curve]]]]],
    path: str | Path,
    *,
    value_name: str,
    x_name: str = "step",
    log_x: bool = False,
    title: str | None = None,
) -> Path:
    """Draw one panel for each setting, with a line for each start.

    Args:
        panels: Rows of panels; each has a heading and, by the name of the start, the curves of its
            seeds. The curves of a start have the same steps.
        path: The figure to write.
        value_name: What the values are.
        x_name: What they depend on.
        log_x: Whether that is laid out by its logarithm, to the base of 2.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is nothing to draw, or the seeds of a start have other steps.
    """
    flat = [panel for row in panels for panel in row]
    if not any(curves for _, starts in flat for curves in starts.values()):
        raise DataError("There is no learning curve to draw: no start has a run.")
    columns = max(len(row) for row in panels)
    names = list(dict.fromkeys(name for _, starts in flat for name in starts))
    colours = dict(zip(names, cycle(PALETTE), strict=False))
    size_inches = (PANEL_INCHES[0] * columns + 0.5, PANEL_INCHES[1] * len(panels) + 0.6)
    with drawn_figure(path, size_inches=size_inches) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        grid = figure.subplots(len(panels), columns, squeeze=False, sharey="row", sharex="row")
        for row_number, row in enumerate(panels):
            for axes in grid[row_number, len(row) :]:
                axes.set_axis_off()
            for column, (heading, starts) in enumerate(row):
                axes = grid[row_number, column]
                axes.set_title(heading, fontweight="normal")
                axes.set_xlabel(x_name)
                if log_x:
                    axes.set_xscale("log", base=2)
                    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
                if column == 0:
                    axes.set_ylabel(value_name)
                for name, curves in starts.items():
                    _draw_start(axes, curves, name=name, colour=colours[name])
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return Path(path)


def _draw_start(axes: Axes, curves: Sequence[Curve], *, name: str, colour: str) -> None:
    if not curves:
        return
    steps: npt.NDArray[np.float64] = np.array([step for step, _ in curves[0]])
    if any(not np.array_equal(steps, [step for step, _ in curve]) for curve in curves):
        raise DataError(f"The seeds of the start '{name}' were validated at different steps.")
    values = np.array([[value for _, value in curve] for curve in curves])
    marker = "o" if len(steps) <= MOST_MARKED else None
    axes.plot(steps, values.mean(0), color=colour, marker=marker, markersize=3, label=name)
    axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.margins(x=0.03)
