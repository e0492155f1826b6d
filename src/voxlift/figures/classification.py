"""How a classifier does: ROC curves, confusion matrix and reliability, as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from voxlift.core.errors import DataError
from voxlift.figures.style import FAINT, INK, PALETTE, drawn_figure

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class RocLike(Protocol):
    """What has to be known of an ROC curve; `voxlift.metrics.roc.RocCurve` has it.

    The band is left out where it is NaN.
    """

    @property
    def false_positive_rate(self) -> Floats:
        """At each threshold."""

    @property
    def sensitivity(self) -> Floats:
        """At each threshold."""

    @property
    def grid(self) -> Floats:
        """False positive rates at which the band is given."""

    @property
    def low(self) -> Floats:
        """Lower end of the band."""

    @property
    def high(self) -> Floats:
        """Upper end of the band."""

    @property
    def auroc(self) -> object:
        """Area under the curve; its text is shown."""


class ReliabilityLike(Protocol):
    """What has to be known of a reliability curve: one entry for each bin that holds cases.

    `voxlift.metrics.reliability.ReliabilityCurve` has it.
    """

    @property
    def confidence(self) -> Floats:
        """Mean probability of the class that was called."""

    @property
    def accuracy(self) -> Floats:
        """Share of the cases where it was the true class."""

    @property
    def low(self) -> Floats:
        """Lower end of the accuracy's interval."""

    @property
    def high(self) -> Floats:
        """Upper end of the accuracy's interval."""

    @property
    def num_cases(self) -> Integers:
        """Cases in the bin."""

    @property
    def num_bins(self) -> int:
        """Bins of equal width between 0 and 1, empty ones too."""


def plot_roc(
    curves: Mapping[str, RocLike],
    path: str | Path,
    *,
    operating_point: tuple[float, float] | None = None,
    title: str = "ROC curve",
) -> Path:
    """Draw ROC curves with their bootstrap bands.

    Args:
        curves: The curves by name: of several classes, or of several models.
        path: The figure to write.
        operating_point: Sensitivity and specificity at the threshold that decides, to be marked.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If there is no curve, or the file cannot be written.
    """
    if not curves:
        raise DataError("There is no ROC curve to draw. Give at least one.")
    # A row of the legend for each curve below the square, so that it never hides a curve.
    with drawn_figure(path, size_inches=(4.6, 4.6 + 0.2 * (len(curves) + 1))) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1, label="chance")
        for number, (name, curve) in enumerate(curves.items()):
            colour = PALETTE[number % len(PALETTE)]
            label = f"{name}: AUROC {curve.auroc}"
            axes.plot(curve.false_positive_rate, curve.sensitivity, color=colour, label=label)
            if np.isfinite(curve.low).all():
                axes.fill_between(
                    curve.grid, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0
                )
        if operating_point is not None:
            sensitivity, specificity = operating_point
            axes.plot(
                [1 - specificity],
                [sensitivity],
                color=INK,
                marker="o",
                linestyle="none",
                markersize=6,
                label="at the chosen threshold",
                zorder=3,
            )
        _unit_square(axes)
        axes.set(title=title, xlabel="1 - specificity", ylabel="sensitivity")
        figure.legend(loc="outside lower left")
    return Path(path)


def plot_confusion(
    matrix: npt.ArrayLike,
    class_names: Sequence[str],
    path: str | Path,
    *,
    title: str = "Confusion matrix",
) -> Path:
    """Draw a confusion matrix: counts, coloured by the share of each true class.

    Args:
        matrix: Cases of each true class (rows) that were called each class (columns).
        class_names: The names of the classes.
        path: The figure to write.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If the matrix does not fit the names, or the file cannot be written.
    """
    counts = np.asarray(matrix)
    num_classes = len(class_names)
    if counts.shape != (num_classes, num_classes):
        raise DataError(
            f"The confusion matrix has the shape {counts.shape}, but there are {num_classes} class "
            "names. Give one row and one column for each."
        )
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = max(2.0, 0.55 * num_classes)
    with drawn_figure(path, size_inches=(side + 2.2, side + 1.4)) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        show_shares = num_classes <= 6
        for row, column in np.ndindex(counts.shape):
            text = f"{counts[row, column]}"
            if show_shares:
                text += f"\n{shares[row, column]:.0%}"
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9 if show_shares else 7,
                color="white" if shares[row, column] > 0.55 else INK,
            )
        ticks = np.arange(num_classes)
        turned = max(len(name) for name in class_names) > 12 * side / num_classes
        axes.set_xticks(
            ticks, class_names, rotation=45 if turned else 0, ha="right" if turned else "center"
        )
        axes.set_yticks(ticks, class_names)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.set(title=title, xlabel="called", ylabel="true")
        bar = figure.colorbar(image, ax=axes, shrink=0.9, label="share of the true class")
        bar.outline.set_visible(False)
    return Path(path)


def plot_reliability(
    curve: ReliabilityLike,
    path: str | Path,
    *,
    calibration_error: object = None,
    title: str = "Reliability",
) -> Path:
    """Draw accuracy against confidence, with the number of cases in each bin below.

    Args:
        curve: The bins that hold cases.
        path: The figure to write.
        calibration_error: Shown as text if given, such as a metric's interval.
        title: Heading of the figure.

    Returns:
        The path of the figure.

    Raises:
        DataError: If the file cannot be written.
    """
    with drawn_figure(path, size_inches=(4.6, 6.1)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1, label="calibrated")
        label = "likeliest class"
        if calibration_error is not None:
            label = f"calibration error {calibration_error}"
        spread = None
        if np.isfinite([curve.low, curve.high]).all():
            spread = np.maximum([curve.accuracy - curve.low, curve.high - curve.accuracy], 0)
        upper.errorbar(
            curve.confidence,
            curve.accuracy,
            yerr=spread,
            color=PALETTE[0],
            marker="o",
            markersize=4,
            elinewidth=1,
            label=label,
        )
        _unit_square(upper)
        upper.set(title=title, ylabel="accuracy")
        lower.bar(curve.confidence, curve.num_cases, width=0.8 / curve.num_bins, color=PALETTE[5])
        lower.set(xlabel="confidence", ylabel="cases")
        figure.legend(loc="outside lower left")
    return Path(path)


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
