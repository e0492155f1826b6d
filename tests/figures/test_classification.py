from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from voxlift.core.errors import DataError
from voxlift.figures.classification import plot_confusion, plot_reliability, plot_roc
from voxlift.metrics.classification import classification_metrics
from voxlift.metrics.reliability import reliability_curve
from voxlift.metrics.roc import roc_curve

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Roc:
    false_positive_rate: Floats
    sensitivity: Floats
    grid: Floats
    low: Floats
    high: Floats
    auroc: str


@dataclass(frozen=True)
class _Reliability:
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    num_cases: npt.NDArray[np.int64]
    num_bins: int = 10


def _roc(power: float) -> _Roc:
    grid = np.linspace(0, 1, 101)
    curve = grid**power
    low, high = np.clip([curve - 0.08, curve + 0.08], 0, 1)
    return _Roc(grid, curve, grid, low, high, f"{1 / (1 + power):.3f} (0.700 to 0.900)")


RELIABILITY = _Reliability(
    confidence=np.array([0.55, 0.66, 0.74, 0.86, 0.97]),
    accuracy=np.array([0.5, 0.6, 0.8, 0.81, 0.9]),
    low=np.array([0.3, 0.5, 0.7, 0.72, 0.82]),
    high=np.array([0.7, 0.7, 0.9, 0.9, 0.95]),
    num_cases=np.array([10, 22, 31, 44, 60]),
)


def _has_colour(path: Path, colour: tuple[int, int, int]) -> bool:
    pixels = np.round(imread(path)[..., :3] * 255)
    return bool((np.abs(pixels - np.array(colour)).max(axis=-1) <= 2).any())


BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def test_roc_curves_are_drawn_in_colours_of_their_own(tmp_path: Path) -> None:
    curves = {"scratch": _roc(0.5), "tiny": _roc(0.2)}
    path = plot_roc(curves, tmp_path / "roc.png", operating_point=(0.8, 0.7))
    assert path == tmp_path / "roc.png"
    assert _has_colour(path, BLUE)
    assert _has_colour(path, VERMILION)


def test_a_curve_without_band_is_drawn(tmp_path: Path) -> None:
    nothing = np.full(101, np.nan)
    curve = replace(_roc(0.3), low=nothing, high=nothing)
    path = plot_roc({"spiculated": curve}, tmp_path / "roc.png")
    band = plot_roc({"spiculated": _roc(0.3)}, tmp_path / "band.png")
    assert imread(band)[..., :3].mean() < imread(path)[..., :3].mean()


def test_no_curve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ROC curve"):
        plot_roc({}, tmp_path / "roc.png")


@pytest.mark.parametrize("num_classes", [2, 9])
def test_a_confusion_matrix_is_drawn(tmp_path: Path, num_classes: int) -> None:
    counts = np.random.default_rng(0).integers(20, size=(num_classes, num_classes))
    counts += 60 * np.eye(num_classes, dtype=int)
    counts[-1] = 0
    names = ["smooth", "spiculated", *(f"class number {k}" for k in range(2, num_classes))]
    path = plot_confusion(counts, names, tmp_path / f"confusion{num_classes}.png")
    assert imread(path)[..., :3].std() > 0.05


def test_a_matrix_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(2, 2\).* 3 class"):
        plot_confusion(np.eye(2), ["a", "b", "c"], tmp_path / "confusion.png")


def test_the_curves_of_the_metrics_can_be_drawn(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=60)
    score = 1 / (1 + np.exp(-generator.normal(2 * labels - 1)))
    probabilities = np.stack([1 - score, score], axis=1)
    metrics = classification_metrics(probabilities, labels, class_names=("smooth", "spiculated"))
    roc = plot_roc(
        {"spiculated": roc_curve(probabilities, labels)},
        tmp_path / "roc.png",
        operating_point=(metrics.sensitivity.value, metrics.specificity.value),
    )
    reliability = plot_reliability(
        reliability_curve(probabilities, labels),
        tmp_path / "reliability.png",
        calibration_error=metrics.calibration_error,
    )
    confusion = plot_confusion(
        metrics.confusion_matrix, metrics.class_names, tmp_path / "confusion.png"
    )
    assert _has_colour(roc, BLUE)
    assert _has_colour(reliability, BLUE)
    assert confusion.exists()


def test_a_reliability_curve_is_drawn(tmp_path: Path) -> None:
    path = plot_reliability(
        RELIABILITY, tmp_path / "reliability.png", calibration_error="0.061 (0.040 to 0.110)"
    )
    assert _has_colour(path, BLUE)
    nothing = np.full(5, np.nan)
    bare = replace(RELIABILITY, low=nothing, high=nothing)
    assert _has_colour(plot_reliability(bare, tmp_path / "bare.png"), BLUE)
