"""The convention of published numbers, against a walk down the boxes of its own."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d

from voxlift.metrics.froc import froc

LESION, OTHER, ELSEWHERE = [10, 10, 20, 20], [30, 30, 40, 40], [50, 50, 60, 60]
RATES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)

Tables = list[list[tuple[float, ...]]]


def random_images(seed: int) -> tuple[Tables, Tables]:
    """Few places, few sizes, few scores: overlaps of just one half, and ties."""
    generator = np.random.default_rng(seed)

    def boxes(most: int) -> list[tuple[float, ...]]:
        low = generator.integers(0, 5, (generator.integers(most), 2))
        return [(*row, *(row + generator.integers(1, 5, 2))) for row in low]

    count = int(generator.integers(2, 12))
    found = [[(*box, generator.integers(0, 6) / 5) for box in boxes(9)] for _ in range(count)]
    return found, [boxes(4) for _ in range(count)]


def iou(box: tuple[float, ...], truth: tuple[float, ...]) -> float:
    width = max(0, min(box[2], truth[2]) - max(box[0], truth[0]))
    height = max(0, min(box[3], truth[3]) - max(box[1], truth[1]))
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (box, truth)]
    return width * height / (sum(areas) - width * height)


def published(found: Tables, truths: Tables) -> list[float]:
    """Walk down the boxes of all images as MP3D's evaluation does, and interpolate as it does."""
    pooled = [(box, number) for number, table in enumerate(found) for box in table]
    hit: set[tuple[int, int]] = set()
    false, false_rates, shares = 0, [], []
    for box, number in sorted(pooled, key=lambda entry: entry[0][4])[::-1]:
        hits = [
            (number, place) for place, truth in enumerate(truths[number]) if iou(box, truth) >= 0.5
        ]
        hit.update(hits)
        false += not hits
        false_rates.append(false / len(truths))
        shares.append(len(hit) / sum(map(len, truths)))
    # Beyond its last point it gives the value there; below its first there is no curve.
    curve = interp1d(false_rates, shares, fill_value="extrapolate")
    with np.errstate(invalid="ignore", divide="ignore"):
        read = [float(curve(min(rate, false_rates[-1]))) for rate in RATES]
    return [
        share if rate > false_rates[0] else math.nan
        for rate, share in zip(RATES, read, strict=True)
    ]


@settings(derandomize=True, max_examples=100)
@given(seed=st.integers(0, 10_000))
def test_sensitivities_are_those_of_the_published_evaluation(seed: int) -> None:
    found, truths = random_images(seed)
    assume(sum(map(len, found)) > 1 and any(truths))
    expected = np.array(published(found, truths))
    result = froc(found, truths, false_positives_per_image=RATES, convention="mp3d")
    defined = ~np.isnan(expected)
    assert result.sensitivity[defined] == pytest.approx(expected[defined])
    assert result.sensitivity_at(RATES) == pytest.approx(result.sensitivity)


def test_the_two_conventions_differ_in_ties_and_upright_rises() -> None:
    # A false positive, then a lesion of a lower score: at one false positive ours counts it.
    rising = [[*ELSEWHERE, 0.9], [*LESION, 0.8], [*ELSEWHERE, 0.7], [*OTHER, 0.6]]
    # All of one score: ours calls them together, theirs from the last to the first.
    tied = [[*LESION, 0.5], [*ELSEWHERE, 0.5], [*OTHER, 0.5], [*ELSEWHERE, 0.5]]
    expected = {"voxlift": ([0.5, 1, 1], [0.5, 1, 1]), "mp3d": ([0, 0.5, 0.5], [0, 0.5, 0.5])}
    for convention, (by_rise, by_tie) in expected.items():
        options: Any = {"false_positives_per_image": (1, 2, 9), "convention": convention}
        assert froc([rising], [[LESION, OTHER]], **options).sensitivity.tolist() == by_rise
        assert froc([tied], [[LESION, OTHER]], **options).sensitivity.tolist() == by_tie
    result = froc([tied], [[LESION, OTHER]], convention="mp3d")
    assert result.curve_thresholds[1:] == pytest.approx([0.5] * 4)
    assert len(set(result.curve_thresholds)) == 5


def test_tied_scores_keep_their_place_among_others() -> None:
    above = float(np.nextafter(0.5, 1))
    boxes = [[*ELSEWHERE, above], *([[*LESION, 0.5]] * 3)]
    result = froc([boxes], [[LESION]], false_positives_per_image=(1, 2), convention="mp3d")
    assert result.findings.false_scores.min() > result.findings.lesion_scores.max()
    assert result.sensitivity.tolist() == [0, 0]


def test_images_without_boxes_or_lesions() -> None:
    nothing = froc([[], []], [[LESION], []], convention="mp3d")
    assert nothing.sensitivity.tolist() == [0] * 4
    assert np.isnan(froc([[[*LESION, 0.9]]], [[]], convention="mp3d").sensitivity).all()
    labelled: dict[str, Any] = {"prediction_labels": [[0, 1]], "truth_labels": [[0, 1]]}
    boxes = [[[*LESION, 0.5], [*OTHER, 0.5]]]
    result = froc(boxes, [[LESION, OTHER]], convention="mp3d", **labelled)
    assert {each.convention for each in result.by_label.values()} == {"mp3d"}
