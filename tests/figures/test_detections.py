from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from voxlift.core.errors import DataError
from voxlift.figures.detections import (
    FOUND_COLOUR,
    MOST_FOUND,
    TRUE_COLOUR,
    DetectionPicture,
    choose_view,
    plot_detections,
)

NOTHING = np.zeros((0, 4))
PICTURE = DetectionPicture(
    name="one.png",
    remark="score 0.90",
    image=np.linspace(0, 1, 60 * 80, dtype=np.float32).reshape(60, 80),
    focus=np.array([30.0, 20, 40, 28]),
    truths=np.array([[30.0, 20, 40, 28]]),
    ignored=NOTHING,
    found=np.array([[31.0, 20, 41, 29]]),
    texts=("0.90",),
)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The panels of the figure, when it has been drawn."""
    seen: list[Axes] = []

    def note(figure: Figure, *_: Any, **__: Any) -> None:
        seen.extend(figure.axes)

    monkeypatch.setattr(Figure, "savefig", note)
    # What was not saved cannot be moved to its place.
    monkeypatch.setattr(Path, "replace", lambda path, _: path)
    return seen


def boxes_of(axes: Axes) -> list[tuple[str, list[float]]]:
    found = []
    for patch in axes.patches:
        assert isinstance(patch, Rectangle)
        x, y = patch.get_xy()
        colour = to_hex(patch.get_edgecolor()).upper()
        found.append((colour, [x, y, x + patch.get_width(), y + patch.get_height()]))
    return found


def test_boxes_are_where_they_are(panels: list[Axes], tmp_path: Path) -> None:
    picture = replace(PICTURE, ignored=np.array([[0.0, 0, 80, 60]]))
    plot_detections({"hits": [picture], "missed": []}, tmp_path / "boxes.png", note="Here.")
    (panel,) = panels
    assert boxes_of(panel) == [
        (TRUE_COLOUR, [0, 0, 80, 60]),
        (TRUE_COLOUR, [30, 20, 40, 28]),
        (FOUND_COLOUR, [31, 20, 41, 29]),
    ]
    assert [text.get_text() for text in panel.texts] == ["0.90"]
    assert panel.get_title(loc="left") == "one.png\nscore 0.90"
    assert panel.get_ylabel() == "hits"
    # Pixel i spans i to i + 1.
    assert list(panel.images[0].get_extent()) == [0, 80, 60, 0]
    (legend,) = panel.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "found, with its score",
        "true",
        "to be ignored",
    ]
    assert legend.get_title().get_text() == "Here."


def test_of_many_boxes_the_first_in_view_are_drawn(panels: list[Axes], tmp_path: Path) -> None:
    far = np.array([[70.0, 50, 80, 60]])
    many = np.concatenate([far, np.repeat(PICTURE.found, 9, axis=0)])
    picture = replace(PICTURE, found=many, texts=tuple(str(number) for number in range(10)))
    plot_detections({"hits": [picture]}, tmp_path / "boxes.png")
    assert [text.get_text() for text in panels[0].texts] == [
        str(number) for number in range(1, MOST_FOUND + 1)
    ]


def test_views_are_within_the_image() -> None:
    # 3.5 times the longer edge about the middle of the box.
    assert choose_view(PICTURE.focus, size=(60, 80)) == (17.5, 6.5, 52.5, 41.5)
    # Moved at the border.
    assert choose_view(np.array([0.0, 52, 10, 60]), size=(60, 80)) == (0, 25, 35, 60)
    # Of a tiny box 30 % of the longer edge is shown, of a large one all there is.
    assert choose_view(np.array([40.0, 30, 41, 31]), size=(60, 80)) == (28.5, 18.5, 52.5, 42.5)
    assert choose_view(np.array([5.0, 5, 70, 50]), size=(60, 80)) == (0, 0, 80, 60)


def test_rows_of_unequal_length_in_grey_and_in_colour(tmp_path: Path) -> None:
    colours = replace(
        PICTURE, image=np.ones((60, 80, 3), np.float32), found=NOTHING, texts=(), name="x" * 99
    )
    path = plot_detections(
        {"hits": [PICTURE] * 3, "missed": [colours], "false": [PICTURE]},
        tmp_path / "boxes.png",
        note="\N{CJK UNIFIED IDEOGRAPH-4E2D} $x",
        title="All",
    )
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 1000
    wanted = [int(FOUND_COLOUR[start : start + 2], 16) for start in (1, 3, 5)]
    assert (pixels == wanted).all(axis=2).sum() > 500


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image to draw"):
        plot_detections({"hits": []}, tmp_path / "boxes.png")
