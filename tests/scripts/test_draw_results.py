"""The figures of the results pages."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
DRAWN = ("hippocampus-starts.png", "detection-froc.png", "detection-curve.png")


def test_the_pages_show_what_is_drawn(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "draw_results.py"))
    script["draw_start_curves"](
        script["_load"]("hippocampus"), script["_load"]("detection"), tmp_path
    )
    assert {path.name for path in tmp_path.iterdir()} == set(DRAWN)
    pages = "".join(
        page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "results").glob("*.md")
    )
    for name in DRAWN:
        assert f"(images/{name})" in pages
        with (
            Image.open(tmp_path / name) as ours,
            Image.open(ROOT / "docs" / "results" / "images" / name) as theirs,
        ):
            # Of other fonts a picture is some pixels larger or smaller.
            assert ours.width == pytest.approx(theirs.width, rel=0.02)
            assert ours.height == pytest.approx(theirs.height, rel=0.02)
