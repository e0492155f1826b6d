import runpy
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_the_script_draws_every_picture_of_the_documentation(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "draw_figures.py"))
    drawn = {path.name: path for path in script["draw_figures"](tmp_path)}
    committed = {path.name: path for path in (ROOT / "docs" / "images").iterdir()}
    assert drawn.keys() == committed.keys()
    for name, path in drawn.items():
        picture, old = (
            np.asarray(Image.open(each).convert("L")) for each in (path, committed[name])
        )
        assert picture.std() > 5, f"{name} is nearly empty"
        # Fonts may differ a little from machine to machine, the picture may not.
        np.testing.assert_allclose(picture.shape, old.shape, rtol=0.1)
