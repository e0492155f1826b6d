"""Boxes in photographs to a detector of lesions: by commands alone."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from voxlift import experiment
from voxlift.config import DetectConfig
from voxlift.experiment import finetune
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.weights.file import read_header, read_weight_file

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Snapshot = Callable[[Path], dict[str, bytes]]
Words = tuple[object, ...]

NETWORK = "--backbone resnet10 --width 4 --stem 3 --weights scratch"
START = "--backbone None --width None --stem None"
SIZES = "--image-size 64 --fpn-channels 16 --head-width 16 --box-samples 32"
MACHINE = "--seed 5 --batch-size 2 --device cpu --precision fp32"
OPTIMIZATION = "--optimizer adamw --lr 0.002 --weight-decay 1e-4 --decay-norms --warmup 0"
EXTRAS = (
    "--steps 6 --val-steps 3 --num-slices 5 --gradient-clip 0 --flip-y 0 --no-class-agnostic "
    "--flip-x 0.5 --flip-slices 0.5"
)
"""With the others, those of the fixture `small_detection` over those of the recipe."""
SHOWN = (
    "--head --fpn-channels --anchor-scale --score-threshold --num-slices --slice-interval-mm "
    "--window --image-sizes --flip-slices --class-agnostic --noisy --slice-start --label-fraction "
    "--matching --empty-images --norm-mode"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs in COCO's form: one has no box, one a crowd, one a box beyond its edge."""
    folder = tmp_path_factory.mktemp("coco") / "pictures"
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(6):
        pixels = generator.integers(0, 80, (64, 72, 3), dtype=np.uint8)
        x, y, width, height = (int(n) for n in generator.integers((0, 0, 16, 16), 30))
        pixels[y : y + height, x : x + width] += 120
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 72})
        # The ids of categories have a gap.
        box = {"image_id": number, "category_id": 3 + 40 * (number % 2), "iscrowd": 0}
        if number != 3:
            boxes.append(box | {"id": number, "bbox": [x, y, width, height]})
    boxes.append({"id": 7, "image_id": 0, "category_id": 3, "bbox": [60.0, 50, 30, 30]})
    boxes.append(
        {"id": 8, "image_id": 2, "category_id": 3, "iscrowd": 1, "bbox": [40, 2, 20, 20.0]}
    )
    boxes.append({"id": 9, "image_id": 4, "category_id": 3, "bbox": [5, 5, 0, 9]})
    names = [{"id": 3, "name": "cat"}, {"id": 43, "name": "dog"}]
    content = {"images": images, "annotations": boxes, "categories": names}
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def _few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time of so small a run."""
    for name in ("plot_froc", "plot_detections"):
        monkeypatch.setattr(f"voxlift.inference.detection_report.{name}", lambda *_, **__: None)
    monkeypatch.setattr("voxlift.experiment.draw_learning_curves", lambda *_, **__: None)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return read_weight_file(folder / "model.safetensors").tensors


def lines(folder: Path) -> list[dict[str, Any]]:
    found = read_metrics(folder / "metrics.jsonl")
    return [line for line in found if line["name"] != "samples_per_second"]


def test_from_boxes_in_photographs_to_lesions(
    pictures: Path, lesion_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    boxes, lesions = tmp_path / "boxes", tmp_path / "lesions"
    options = (*SIZES.split(), *MACHINE.split(), *OPTIMIZATION.split(), "--steps", 4)
    words = ("--task", "detect", *NETWORK.split(), *options, "--val-steps", 2)
    assert command("pretrain", *words, "--data", pictures, "--out", boxes) == 0
    printed = capsys.readouterr()
    assert "detect, val cases" in printed.out
    assert "ap50" in printed.out
    assert str(boxes / "model.safetensors") in printed.out.replace("\n", "")
    log = (boxes / "log.txt").read_text(encoding="utf-8")
    for said in (
        "6 images; ",
        "1 boxes clipped to their image",
        "1 crowds to be ignored",
        "1 images without boxes",
        "1 boxes dropped for having no area",
        "6 images with 6 boxes (object 6)",
        "lifted to three slices",
    ):
        assert said in log
    header = read_header(boxes / "model.safetensors")
    assert header.head is not None
    assert header.head.class_names == ("object",)
    assert header.head.settings["num_slices"] == 3
    assert "val/ap50" in log

    words = ("--task", "detect", *START.split(), *options, "--num-slices", 5)
    words = (*words, "--weights", boxes / "model.safetensors", "--val-steps", 2)
    assert command("finetune", *words, "--data", lesion_folder, "--out", lesions) == 0
    assert "detect, test cases" in capsys.readouterr().out
    log = (lesions / "log.txt").read_text(encoding="utf-8")
    for said in (
        "a group transform for 3 slices in the file; rebuilt for 5 to take the middle slice",
        "taken from behind the backbone: fpn, head.rpn, head.roi_heads.box_head",
        "5 slices 2.5 mm apart",
        "val/sensitivity",
    ):
        assert said in log
    names = {str(path.relative_to(lesions)) for path in lesions.rglob("*")}
    assert {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "metrics.json",
        "predictions.csv",
        "lesions.csv",
        "froc.json",
        "findings.npz",
        "model.safetensors",
        "checkpoints/best.ckpt",
        "figures/learning_curves.png",
        "figures/froc.png",
        "figures/detections.png",
    } <= names


@pytest.mark.usefixtures("_few_figures")
def test_options_of_the_command_make_the_same_run(
    detected: Run, lesion_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    run = tmp_path / "run"
    words: Words = ("--task", "detect", *NETWORK.split(), *SIZES.split(), *MACHINE.split())
    words = (*words, *OPTIMIZATION.split(), *EXTRAS.split(), "--data", lesion_folder)
    assert command("finetune", *words, "--out", run) == 0
    torch.testing.assert_close(tensors(run), tensors(detected.folder), rtol=0, atol=0)
    assert lines(run) == lines(detected.folder)
    for name in ("metrics.json", "predictions.csv", "lesions.csv"):
        assert (run / name).read_text() == (detected.folder / name).read_text()
    capsys.readouterr()
    # And the config of a run makes it again.
    assert command("finetune", "--config", run / "config.yaml", "--out", run) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert command("finetune", "--config", run / "config.yaml", "--resume") == 0
    torch.testing.assert_close(tensors(run), tensors(detected.folder), rtol=0, atol=0)


def test_evaluation_repeats_the_numbers_of_the_run(
    detected: Run, lesion_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    out = tmp_path / "again"
    words = ("--data", lesion_folder, "--batch-size", 1)
    compared = ("--compare", detected.folder)
    assert command("evaluate", detected.folder, *words, "--out", out, *compared) == 0
    printed = capsys.readouterr().out
    for name in ("sensitivity_at_0.5", "ap50"):
        assert name in printed
    for name in ("metrics.json", "predictions.csv", "lesions.csv", "froc.json"):
        assert (out / name).read_text() == (detected.folder / name).read_text()
    assert (out / "figures" / "froc.png").is_file()
    # A run compared with itself differs from itself by nothing.
    comparison = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    (difference,) = comparison["differences"]
    assert {entry["value"] for entry in difference["sensitivity"]} == {0.0}
    assert difference["mean_sensitivity"]["value"] == 0
    assert command("evaluate", detected.folder, *words, "--out", out) == 1
    assert "holds an evaluation already" in capsys.readouterr().err
    # What is no evaluation is told before all is judged.
    other = tmp_path / "other"
    assert command("evaluate", detected.folder, *words, "--out", other, "--compare", tmp_path) == 1
    assert str(tmp_path) in capsys.readouterr().err.replace("\n", "")
    assert not other.exists()


@pytest.mark.usefixtures("_few_figures")
def test_any_split_can_be_judged(
    detected: Run, lesion_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    tested = {row["case"] for row in rows_of(detected.folder / "lesions.csv")}
    out = tmp_path / "val"
    words = ("--data", lesion_folder, "--split", "val", "--out", out)
    assert command("evaluate", detected.folder, *words) == 0
    watched = {row["case"] for row in rows_of(out / "lesions.csv")}
    assert watched
    assert not watched & tested
    assert json.loads((out / "metrics.json").read_text())["split"] == "val"


class Stop(Callback):
    """Ask the run to stop in the middle of a batch, or break it."""

    def __init__(self, step: int, *, crash: bool) -> None:
        self.step = step
        self.crash = crash

    def on_before_backward(self, trainer: Any, *_: object) -> None:
        if trainer.global_step != self.step:
            return
        if self.crash:
            raise RuntimeError("the power went off")
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("_few_figures")
@pytest.mark.parametrize("crash", [False, True], ids=["ctrl-c", "crash"])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    detected: Run,
    small_detection: DetectConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
    capsys: Captured,
    crash: bool,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "early_stop", lambda *_: (Stop(4, crash=crash),))
        if crash:
            config = small_detection.model_copy(update={"out": out, "checkpoint_steps": 4})
            with pytest.raises(RuntimeError, match="power"):
                finetune(config)
        else:
            words = ("--out", out, "--checkpoint-steps", 4)
            assert command("finetune", "--config", detected.folder / "config.yaml", *words) == 130
            assert "--resume" in capsys.readouterr().err
    kept = read_checkpoint(out / "checkpoints" / "last.ckpt")["global_step"]
    assert kept == (4 if crash else 5)
    assert not (out / "model.safetensors").exists()
    assert command("finetune", "--config", out / "config.yaml", "--resume") == 0
    assert lines(out) == lines(detected.folder)
    torch.testing.assert_close(tensors(out), tensors(detected.folder), rtol=0, atol=0)


def test_inspect_tells_of_detectors(detected: Run, command: Command, capsys: Captured) -> None:
    assert command("inspect", detected.folder / "model.safetensors") == 0
    shown = capsys.readouterr().out
    for words in ("detect", "lesion", "resnet10"):
        assert words in shown


def test_conversion_tells_what_of_a_detector_is_written(
    detected: Run, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    model = detected.folder / "model.safetensors"
    assert command("convert", model, "--out", tmp_path / "maps.pt2") == 1
    assert "--size-voxels" in capsys.readouterr().err
    words = ("--size-voxels", 5, 64, 64)
    assert command("convert", model, "--out", tmp_path / "maps.pt2", *words) == 0
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "output p2" in shown
    assert "not part of it" in shown
    plain = tmp_path / "plain.pth"
    assert command("convert", model, "--out", plain) == 0
    ours = torch.load(plain, weights_only=True)
    assert isinstance(ours, dict)
    assert any("roi_heads" in str(name) for name in (*ours, *ours.get("state_dict", {})))


@pytest.mark.usefixtures("_few_figures")
@pytest.mark.parametrize(
    ("start", "recipe"), [("finetune", "detect-few"), ("pretrain", "coco-small")]
)
def test_flags_change_a_recipe(
    start: str,
    recipe: str,
    pictures: Path,
    lesion_folder: Path,
    tmp_path: Path,
    command: Command,
) -> None:
    data = lesion_folder if start == "finetune" else pictures
    out = tmp_path / "run"
    words = (*NETWORK.split(), *SIZES.split(), *MACHINE.split(), "--steps", 1, "--val-steps", 1)
    if start == "finetune":
        words = (*words, "--num-slices", 4, "--label-fraction", 0.5, "--window", "lung")
    assert command(start, "--recipe", recipe, "--data", data, "--out", out, *words) == 0
    text = (out / "config.yaml").read_text(encoding="utf-8")
    assert f"recipe: {recipe}" in text
    header = read_header(out / "model.safetensors")
    assert header.head is not None
    assert header.head.settings["image_size"] == 64
    if start == "finetune":
        assert header.head.settings["num_slices"] == 4
        assert header.preprocessing is not None
        assert header.preprocessing.window == (-1350.0, 150.0)
        log = (out / "log.txt").read_text(encoding="utf-8")
        whole = int(log.partition("train ")[2].partition(",")[0])
        part = int(log.partition("learning from ")[2].partition(",")[0])
        assert 0 < part < whole


def test_help_of_detection_shows_its_options(command: Command, capsys: Captured) -> None:
    for start in ("finetune", "pretrain"):
        assert command(start, "--task", "detect", "--help") == 0
        shown = capsys.readouterr().out
        for flag in SHOWN.split():
            assert flag in shown
        assert "--folds" not in shown
        assert "--patch-voxels" not in shown
