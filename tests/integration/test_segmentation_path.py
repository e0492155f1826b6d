"""Volumes with masks to a segmenter, a segmenter to masks: by commands alone."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from voxlift.config import SegmentConfig
from voxlift.data.volumes import Volume, read_volume, write_volume
from voxlift.training.run import Run
from voxlift.weights.file import read_weight_file

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]

OPTIONS = (
    "--backbone resnet10 --width 4 --stem 3 --geometry small --weights scratch --batch-size 2 "
    "--steps 6 --val-steps 3 --seed 5 --device cpu --precision fp32 --fractions 0.5 0.25 0.25 "
    "--patch-voxels 8 8 8 --optimizer adamw --lr 0.02 --weight-decay 1e-4 --decay-norms --warmup 0"
)
"""Those of the fixture `small_segmentation`, over those of the recipe."""
SHOWN = (
    "--decoder --deep-supervision --class-names --regions --ignore-value --foreground-share "
    "--patch-voxels --window --window-width-centre --flip-axes --loss --dice-weight --keep"
)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_options_of_the_command_make_the_same_run(
    segmented: Run, ball_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    run = tmp_path / "run"
    assert (
        command(
            "finetune", "--task", "segment", "--data", ball_folder, "--out", run, *OPTIONS.split()
        )
        == 0
    )
    printed = capsys.readouterr()
    for words in ("segment, test cases", "dice/ball", "dice/bead", "hd95_mm", "volume_error_ml"):
        assert words in printed.out
    assert str(run / "model.safetensors") in printed.out.replace("\n", "")
    ours, theirs = (
        read_weight_file(folder / "model.safetensors").tensors for folder in (run, segmented.folder)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    # And the config of a run makes it again.
    assert command("finetune", "--config", run / "config.yaml", "--out", run) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert command("finetune", "--config", run / "config.yaml", "--resume") == 0
    for name in ("metrics.json", "cases.csv"):
        assert (run / name).read_text() == (segmented.folder / name).read_text()


def test_evaluation_repeats_the_numbers_of_the_run(
    segmented: Run,
    small_segmentation: SegmentConfig,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    words = ("--data", small_segmentation.data, "--out", tmp_path / "again")
    assert command("evaluate", segmented.folder, *words, "--batch-size", 1) == 0
    assert "dice/bead" in capsys.readouterr().out
    for name in ("metrics.json", "cases.csv"):
        again, first = tmp_path / "again" / name, segmented.folder / name
        assert again.read_text() == first.read_text()
    assert (tmp_path / "again" / "figures" / "worst_cases.png").is_file()
    assert command("evaluate", segmented.folder, *words) == 1
    assert "holds an evaluation already" in capsys.readouterr().err


def test_any_split_can_be_judged(
    segmented: Run,
    small_segmentation: SegmentConfig,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    tested = {row["case"] for row in rows_of(segmented.folder / "cases.csv")}
    words = ("--data", small_segmentation.data)
    out = tmp_path / "val"
    assert command("evaluate", segmented.folder, *words, "--out", out, "--split", "val") == 0
    watched = {row["case"] for row in rows_of(out / "cases.csv")}
    assert len(watched) == 2
    assert not watched & tested
    assert json.loads((out / "metrics.json").read_text())["split"] == "val"


def test_predictions_lie_on_the_grid_of_their_inputs(
    segmented: Run, ball_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    images = ball_folder / "imagesTr"
    one = read_volume(images / "balls_00.nii.gz")
    # Another orientation of the same scan: its axes exchanged and one turned.
    turned = Volume(
        np.ascontiguousarray(one.array.transpose(2, 0, 1)[:, ::-1]),
        (one.spacing_mm[2], one.spacing_mm[0], one.spacing_mm[1]),
        (5.0, 6.0, 7.0),
        np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    )
    write_volume(tmp_path / "turned.nii.gz", turned)
    (tmp_path / "broken.nii.gz").write_bytes(b"no volume")
    inputs = (images / "balls_00.nii.gz", tmp_path / "turned.nii.gz", tmp_path / "broken.nii.gz")
    out = tmp_path / "out"
    assert command("predict", segmented.folder, *inputs, "--out", out) == 1
    printed = capsys.readouterr()
    assert "failed: " in printed.err
    assert "broken.nii.gz" in printed.err
    assert "ball (ml)" in printed.out
    for name, image in (("balls_00", one), ("turned", turned)):
        mask = read_volume(out / f"{name}.seg.nii.gz")
        assert mask.size_voxels == image.size_voxels
        assert mask.spacing_mm == pytest.approx(image.spacing_mm)
        assert mask.origin_mm == pytest.approx(image.origin_mm)
        np.testing.assert_allclose(mask.direction, image.direction, atol=1e-6)
        assert set(np.unique(mask.array)) <= {0, 1, 2}
        assert (out / f"{name}.png").is_file()
    first, second = rows_of(out / "volumes.csv")
    assert {"ball_ml", "bead_ml"} <= set(first)
    mask = read_volume(out / "balls_00.seg.nii.gz")
    assert float(first["ball_ml"]) == pytest.approx((mask.array == 1).sum() * 1.5e-3, abs=1e-5)
    # What was cut short or done before is gone on with.
    (out / "turned.seg.nii.gz").unlink()
    assert command("predict", segmented.folder, *inputs[:2], "--out", out, "--resume") == 0
    again = rows_of(out / "volumes.csv")
    assert again == [first, second]
    assert (out / "turned.seg.nii.gz").is_file()


def test_prediction_answers_like_the_evaluation(
    segmented: Run, ball_folder: Path, tmp_path: Path, command: Command
) -> None:
    row = rows_of(segmented.folder / "cases.csv")[0]
    image = ball_folder / "imagesTr" / f"{row['case']}.nii.gz"
    assert command("predict", segmented.folder, image, "--out", tmp_path) == 0
    found = read_volume(tmp_path / f"{row['case']}.seg.nii.gz").array == 1
    truth = read_volume(ball_folder / "labelsTr" / image.name).array == 1
    overlap = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert row["structure"] == "ball"
    # Predictions may be computed in bf16.
    assert float(row["dice"]) == pytest.approx(overlap, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task segment --recipe classify-few", "--recipe classify-few is for the task classify"),
        ("--task classify --recipe hippocampus", "--recipe hippocampus is for the task segment"),
        ("--task guess", "Unknown task 'guess'; known are classify, segment, detect"),
        ("--task segment --data nosuch", "nosuch is not there"),
        ("--recipe hippocampus --data nosuch", "nosuch is not there"),
    ],
)
def test_refusals_are_one_clear_error(
    words: str,
    message: str,
    command: Command,
    capsys: Captured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("finetune", *words.split()) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert list(tmp_path.iterdir()) == []


def test_a_config_of_the_other_task_is_refused(
    segmented: Run, command: Command, capsys: Captured
) -> None:
    config = segmented.folder / "config.yaml"
    assert command("finetune", "--task", "classify", "--config", config) == 1
    assert f"{config} is for the task segment, not classify" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task segment --folds 3", "--folds"),
        ("--task segment --foreground-share 2", "less than or equal to 1"),
        ("--task segment --regions core", "NAME=VALUE+VALUE"),
        ("--task segment --loss hinge", "hinge"),
        ("--task segment --window 1 2 --intensity zscore", "a window goes with intensity window"),
        ("--task classify --decoder fcn", "--decoder"),
    ],
)
def test_misspelt_options_are_usage_errors(
    words: str, message: str, command: Command, capsys: Captured
) -> None:
    assert command("finetune", *words.split()) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert message in printed.err + printed.out


def test_help_of_segmentation_shows_its_options(command: Command, capsys: Captured) -> None:
    assert command("finetune", "--task", "segment", "--help") == 0
    shown = capsys.readouterr().out
    for flag in SHOWN.split():
        assert flag in shown
    assert "--folds" not in shown


def test_data_that_do_not_fit_the_model_are_refused(
    segmented: Run, ball_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    # Another number of channels.
    folder = tmp_path / "two"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(2):
        image = ball_folder / "imagesTr" / f"balls_{number:02d}.nii.gz"
        for channel in range(2):
            name = f"balls_{number:02d}_{channel:04d}.nii.gz"
            shutil.copy(image, folder / "images" / name)
        shutil.copy(ball_folder / "labelsTr" / image.name, folder / "labels" / image.name)
    shutil.move(folder / "images", folder / "imagesTr")
    shutil.move(folder / "labels", folder / "labelsTr")
    words = ("--split", "all", "--out", tmp_path / "out")
    assert command("evaluate", segmented.folder, "--data", folder, *words) == 1
    assert "channel" in capsys.readouterr().err
    # Other classes.
    other = tmp_path / "other"
    shutil.copytree(ball_folder, other)
    description = json.loads((other / "dataset.json").read_text())
    description["labels"]["3"] = "cube"
    (other / "dataset.json").write_text(json.dumps(description))
    assert command("evaluate", segmented.folder, "--data", other, *words) == 1
    assert "cube" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_segmentation_do_not_go_with_a_classifier(
    finetuned: Run, nodule_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    words = (nodule_folder / "volumes", "--out", tmp_path / "out", "--largest-component")
    assert command("predict", finetuned.folder, *words) == 1
    assert "options of segmentation do not go with it" in capsys.readouterr().err


def test_class_names_are_in_every_output(
    segmented: Run, ball_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    assert command("inspect", segmented.folder / "model.safetensors") == 0
    shown = capsys.readouterr().out
    words = ("--out", tmp_path, "--probabilities")
    image = ball_folder / "imagesTr" / "balls_01.nii.gz"
    assert command("predict", segmented.folder, image, *words) == 0
    for name in ("ball", "bead"):
        assert name in shown
        assert name in (segmented.folder / "log.txt").read_text()
        assert name in (segmented.folder / "metrics.json").read_text()
        assert name in (segmented.folder / "metrics.jsonl").read_text()
        assert (tmp_path / f"balls_01.{name}.prob.nii.gz").is_file()
