import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from voxlift.core.errors import DataError
from voxlift.figures.dice import plot_dice
from voxlift.figures.style import PALETTE
from voxlift.metrics.bootstrap import Interval, bootstrap_interval


def _count(path: Path, colour: str) -> int:
    rgb = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)])
    return int((np.abs(imread(path)[..., :3] * 255 - rgb).max(axis=-1) < 12).sum())


def test_cases_and_means_are_drawn(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    dice = {name: generator.uniform(0.6, 0.95, size=12) for name in ("anterior", "posterior")}
    dice["anterior"][3] = math.nan
    means = {name: bootstrap_interval(np.nanmean, values) for name, values in dice.items()}
    path = plot_dice(dice, tmp_path / "dice.svg", means=means)
    text = path.read_text(encoding="utf-8")
    for shown in ("anterior (n = 11)", "posterior (n = 12)", "mean with 95 % interval"):
        assert f"<!-- {shown} -->" in text
    # The axis begins below the worst case.
    assert min(float(tick) for tick in re.findall(r"<!-- (0\.\d+) -->", text)) == 0.6
    bare = plot_dice(dice, tmp_path / "bare.png")
    full = plot_dice(dice, tmp_path / "full.png", means=means)
    assert _count(bare, PALETTE[1]) == 0 < _count(full, PALETTE[1])


def test_means_without_value_or_interval_are_no_trouble(tmp_path: Path) -> None:
    nothing = Interval(value=math.nan, low=math.nan, high=math.nan)
    one = Interval(value=0.5, low=math.nan, high=math.nan)
    path = plot_dice(
        {"liver": [0.5], "spleen": [math.nan]},
        tmp_path / "dice.svg",
        means={"liver": one, "spleen": nothing},
    )
    assert "<!-- spleen (n = 0) -->" in path.read_text(encoding="utf-8")
    with pytest.raises(DataError, match="at least one structure"):
        plot_dice({}, tmp_path / "none.png")


def test_the_figure_is_the_same_each_time(tmp_path: Path) -> None:
    values = {"liver": np.linspace(0, 1, 30)}
    first, second = (plot_dice(values, tmp_path / f"{n}.png").read_bytes() for n in "ab")
    assert first == second
