from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from voxlift.core.errors import DataError
from voxlift.figures.candidates import MOST_CANDIDATES, ShownCandidate, plot_candidates

SPACING = (3.0, 2.0, 0.5)
ONE = ShownCandidate(
    rank=1,
    class_name="liver",
    score=0.876,
    box=(40.0, 10.0, 60.0, 15.0),
    position=2.0,
    num_slices=3,
    slice_axis="slice",
    slice_number=4,
    num_stored=6,
    centre_mm=(-12.34, 5.0, 678.9),
    window=(-150.0, 250.0),
    window_name="abdomen window",
)


@pytest.fixture
def volume() -> npt.NDArray[np.float32]:
    """A volume of rows that are four times as far apart as its columns."""
    generator = np.random.default_rng(0)
    return generator.normal(50, 30, (6, 50, 200)).astype(np.float32)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Keep the figures that are drawn instead of writing them, which takes most of the time."""
    kept: list[Figure] = []

    def keep(figure: Figure, path: Path) -> None:
        kept.append(figure)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def box_in(axes: Axes) -> tuple[float, ...]:
    (patch,) = (each for each in axes.patches if isinstance(each, Rectangle))
    return (*patch.get_xy(), patch.get_width(), patch.get_height())


def test_a_candidate_is_shown_whole_and_as_a_detail(
    volume: npt.NDArray[np.float32], figures: list[Figure], tmp_path: Path
) -> None:
    plot_candidates(volume, [ONE], tmp_path / "a.png", spacing_mm=SPACING, title="scan 7")
    (figure,) = figures
    whole, detail = figure.axes
    # In millimetres: 50 rows of 2 and 200 columns of 0.5.
    assert (whole.get_xlim(), whole.get_ylim()) == ((0, 100), (100, 0))
    for axes in (whole, detail):
        assert box_in(axes) == (20, 20, 10, 10)
        # As far apart as on the paper, on both axes.
        low, high = axes.get_xlim()
        bottom, top = axes.get_ylim()
        area = axes.get_window_extent()
        assert area.width / (high - low) == pytest.approx(area.height / (bottom - top))
        (picture,) = axes.images
        np.testing.assert_array_equal(picture.get_array(), volume[2])
        assert picture.get_clim() == (-150, 250)
        assert {"R", "L", "A", "P"} <= {text.get_text() for text in axes.texts}
    # 40 mm about the box's centre at 25 mm.
    assert (detail.get_xlim(), detail.get_ylim()) == ((5, 45), (45, 5))
    written = texts(figure)
    assert "1  liver  0.88" in written
    assert (
        "slice 4 of 6 (found in 3), (\N{MINUS SIGN}12.3, 5.0, 678.9) mm, abdomen window" in written
    )
    assert "scan 7" in written


def test_the_picture_is_written(volume: npt.NDArray[np.float32], tmp_path: Path) -> None:
    path = plot_candidates(volume, [ONE], tmp_path / "a.png", spacing_mm=SPACING)
    picture = matplotlib.image.imread(path)[..., :3] * 255
    orange = np.abs(picture - (230, 159, 0)).max(axis=-1) < 40
    assert orange.sum() > 300
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_the_longest_lines_stay_in_their_places(
    volume: npt.NDArray[np.float32], figures: list[Figure], tmp_path: Path
) -> None:
    long = replace(
        ONE,
        class_name="a class of which much is to be said, more than can be",
        num_slices=12,
        slice_number=312.25,
        num_stored=1234,
        centre_mm=(-123.44, -234.55, -1234.56),
    )
    plot_candidates(volume, [long, long], tmp_path / "a.png", spacing_mm=SPACING)
    plot_candidates(volume, [long], tmp_path / "b.png", spacing_mm=SPACING)
    for figure in figures:
        width = figure.bbox.width
        for text in figure.texts:
            assert text.get_window_extent().x1 < width
    first, second = (
        text.get_window_extent() for text in figures[0].texts if "window" in text.get_text()
    )
    assert first.x1 < second.x0


def test_details_stay_within_the_slice(
    volume: npt.NDArray[np.float32], figures: list[Figure], tmp_path: Path
) -> None:
    corner = replace(ONE, box=(190.0, 0.0, 204.0, 3.0))
    large = replace(ONE, box=(0.0, 5.0, 160.0, 45.0))
    plot_candidates(volume, [corner, large], tmp_path / "a.png", spacing_mm=SPACING)
    _, first, _, second = figures[0].axes
    assert (first.get_xlim(), first.get_ylim()) == ((60, 100), (40, 0))
    assert (second.get_xlim(), second.get_ylim()) == ((0, 100), (100, 0))


def test_key_slices_between_voxels_are_interpolated(
    volume: npt.NDArray[np.float32], figures: list[Figure], tmp_path: Path
) -> None:
    between = replace(ONE, position=2.25, slice_number=3.75, num_slices=1, window=None)
    plot_candidates(volume, [between], tmp_path / "a.png", spacing_mm=SPACING)
    (picture,) = figures[0].axes[0].images
    np.testing.assert_allclose(
        np.asarray(picture.get_array()), 0.75 * volume[2] + 0.25 * volume[3], rtol=1e-4, atol=1e-3
    )
    low, high = picture.get_clim()
    assert -60 < low < 0 < 100 < high < 160
    assert any(text.startswith("slice 3.75 of 6, (") for text in texts(figures[0]))


def test_rounding_leads_to_no_other_slice(
    volume: npt.NDArray[np.float32], figures: list[Figure], tmp_path: Path
) -> None:
    ends = [replace(ONE, position=position) for position in (-1e-9, 5 + 1e-9)]
    plot_candidates(volume, ends, tmp_path / "a.png", spacing_mm=SPACING)
    for axes, number in zip(figures[0].axes[::2], (0, 5), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), volume[number])


def test_the_surest_twelve_are_drawn_in_rows(
    volume: npt.NDArray[np.float32], figures: list[Figure], tmp_path: Path
) -> None:
    many = [replace(ONE, rank=rank) for rank in range(1, 16)]
    plot_candidates(volume, many, tmp_path / "a.png", spacing_mm=SPACING)
    plot_candidates(volume, many[:4], tmp_path / "b.png", spacing_mm=SPACING, num_found=40)
    full, few = figures
    assert len(full.axes) == 2 * MOST_CANDIDATES
    assert "The surest 12 of 15 candidates." in texts(full)
    assert "The surest 4 of 40 candidates." in texts(few)
    # Left to right, then down; nothing lies over anything else.
    boxes = [axes.get_position() for axes in full.axes]
    assert [box.y0 for box in boxes] == sorted((box.y0 for box in boxes), reverse=True)
    for number, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= 1
        assert 0 <= box.y0 < box.y1 <= 1
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_no_candidates_are_a_picture_too(
    volume: npt.NDArray[np.float32], figures: list[Figure], tmp_path: Path
) -> None:
    plot_candidates(volume, [], tmp_path / "a.png", spacing_mm=SPACING, title="scan 7")
    (figure,) = figures
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array(), volume[3])
    assert {"no candidates", "the middle of the volume", "scan 7"} <= set(texts(figure))


@pytest.mark.parametrize(
    "changes",
    [
        {"position": 5.5},
        {"position": -1.0},
        {"box": (10.0, 10.0, 10.0, 20.0)},
        {"box": (200.0, 10.0, 210.0, 20.0)},
        {"box": (-20.0, 10.0, -5.0, 20.0)},
    ],
)
def test_what_is_not_in_the_volume_is_told(
    volume: npt.NDArray[np.float32], changes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"Candidate 1 has the box .* not in a volume of"):
        plot_candidates(volume, [replace(ONE, **changes)], tmp_path / "a.png", spacing_mm=SPACING)
    assert list(tmp_path.iterdir()) == []


def test_a_volume_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(4, 4\)"):
        plot_candidates(np.zeros((4, 4)), [], tmp_path / "a.png", spacing_mm=SPACING)
