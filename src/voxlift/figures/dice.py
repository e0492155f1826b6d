"""Dice case by case, with the mean of each structure and its interval."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from voxlift.core.errors import DataError
from voxlift.figures.style import FAINT, PALETTE, drawn_figure

Floats = npt.NDArray[np.float64]

# Fewer cases than this have no quartiles worth a box.
LEAST_BOXED_CASES = 5
ROW_INCHES = 0.42


class IntervalLike(Protocol):
    """What has to be known of a mean; `voxlift.metrics.bootstrap.Interval` has it."""

    @property
    def value(self) -> float:
        """The mean."""

    @property
    def low(self) -> float:
        """Lower end of its interval; NaN if there is none."""

    @property
    def high(self) -> float:
        """Upper end of its interval."""


def plot_dice(
    dice: Mapping[str, npt.ArrayLike],
    path: str | Path,
    *,
    means: Mapping[str, IntervalLike] | None = None,
    title: str = "Dice, case by case",
) -> Path:
    """Draw the Dice of each case as a dot, a row for each structure, with quartiles and mean.

    Args:
        dice: Dice of each case, for each structure by its name; NaN is left out.
        path: The figure to write.
        means: The mean of each structure with its interval.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is no structure, or the file cannot be written.
    """
    if not dice:
        raise DataError("There is no Dice to draw. Give at least one structure.")
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in dice.items()}
    columns = {name: values[np.isfinite(values)] for name, values in columns.items()}
    lowest = min((float(values.min()) for values in columns.values() if len(values)), default=0.0)
    floor = 0.0 if lowest < 0.5 else math.floor(lowest * 10) / 10
    with drawn_figure(path, size_inches=(6.2, 1.2 + ROW_INCHES * len(columns))) as figure:
        axes = figure.add_subplot()
        for place, (name, values) in enumerate(columns.items()):
            _draw_cases(axes, values, place)
            if means is not None and name in means:
                _draw_mean(axes, means[name], place)
        names = [f"{name} (n = {len(values)})" for name, values in columns.items()]
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.set(title=title, xlabel="Dice", ylim=(len(names) - 0.4, -0.6))
        axes.set_xlim(floor - 0.02 * (1 - floor), 1 + 0.02 * (1 - floor))
        axes.grid(visible=False, axis="y")
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        figure.legend(once.values(), once.keys(), loc="outside lower right", ncols=2)
    return Path(path)


def _draw_cases(axes: Axes, values: Floats, place: int) -> None:
    """Draw dots with a box of the quartiles; its whiskers reach over 1.5 times its length."""
    line = {"color": FAINT, "linewidth": 1}
    if len(values) >= LEAST_BOXED_CASES:
        axes.boxplot(
            values,
            positions=[place],
            widths=0.5,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            boxprops=line,
            medianprops=line,
            whiskerprops=line,
            capprops=line,
        )
    axes.plot(
        values,
        place + _spread(len(values)),
        color=PALETTE[0],
        marker="o",
        linestyle="none",
        markersize=3.5,
        alpha=0.6,
        markeredgewidth=0,
        label="case",
    )


def _draw_mean(axes: Axes, mean: IntervalLike, place: int) -> None:
    if math.isnan(mean.value):
        return
    spread = None
    if not math.isnan(mean.low):
        spread = [[max(0.0, mean.value - mean.low)], [max(0.0, mean.high - mean.value)]]
    axes.errorbar(
        [mean.value],
        [place + 0.36],
        xerr=spread,
        color=PALETTE[1],
        marker="D",
        markersize=4,
        capsize=2.5,
        elinewidth=1.2,
        linestyle="none",
        label="mean with 95 % interval",
    )


def _spread(num_cases: int) -> Floats:
    """Put dots beside each other, the same way at each call."""
    golden = (math.sqrt(5) - 1) / 2
    turns = np.arange(num_cases, dtype=np.float64) * golden + 0.5
    places: Floats = np.mod(turns, 1.0)
    return (places - 0.5) * 0.34
