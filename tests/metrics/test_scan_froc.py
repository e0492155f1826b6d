import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.scan_froc import LUNA16_RATES, scan_froc


def _brute_sensitivity(scans: list[dict[str, np.ndarray]], rate: float) -> float:
    """Count at every threshold, nodule by nodule, and read the curve at a rate."""

    def near(point: np.ndarray, finding: np.ndarray) -> bool:
        diameter = finding[3] if finding[3] >= 0 else 10
        away = math.dist(point[:3].tolist(), finding[:3].tolist())
        return away < float(diameter) / 2

    points = [(0.0, 0.0)]
    num_lesions = sum(len(scan["lesions"]) for scan in scans)
    for level in sorted({row[3] for scan in scans for row in scan["candidates"]}, reverse=True):
        found = false = 0
        for scan in scans:
            called = [row for row in scan["candidates"] if row[3] >= level]
            found += sum(any(near(row, lesion) for row in called) for lesion in scan["lesions"])
            findings = [*scan["lesions"], *scan["excluded"]]
            false += sum(not any(near(row, finding) for finding in findings) for row in called)
        points.append((false / len(scans), found / num_lesions))
    left = max(point for point in points if point[0] <= rate)
    right = min((point for point in points if point[0] > rate), default=left)
    if left[0] == right[0]:
        return left[1]
    return left[1] + (rate - left[0]) / (right[0] - left[0]) * (right[1] - left[1])


@settings(derandomize=True, max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_the_curve_is_what_counting_gives(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def rows(most: int, last: list[float]) -> np.ndarray:
        count = int(generator.integers(0, most))
        points = generator.integers(0, 12, (count, 3)).astype(float)
        return np.column_stack([points, generator.choice(last, count)])

    # Eight scans, so that the rates are whole counts or binary fractions of them.
    scans = [
        {
            "candidates": rows(12, [0.1, 0.3, 0.5, 0.7, 0.9]),
            "lesions": rows(3, [3, 6, 10]),
            "excluded": rows(3, [-1, 4]),
        }
        for _ in range(8)
    ]
    scans[0]["lesions"] = np.array([[5.0, 5, 5, 8]])
    result = scan_froc(
        [scan["candidates"] for scan in scans],
        [scan["lesions"] for scan in scans],
        excluded=[scan["excluded"] for scan in scans],
    )
    expected = [_brute_sensitivity(scans, rate) for rate in LUNA16_RATES]
    assert result.sensitivity == pytest.approx(expected)
    assert result.mean_sensitivity == pytest.approx(np.mean(expected))


def test_the_seven_rates_and_their_mean() -> None:
    assert list(LUNA16_RATES) == [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    # Two scans; one lesion is found before the first false positive, one after the second.
    first: Any = [[0, 0, 0, 0.9], [50, 0, 0, 0.8], [60, 0, 0, 0.7], [0, 0, 80, 0.6]]
    result = scan_froc([first, []], [[[1, 1, 1, 6], [0, 0, 80, 4]], []])
    assert (result.num_images, result.num_lesions) == (2, 2)
    assert result.sensitivity.tolist() == [0.5, 0.5, 0.5, 1, 1, 1, 1]
    assert result.mean_sensitivity == pytest.approx(5.5 / 7)


def test_the_centre_has_to_lie_within_the_radius() -> None:
    lesions = [[[10, 10, 10, 8]]]
    for distance, expected in ((3.9, 1), (4.0, 0), (4.1, 0)):
        result = scan_froc([[[10, 10, 10 + distance, 0.9]]], lesions, false_positives_per_scan=(0,))
        assert result.sensitivity.tolist() == [expected]


def test_candidates_on_excluded_findings_are_nothing() -> None:
    candidates = [[[0, 0, 0, 0.9], [4.5, 30, 0, 0.8], [6, 30, 0, 0.7]]]
    result = scan_froc(
        candidates,
        [[[1, 0, 0, 5]]],
        # The first lies on the lesion too; the other's diameter is unknown.
        excluded=[[[0, 0, 0, 20], [0, 30, 0, -1]]],
    )
    assert result.curve_false_positives_per_image.tolist() == [0, 0, 1]
    assert result.sensitivity.tolist() == [1] * 7
    assert result.num_lesions == 1


@pytest.mark.parametrize(
    ("candidates", "lesions", "options", "message"),
    [
        ([], [], {}, "hold no image"),
        ([[]], [[], []], {}, "lesions have 2 entries"),
        ([[]], [[]], {"excluded": [[], []]}, "excluded findings have 2"),
        ([[[0, 0, 0]]], [[]], {}, r"candidates of scan 0 have the shape \(1, 3\)"),
        ([[[0, 0, 0, math.nan]]], [[]], {}, "finite"),
        ([[]], [[[0, 0, 0, -1]]], {}, "diameter -1.0.* above 0 mm"),
    ],
)
def test_what_is_no_scan_is_refused(
    candidates: Any, lesions: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        scan_froc(candidates, lesions, **options)


def test_the_rates_have_to_rise() -> None:
    with pytest.raises(ConfigError, match="rising"):
        scan_froc([[]], [[]], false_positives_per_scan=(8, 1))
