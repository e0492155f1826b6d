"""What probes of several starts reach, one under the other, and what each gains over scratch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from matplotlib.axes import Axes

from voxlift.core.errors import DataError
from voxlift.figures.dice import IntervalLike
from voxlift.figures.style import FAINT, INK, PALETTE, drawn_figure

ROW_INCHES = 0.42
LONGEST_NAME = 28


@dataclass(frozen=True)
class ProbeLine:
    """One interval to draw.

    Args:
        name: Of the start; lines of one name share a row.
        method: What classified; each has its colour.
        auroc: What it reached.
        gain: Its difference to scratch, if there is one.
    """

    name: str
    method: str
    auroc: IntervalLike
    gain: IntervalLike | None


def plot_probe(
    lines: Sequence[ProbeLine],
    path: str | Path,
    *,
    baselines: Mapping[str, IntervalLike] | None = None,
    title: str | None = None,
) -> Path:
    """Draw the AUROC of each start with its interval and, beside it, the difference to scratch.

    Args:
        lines: The starts, from top to bottom.
        path: The figure to write.
        baselines: What one number a case reaches, drawn below the starts.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is nothing to draw, or the file cannot be written.
    """
    names = list(dict.fromkeys(line.name for line in lines))
    methods = list(dict.fromkeys(line.method for line in lines))
    if not names or all(isnan(line.auroc.value) for line in lines):
        raise DataError("There is no probe to draw: no start has an AUROC.")
    has_gains = any(line.gain is not None for line in lines)
    rows = [*names, *(f"{name.replace('_', ' ')} alone" for name in baselines or {})]
    height = ROW_INCHES * len(rows) + 1.5
    with drawn_figure(path, size_inches=(9.0 if has_gains else 5.5, height)) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        panels = figure.subplots(1, 2 if has_gains else 1, squeeze=False, sharey=True)[0]
        for number, line in enumerate(lines):
            offset = _offset(methods.index(line.method), len(methods))
            colour = PALETTE[methods.index(line.method) % len(PALETTE)]
            label = line.method if number == methods.index(line.method) else None
            place = names.index(line.name) + offset
            _draw(panels[0], line.auroc, place, colour=colour, label=label)
            if line.gain is not None:
                _draw(panels[1], line.gain, place, colour=colour)
        for number, found in enumerate((baselines or {}).values(), start=len(names)):
            _draw(panels[0], found, number, colour=FAINT)
        panels[0].set_title("AUROC on the judged cases", fontweight="normal")
        panels[0].axvline(0.5, color=FAINT, linewidth=0.8)
        panels[0].set_yticks(range(len(rows)), [_shortened(row) for row in rows])
        # The first start stands at the top.
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        figure.legend(loc="outside lower left", ncols=len(methods))
        if has_gains:
            panels[1].set_title("Difference to scratch, paired", fontweight="normal")
            panels[1].axvline(0, color=FAINT, linewidth=0.8)
        for axes in panels:
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
            axes.margins(x=0.08)
    return Path(path)


def _offset(number: int, count: int) -> float:
    """Place the methods of one start evenly about its row."""
    return 0.26 * (number - (count - 1) / 2)


def _draw(
    axes: Axes, found: IntervalLike, place: float, *, colour: str, label: str | None = None
) -> None:
    if isnan(found.value):
        return
    if not isnan(found.low):
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2.2, alpha=0.6)
    axes.plot(
        [found.value],
        [place],
        color=colour,
        marker="o",
        markersize=5,
        markeredgecolor=INK if colour == FAINT else colour,
        linestyle="none",
        label=label,
    )


def _shortened(name: str) -> str:
    """Keep the end of a long name, which tells paths apart."""
    return name if len(name) <= LONGEST_NAME else f"...{name[-LONGEST_NAME:]}"
