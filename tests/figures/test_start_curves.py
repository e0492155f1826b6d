from pathlib import Path

import pytest
from PIL import Image

from voxlift.core.errors import DataError
from voxlift.figures.start_curves import plot_start_curves

CURVES = [[[20, 0.1], [40, 0.5]], [[20, 0.3], [40, 0.7]]]


def test_a_figure_has_a_panel_for_each_setting(tmp_path: Path) -> None:
    one = plot_start_curves(
        [[("4 labels", {"scratch": CURVES, "tiny": CURVES})]], tmp_path / "one.png", value_name="x"
    )
    panel = ("4 labels", {"scratch": CURVES, "tiny": []})
    six = plot_start_curves([[panel] * 3] * 2, tmp_path / "six.png", value_name="Dice")
    with Image.open(one) as small, Image.open(six) as large:
        assert large.width > 2 * small.width
        assert large.height > 1.5 * small.height


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no start has a run"):
        plot_start_curves([[("4 labels", {"tiny": []})]], tmp_path / "a.png", value_name="Dice")


def test_seeds_at_other_steps_are_refused(tmp_path: Path) -> None:
    curves = [CURVES[0], [[10, 0.3], [40, 0.7]]]
    with pytest.raises(DataError, match="'tiny' were validated at different steps"):
        plot_start_curves([[("4", {"tiny": curves})]], tmp_path / "a.png", value_name="Dice")
