from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from voxlift.core.errors import DataError
from voxlift.figures.froc import plot_froc, rate_text
from voxlift.metrics.froc_bootstrap import bootstrap_froc
from voxlift.metrics.scan_froc import scan_froc

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Value:
    value: float


@dataclass(frozen=True)
class _Curve:
    false_positives_per_image: Floats
    sensitivity: tuple[_Value, ...]
    mean_sensitivity: str
    grid: Floats
    grid_sensitivity: Floats
    low: Floats
    high: Floats


def _curve(height: float) -> _Curve:
    rates = np.array([0, 0.125, 0.5, 2, 8])
    grid = np.geomspace(0.125, 8, 65)
    curve = height * (1 - np.exp(-grid))
    low, high = np.clip([curve - 0.08, curve + 0.08], 0, 1)
    values = tuple(_Value(height * float(1 - np.exp(-rate))) for rate in rates)
    return _Curve(rates, values, "0.500 (0.400 to 0.600)", grid, curve, low, high)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_curves_are_drawn_over_each_other(tmp_path: Path, drawn: list[Figure]) -> None:
    curves = {"scratch": _curve(0.5), "tiny": _curve(0.9)}
    path = plot_froc(curves, tmp_path / "froc.png", unit="scan", title="Nodules")
    assert path == tmp_path / "froc.png"
    assert imread(path)[..., :3].std() > 0.05
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "false positives per scan"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1/8", "1/2", "2", "8"]
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts == [f"{name}: mean 0.500 (0.400 to 0.600)" for name in curves]
    # A line, its marks and its entry in the legend for each; what is at no false positive is not
    # on a logarithmic axis.
    lines = axes.get_lines()
    assert len(lines) == 6
    assert lines[0].get_xydata() == pytest.approx(
        np.column_stack([curves["scratch"].grid, curves["scratch"].grid_sensitivity])
    )
    assert np.asarray(lines[1].get_xdata()).tolist() == [0.125, 0.5, 2, 8]
    assert lines[0].get_color() == lines[1].get_color() != lines[3].get_color()
    assert len(axes.collections) == 2


def test_a_curve_without_band_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    nothing = np.full(65, np.nan)
    plot_froc({"one": replace(_curve(0.5), low=nothing, high=nothing)}, tmp_path / "froc.png")
    assert not drawn[0].axes[0].collections


def test_many_curves_can_be_told_apart(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_froc({f"run {n}": _curve(n / 9) for n in range(1, 10)}, tmp_path / "froc.png")
    lines = drawn[0].axes[0].get_lines()[::3]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9


def test_the_curves_of_the_metrics_can_be_drawn(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lesions = [np.column_stack([generator.random((2, 3)) * 100, np.full(2, 9.0)]) for _ in range(9)]
    candidates = [
        np.concatenate(
            [
                np.column_stack([rows[:, :3] + generator.normal(0, 2, (2, 3)), [0.7, 0.8]]),
                generator.random((9, 4)) * [100, 100, 100, 1],
            ]
        )
        for rows in lesions
    ]
    curve = bootstrap_froc(scan_froc(candidates, lesions), num_samples=20)
    assert plot_froc({"candidates": curve}, tmp_path / "froc.png").exists()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no FROC curve"):
        plot_froc({}, tmp_path / "froc.png")
    with pytest.raises(DataError, match="'nowhere' was read at no rate above 0"):
        plot_froc({"nowhere": replace(_curve(0.5), grid=np.zeros(0))}, tmp_path / "froc.png")


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.125, "1/8"), (0.5, "1/2"), (0.3, "0.3"), (1, "1"), (8, "8"), (1.5, "1.5"), (0, "0")],
)
def test_rates_are_written_as_people_do(rate: float, text: str) -> None:
    assert rate_text(rate) == text
