"""How many lesions detectors find at how many false positives: FROC curves, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from voxlift.core.errors import DataError
from voxlift.figures.style import PALETTE, drawn_figure

Floats = npt.NDArray[np.float64]

PANEL_INCHES = (5.4, 3.9)
ROW_INCHES = 0.2
# Curves of one colour differ in their lines.
LINES = ("-", "--", ":")


class ValueLike(Protocol):
    """A number with an interval; `voxlift.metrics.bootstrap.Interval` is one."""

    @property
    def value(self) -> float:
        """The number."""


class FrocLike(Protocol):
    """What has to be known of an FROC curve; `voxlift.metrics.froc_bootstrap.FrocCurve` has it.

    The band is left out where it is NaN.
    """

    @property
    def false_positives_per_image(self) -> Floats:
        """Rates at which the curve was read."""

    @property
    def sensitivity(self) -> Sequence[ValueLike]:
        """At each of them."""

    @property
    def mean_sensitivity(self) -> object:
        """Over the rates; its text is shown."""

    @property
    def grid(self) -> Floats:
        """Rates, above 0, at which the curve is drawn."""

    @property
    def grid_sensitivity(self) -> Floats:
        """At each point of the grid."""

    @property
    def low(self) -> Floats:
        """Lower end of its interval."""

    @property
    def high(self) -> Floats:
        """Upper end."""


def plot_froc(
    curves: Mapping[str, FrocLike],
    path: str | Path,
    *,
    unit: str = "image",
    title: str = "FROC curve",
) -> Path:
    """Draw FROC curves over each other, with their bootstrap bands.

    False positives are on a logarithmic axis. The points at which the curves were read are marked.

    Args:
        curves: The curves by name, of several detectors or several classes.
        path: The figure to write.
        unit: What false positives are counted in: `image` or `scan`.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is no curve, one was read at no rate above 0, or the file cannot be
            written.
    """
    if not curves:
        raise DataError("There is no FROC curve to draw. Give at least one.")
    for name, curve in curves.items():
        if not len(curve.grid):
            raise DataError(
                f"The FROC curve '{name}' was read at no rate above 0, so it has no place on a "
                "logarithmic axis. Read it at more rates."
            )
    width, height = PANEL_INCHES
    size_inches = (width, height + ROW_INCHES * len(curves))
    with drawn_figure(path, size_inches=size_inches) as figure:
        axes = figure.add_subplot()
        for number, (name, curve) in enumerate(curves.items()):
            colour = PALETTE[number % len(PALETTE)]
            _draw_curve(
                axes,
                curve,
                colour=colour,
                line=LINES[number // len(PALETTE) % len(LINES)],
                label=f"{name}: mean {curve.mean_sensitivity}",
            )
        _scale_axes(axes, list(curves.values()))
        axes.set(title=title, xlabel=f"false positives per {unit}", ylabel="sensitivity")
        figure.legend(loc="outside lower left")
    return Path(path)


def _draw_curve(axes: Axes, curve: FrocLike, *, colour: str, line: str, label: str) -> None:
    axes.plot(curve.grid, curve.grid_sensitivity, color=colour, linestyle=line)
    if np.isfinite(curve.low).all():
        axes.fill_between(curve.grid, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    shown = curve.false_positives_per_image > 0
    values = np.array([point.value for point in curve.sensitivity])
    axes.plot(
        curve.false_positives_per_image[shown],
        values[shown],
        color=colour,
        linestyle="none",
        marker="o",
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=3,
    )
    # The legend shows line and marker together.
    axes.plot([], [], color=colour, linestyle=line, marker="o", markersize=4, label=label)


def _scale_axes(axes: Axes, curves: Sequence[FrocLike]) -> None:
    """Put a tick at every rate read, on a logarithmic axis, and show all of the sensitivity."""
    rates = np.unique(np.concatenate([curve.false_positives_per_image for curve in curves]))
    rates = rates[rates > 0]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(rates.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: rate_text(rate)))
    axes.set(xlim=(rates[0] / 2**0.15, rates[-1] * 2**0.15), ylim=(-0.01, 1.01))


def rate_text(rate: float) -> str:
    """Write a rate as people do: 1/8 rather than 0.125, but 0.3."""
    if 0 < rate < 1 and float(1 / rate).is_integer():
        return f"1/{1 / rate:.0f}"
    return f"{rate:g}"
