from pathlib import Path

import matplotlib as mpl
import pytest

from voxlift.core.errors import DataError
from voxlift.figures.style import PALETTE, drawn_figure, image_axes, size_text


def test_the_style_ends_with_the_figure(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    with drawn_figure(tmp_path / "figure.png", size_inches=(2, 1)) as figure:
        image_axes(figure.add_subplot())
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(PALETTE)
    assert dict(mpl.rcParams) == before
    assert (tmp_path / "figure.png").exists()


def test_settings_of_the_user_do_not_change_the_figure(tmp_path: Path) -> None:
    def draw(name: str) -> bytes:
        with drawn_figure(tmp_path / name, size_inches=(2, 1)) as figure:
            figure.add_subplot().plot([1, 2], [1, 2], label="a")
        return (tmp_path / name).read_bytes()

    plain = draw("plain.png")
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        assert draw("changed.png") == plain


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with drawn_figure(tmp_path / "figure.png", size_inches=(2, 1)):
            raise RuntimeError("in the middle of drawing")

    with pytest.raises(RuntimeError, match="middle"):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def draw() -> None:
        with drawn_figure(tmp_path / "file" / "figure.png", size_inches=(2, 1)):
            pass

    with pytest.raises(DataError, match=r"figure\.png could not be written"):
        draw()


def test_sizes_read_well() -> None:
    assert size_text(3, 224, 224) == "3 \N{MULTIPLICATION SIGN} 224 \N{MULTIPLICATION SIGN} 224"
