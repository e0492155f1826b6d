"""What becomes of a run whose learning curves cannot be drawn."""

import json
import logging
from pathlib import Path

import pytest

from voxlift.training.engine import draw_learning_curves
from voxlift.training.run_folder import RunFolder


def write_metrics(folder: Path, *names: str) -> None:
    lines = [
        {"step": step, "epoch": 0, "split": "train", "name": name, "value": 1 / (1 + step)}
        for name in names
        for step in range(3)
    ]
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_was_logged_is_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_metrics(tmp_path / "run", "loss")
    (tmp_path / "run" / "figures").mkdir()
    draw_learning_curves(RunFolder(tmp_path / "run"), names=("loss", "sensitivity"))
    assert (tmp_path / "run" / "figures" / "learning_curves.png").stat().st_size > 0
    assert not caplog.records


@pytest.mark.parametrize("case", ["nothing to draw", "no folder", "no metrics"])
def test_curves_that_cannot_be_drawn_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    run = tmp_path / "run"
    write_metrics(run, "lr" if case == "nothing to draw" else "loss")
    if case == "no folder":
        (run / "figures").write_text("in the way")
    if case == "no metrics":
        (run / "metrics.jsonl").write_text("no JSON\nat all\n")
    with caplog.at_level(logging.WARNING):
        draw_learning_curves(RunFolder(run), names=("loss", "dice"))
    assert "learning_curves.png were not drawn" in caplog.text
