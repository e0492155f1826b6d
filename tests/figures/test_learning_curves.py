import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from voxlift.core.errors import DataError
from voxlift.figures.learning_curves import plot_learning_curves, read_curves, running_mean


def _write_run(folder: Path, num_steps: int = 300) -> Path:
    generator = np.random.default_rng(0)
    lines = []
    for step in range(0, num_steps, 2):
        epoch = step // 50
        loss = 0.3 + 2 * np.exp(-step / 80) + generator.normal(0, 0.1)
        lines.append(
            {"step": step, "epoch": epoch, "split": "train", "name": "loss", "value": loss}
        )
        lines.append({"step": step, "epoch": epoch, "split": "train", "name": "lr", "value": 0.1})
        if step % 50 == 48:
            for name, value in (("loss", loss + 0.1), ("top1", 1 - np.exp(-step / 90))):
                lines.append(
                    {"step": step, "epoch": epoch, "split": "val", "name": name, "value": value}
                )
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _line(step: int, value: float | None) -> str:
    return json.dumps({"step": step, "epoch": 0, "split": "train", "name": "loss", "value": value})


def test_a_run_is_drawn(tmp_path: Path) -> None:
    figure = plot_learning_curves(_write_run(tmp_path), tmp_path / "figures" / "curves.png")
    assert figure == tmp_path / "figures" / "curves.png"
    picture = imread(figure)
    # Two panels: loss and top1, but not the learning rate.
    assert picture.shape[1] == pytest.approx(2 * 4.2 * 150, abs=2)
    assert picture.shape[0] == pytest.approx(3.0 * 150, abs=2)
    assert picture[..., :3].std() > 0.02
    assert [entry.name for entry in figure.parent.iterdir()] == ["curves.png"]


def test_the_same_run_gives_the_same_file(tmp_path: Path) -> None:
    run = _write_run(tmp_path)
    first = plot_learning_curves(run, tmp_path / "a.png", title="A run")
    second = plot_learning_curves(str(run), str(tmp_path / "b.png"), title="A run")
    assert first.read_bytes() == second.read_bytes()


def test_several_starts_are_drawn_side_by_side(tmp_path: Path) -> None:
    steps = np.arange(10)
    curves: dict[str, tuple[npt.ArrayLike, npt.ArrayLike]] = {
        "scratch": (steps, steps / 20 + 0.4),
        "tiny": (steps[:4], [0.5, 0.7, np.nan, 0.8]),
    }
    figure = plot_learning_curves(
        curves, tmp_path / "starts.png", value_name="validation AUROC", target=0.75
    )
    assert imread(figure).std() > 0.02


def test_a_resumed_step_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "\n".join([_line(0, 3.0), _line(2, 2.0), _line(1, 9.0), _line(2, 1.5)]) + "\n\n"
    )
    steps, values = read_curves(path)["loss"]["train"]
    assert steps.tolist() == [0, 1, 2]
    assert values.tolist() == [3.0, 9.0, 1.5]


def test_null_is_not_a_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(_line(0, None))
    assert np.isnan(read_curves(path)["loss"]["train"][1]).all()


def test_a_cut_off_last_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(_line(0, 3.0) + "\n" + _line(1, 2.0)[:20])
    assert read_curves(path)["loss"]["train"][0].tolist() == [0]
    assert "cut off" in caplog.text


@pytest.mark.parametrize("text", ["{broken\n{}\n", "[1]\n", '{"step": 1}\n'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match="line 1"):
        plot_learning_curves(path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_what_is_not_there_is_not_drawn(tmp_path: Path) -> None:
    run = _write_run(tmp_path)
    with pytest.raises(DataError, match=r"holds loss, lr, top1, but auroc"):
        plot_learning_curves(run, tmp_path / "curves.png", names=["auroc"])
    with pytest.raises(DataError, match=r"missing.jsonl"):
        plot_learning_curves(tmp_path / "missing.jsonl", tmp_path / "curves.png")
    with pytest.raises(DataError, match="no learning curve"):
        plot_learning_curves({"scratch": ([], [])}, tmp_path / "curves.png")
    with pytest.raises(DataError, match="one value a step"):
        plot_learning_curves({"scratch": ([1, 2], [1])}, tmp_path / "curves.png")
    run.write_text("")
    with pytest.raises(DataError, match="no metric"):
        plot_learning_curves(run, tmp_path / "curves.png")


def test_a_named_metric_is_drawn(tmp_path: Path) -> None:
    figure = plot_learning_curves(_write_run(tmp_path), tmp_path / "lr.png", names=["lr"])
    assert figure.exists()


def test_the_running_mean_averages_neighbours() -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0, 8.0])
    expected = [1.5, 1.5, 3.0, 6.0, 6.0]
    assert running_mean(values, width=3).tolist() == pytest.approx(expected)
