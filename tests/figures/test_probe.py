from dataclasses import dataclass
from math import nan
from pathlib import Path

import pytest
from PIL import Image

from voxlift.core.errors import DataError
from voxlift.figures.probe import ProbeLine, plot_probe


@dataclass
class Span:
    value: float
    low: float
    high: float


FAIR = Span(0.7, 0.6, 0.8)
OPEN = Span(0.7, nan, nan)
UNKNOWN = Span(nan, nan, nan)


def lines(*names: str, gain: Span | None) -> list[ProbeLine]:
    return [ProbeLine(name, method, FAIR, gain) for name in names for method in ("linear", "k-nn")]


def test_gains_have_a_panel_of_their_own(tmp_path: Path) -> None:
    with_gains = plot_probe(lines("scratch", "tiny", gain=Span(0.1, 0, 0.2)), tmp_path / "a.png")
    without = plot_probe(lines("scratch", "tiny", gain=None), tmp_path / "b.png")
    with Image.open(with_gains) as wide, Image.open(without) as narrow:
        assert wide.width > 1.4 * narrow.width


def test_starts_and_baselines_have_a_row_each(tmp_path: Path) -> None:
    few = plot_probe(lines("a", gain=None), tmp_path / "few.png")
    many = plot_probe(
        lines("a", "b", "folder/of/a/very/long/name/model.safetensors", gain=None),
        tmp_path / "many.png",
        baselines={"mean_intensity": FAIR, "mask_volume": OPEN},
        title="Three starts",
    )
    with Image.open(few) as short, Image.open(many) as tall:
        assert tall.height > 1.5 * short.height


def test_what_has_no_interval_or_value_is_left_out(tmp_path: Path) -> None:
    drawn = [ProbeLine("a", "linear", OPEN, None), ProbeLine("b", "linear", UNKNOWN, UNKNOWN)]
    assert plot_probe(drawn, tmp_path / "a.png").is_file()


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    for nothing in ([], [ProbeLine("a", "linear", UNKNOWN, None)]):
        with pytest.raises(DataError, match="no start has an AUROC"):
            plot_probe(nothing, tmp_path / "a.png")
