"""Learning curves: how loss and accuracy went, in one run or side by side in several."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from voxlift.core.errors import DataError
from voxlift.figures.style import FAINT, PALETTE, drawn_figure

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Curve = tuple[Floats, Floats]

# A metric is drawn without being asked for if its name holds one of these, in this order.
DRAWN_NAMES = ("loss", "top1", "top5", "accuracy", "auroc", "auc", "dice")
# Curves with more points than this are smoothed, with the raw values faintly behind.
MAX_RAW_POINTS = 80
PANEL_INCHES = (4.2, 3.0)


def plot_learning_curves(
    source: str | Path | Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    value_name: str = "value",
    target: float | None = None,
) -> Path:
    """Draw the learning curves of a run, or of several things side by side.

    Args:
        source: A run's `metrics.jsonl`, drawn with one panel a metric and one line a split; or
            steps and values by name, drawn as lines in one panel.
        path: The figure to write.
        names: The metrics of `metrics.jsonl` to draw; by default the losses and accuracies.
        title: Heading of the figure.
        value_name: What the values of the one panel are.
        target: A value of the one panel to mark with a line.

    Returns:
        The path of the figure.

    Raises:
        DataError: If the source is not readable as such, or holds nothing to draw.
    """
    if isinstance(source, str | Path):
        panels = _chosen(read_curves(source), names, source=Path(source))
    else:
        curves = {name: _checked(name, *points) for name, points in source.items()}
        if not any(len(steps) for steps, _ in curves.values()):
            raise DataError("There is no learning curve to draw: no name has any step.")
        panels = {value_name: curves}
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    size_inches = (PANEL_INCHES[0] * max(columns, 1.3), PANEL_INCHES[1] * rows)
    colours = _colours(panels)
    with drawn_figure(path, size_inches=size_inches) as figure:
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        for number, (name, curves) in enumerate(panels.items()):
            axes = figure.add_subplot(
                rows, columns, number + 1, sharex=figure.axes[0] if number else None
            )
            axes.set(xlabel="step", ylabel=name)
            for label, (steps, values) in curves.items():
                _draw_curve(axes, steps, values, label=label, colour=colours[label])
            if target is not None:
                axes.axhline(target, color=FAINT, linestyle="--", linewidth=1)
                axes.annotate(
                    f"target {target:g}",
                    (1, target),
                    xycoords=("axes fraction", "data"),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="right",
                    fontsize=8,
                )
            axes.margins(x=0.02)
            axes.legend()
    return Path(path)


def read_curves(path: str | Path) -> dict[str, dict[str, Curve]]:
    """Read the curves of a run's `metrics.jsonl` by metric and split.

    Of a step that was logged twice, as after a resume, the later value counts. A last line that was
    cut off is left out, with a warning.

    Args:
        path: A file with one object a line: step, epoch, split, name and value; a value of null is
            not a number.

    Raises:
        DataError: If the file is missing, or a line is not such an object.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Give the metrics.jsonl of a run folder."
        ) from error
    values: dict[str, dict[str, dict[int, float]]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            step, split, name = int(entry["step"]), str(entry["split"]), str(entry["name"])
            value = math.nan if entry["value"] is None else float(entry["value"])
        except (KeyError, TypeError, ValueError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                logger.warning("The last line of %s was cut off and is left out.", path)
                continue
            raise DataError(
                f"{path}, line {number}: {line[:100]!r} is not an object with step, epoch, split, "
                "name and value. Give the metrics.jsonl of a run folder."
            ) from error
        values.setdefault(name, {}).setdefault(split, {})[step] = value
    return {
        name: {
            split: (
                np.array(sorted(points), dtype=float),
                np.array([points[s] for s in sorted(points)]),
            )
            for split, points in splits.items()
        }
        for name, splits in values.items()
    }


def _chosen(
    metrics: dict[str, dict[str, Curve]], names: Sequence[str] | None, *, source: Path
) -> dict[str, dict[str, Curve]]:
    """Pick the metrics to draw, in the order that they were asked for."""
    if names is None:
        names = sorted(
            (name for name in metrics if _rank(name) < len(DRAWN_NAMES)),
            key=lambda name: (_rank(name), name),
        )
    missing = [name for name in names if name not in metrics]
    if missing or not names:
        raise DataError(
            f"{source} holds {', '.join(sorted(metrics)) or 'no metric'}, but "
            f"{', '.join(missing) or 'a loss or an accuracy'} is to be drawn. Choose with names=."
        )
    return {name: metrics[name] for name in names}


def _rank(name: str) -> int:
    ranks = (rank for rank, part in enumerate(DRAWN_NAMES) if part in name)
    return next(ranks, len(DRAWN_NAMES))


def _checked(name: str, steps: npt.ArrayLike, values: npt.ArrayLike) -> Curve:
    curve = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if curve[0].ndim != 1 or curve[0].shape != curve[1].shape:
        raise DataError(
            f"The curve {name} has steps of the shape {curve[0].shape} and values of the shape "
            f"{curve[1].shape}, but one value a step is needed."
        )
    return curve


def _colours(panels: Mapping[str, Mapping[str, Curve]]) -> dict[str, str]:
    """Give each line the same colour in every panel, the training split the first."""
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    labels.sort(key=lambda label: label != "train")
    return {label: PALETTE[number % len(PALETTE)] for number, label in enumerate(labels)}


def _draw_curve(axes: Axes, steps: Floats, values: Floats, *, label: str, colour: str) -> None:
    if len(steps) <= MAX_RAW_POINTS:
        marker = "o" if len(steps) <= 12 else None
        axes.plot(steps, values, label=label, color=colour, marker=marker, markersize=4)
        return
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    smooth = running_mean(values, width=len(values) // 25 | 1)
    axes.plot(steps, smooth, label=f"{label} (running mean)", color=colour)


def running_mean(values: Floats, *, width: int) -> Floats:
    """Average each value with its neighbours, fewer of them at the ends; NaN are left out.

    Args:
        values: The curve.
        width: How many values are averaged; odd.
    """
    defined = np.isfinite(values)
    window = np.ones(width)
    total = np.convolve(np.where(defined, values, 0), window, mode="same")
    number = np.convolve(defined, window, mode="same")
    mean = np.full(len(values), np.nan)
    np.divide(total, number, out=mean, where=number > 0.5)
    return mean
