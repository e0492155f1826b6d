"""Images and boxes that cannot be learnt from: one clear error, and nothing is written over."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from voxlift.training.run import Run
from voxlift.weights.file import read_header

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Snapshot = Callable[[Path], dict[str, bytes]]
Spoil = Callable[[Path], tuple[str, ...]]
"""Spoils a data set; returns what its error has to name."""

QUICK = "--steps 1 --val-steps 1"
NETWORK = "--weights scratch --backbone resnet10 --width 4 --stem 3"
SMALL = "--image-size 32 --fpn-channels 16 --head-width 16 --device cpu --precision fp32"


def say_nothing(*_: object, **__: object) -> None:
    """Stand in for a figure."""


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_froc", "plot_detections"):
        monkeypatch.setattr(f"voxlift.inference.detection_report.{name}", say_nothing)
    monkeypatch.setattr("voxlift.experiment.draw_learning_curves", say_nothing)


@pytest.fixture
def lesions(lesion_folder: Path, tmp_path: Path) -> Path:
    """A copy of the good key slices, to be spoilt."""
    return Path(shutil.copytree(lesion_folder, tmp_path / "DeepLesion"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six photographs with a box each, to be spoilt."""
    folder = tmp_path / "pictures"
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(6):
        pixels = generator.integers(0, 200, (40, 48, 3), dtype=np.uint8)
        name = f"{number}.{'jpg' if number == 1 else 'png'}"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "height": 40, "width": 48})
        box = {"image_id": number, "category_id": 7, "iscrowd": 0}
        boxes.append(box | {"id": number, "bbox": [4.0, 5, 20, 16]})
    content = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}],
    }
    (folder / "boxes.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def run_folder(detected: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, to be kept."""
    return Path(shutil.copytree(detected.folder, tmp_path / "run"))


def assert_one_clear_error(capsys: Captured, *words: str) -> None:
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.count("error: ") == 1
    message = " ".join(printed.err.partition("error: ")[2].split())
    for word in words:
        assert word in message


def boxes_of(folder: Path) -> Path:
    return folder / "boxes.json"


def edited(change: Callable[[dict[str, Any]], None], *words: str) -> Spoil:
    """Change the annotations of the photographs."""

    def spoil(folder: Path) -> tuple[str, ...]:
        content = json.loads(boxes_of(folder).read_text(encoding="utf-8"))
        change(content)
        boxes_of(folder).write_text(json.dumps(content), encoding="utf-8")
        return ("boxes.json", *words)

    return spoil


def text(content: str, *words: str) -> Spoil:
    """Replace the annotations of the photographs."""

    def spoil(folder: Path) -> tuple[str, ...]:
        boxes_of(folder).write_text(content, encoding="utf-8")
        return ("boxes.json", *words)

    return spoil


def absent(folder: Path) -> tuple[str, ...]:
    (folder / "images" / "2.png").unlink()
    return "image listed but not in", "2.png", "--skip-bad"


SPOILT_PICTURES: dict[str, Spoil] = {
    "empty file": text("", "is empty", "COCO's form"),
    "no JSON": text("{", "is no JSON"),
    "no COCO": text('{"labels": [1]}', "has no list of images", "COCO's form"),
    "no images": edited(lambda c: c["images"].clear(), "list of images has no entry"),
    "no boxes": edited(lambda c: c["annotations"].clear(), "list of annotations has no entry"),
    "NaN box": edited(
        lambda c: c["annotations"][2].update(bbox=[float("nan"), 0, 5, 5]),
        "without a bbox of 4 numbers (1): annotation 2",
    ),
    "box of three": edited(
        lambda c: c["annotations"][2].update(bbox=[1, 2, 3]), "bbox of 4 numbers"
    ),
    "ids of images twice": edited(
        lambda c: c["images"][3].update(id=2), "image id of two images", "2 (3.png)"
    ),
    "ids of categories twice": edited(
        lambda c: c["categories"][1].update(id=7), "'cat' and 'dog' have the same id 7"
    ),
    "unknown category": edited(
        lambda c: c["annotations"][2].update(category_id=8), "unknown category (1): annotation 2"
    ),
    "absent image": absent,
}


@pytest.mark.parametrize("case", SPOILT_PICTURES)
def test_bad_annotations_are_one_clear_error(
    case: str,
    pictures: Path,
    run_folder: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    words = SPOILT_PICTURES[case](pictures)
    new, before = tmp_path / "new", snapshot(run_folder)
    options = ("pretrain", "--task", "detect", "--data", pictures)
    assert command(*options, "--out", new) == 1
    assert_one_clear_error(capsys, *words)
    # Not even with leave to replace an earlier run.
    assert command(*options, "--out", run_folder, "--overwrite") == 1
    assert_one_clear_error(capsys, *words)
    assert snapshot(run_folder) == before
    assert not new.exists()


def image_of(folder: Path) -> Path:
    """A slice in the middle of what there is about the first key slice of the table."""
    with (folder / "DL_info.csv").open(newline="") as file:
        name = next(csv.DictReader(file))["File_name"]
    series, _, number = name.rpartition("_")
    return folder / "Images_png" / series / number


def missing_key_slice(folder: Path) -> tuple[str, ...]:
    image_of(folder).unlink()
    return "key slice not in", "(1)", image_of(folder).name, "--skip-bad"


def eight_bits(folder: Path) -> tuple[str, ...]:
    path = image_of(folder)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    return "key slice of 8 bits of grey where 16 bits of grey are due (1)", path.name


def cut_header(folder: Path) -> tuple[str, ...]:
    path = image_of(folder)
    path.write_bytes(path.read_bytes()[:10])
    return "key slice that is damaged (1)", path.name


def as_json(change: Callable[[dict[str, Any]], None], *words: str) -> Spoil:
    """Take the annotations in COCO's form, and change those of the training."""

    def spoil(folder: Path) -> tuple[str, ...]:
        (folder / "DL_info.csv").unlink()
        (path,) = folder.glob("annotations/*train*.json")
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")
        return (path.name, *words)

    return spoil


NO_INTERVAL = "slice_intv missing, zero or no number (1)"
SPOILT_LESIONS: dict[str, Spoil] = {
    "missing key slice": missing_key_slice,
    "8 bits": eight_bits,
    "cut in the header": cut_header,
    "interval of zero": as_json(lambda c: c["images"][0].update(slice_intv=0), NO_INTERVAL),
    "no interval": as_json(lambda c: c["images"][0].pop("slice_intv"), NO_INTERVAL),
}


@pytest.mark.parametrize("case", SPOILT_LESIONS)
def test_bad_key_slices_are_one_clear_error(
    case: str,
    lesions: Path,
    run_folder: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    words = SPOILT_LESIONS[case](lesions)
    new, before = tmp_path / "new", snapshot(run_folder)
    options = ("finetune", "--config", run_folder / "config.yaml", "--data", lesions)
    assert command(*options, "--out", new) == 1
    assert_one_clear_error(capsys, *words)
    assert command(*options, "--out", run_folder, "--overwrite") == 1
    assert_one_clear_error(capsys, *words)
    assert snapshot(run_folder) == before
    assert command("evaluate", run_folder, "--data", lesions, "--out", new) == 1
    assert_one_clear_error(capsys, *words)
    assert not new.exists()


def test_unusable_key_slices_are_skipped_on_request(
    lesions: Path, run_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    path = image_of(lesions)
    path.write_bytes(path.read_bytes()[:-300])
    out = tmp_path / "new"
    options = ("finetune", "--config", run_folder / "config.yaml", "--data", lesions)
    assert command(*options, "--out", out, "--skip-bad", *QUICK.split()) == 0
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert "skipped: key slice that is damaged" in log
    assert f"{path.parent.name}/{path.name}" in log.replace(f"{path.parent.name}_", "")


def test_missing_neighbours_are_told_and_the_nearest_slice_repeats(
    lesions: Path, run_folder: Path, tmp_path: Path, command: Command
) -> None:
    path = image_of(lesions)
    path.with_name(f"{int(path.stem) + 1:03d}.png").unlink()
    out = tmp_path / "new"
    options = ("finetune", "--config", run_folder / "config.yaml", "--data", lesions)
    assert command(*options, "--out", out, *QUICK.split()) == 0
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert "key slices lack some of the slices about them" in log
    assert "the nearest one that is there repeats" in log


def test_a_neighbour_of_8_bits_is_named(
    lesions: Path, run_folder: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    for path in (lesions / "Images_png").rglob("*.png"):
        if path.stem == f"{int(image_of(lesions).stem) + 1:03d}":
            Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    words = ("--data", lesions, "--out", tmp_path / "new", "--split", "all")
    assert command("evaluate", run_folder, *words) == 1
    assert_one_clear_error(capsys, "The context of", "8 bits of grey a pixel; expected 16 bits")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["1.jpg", "0.png"])
def test_a_cut_photograph_is_named(
    name: str, pictures: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    path = pictures / "images" / name
    path.write_bytes(path.read_bytes()[:-500])
    out = tmp_path / "new"
    words = (*NETWORK.split(), *SMALL.split(), "--batch-size", 5)
    options = ("pretrain", "--task", "detect", "--data", pictures, "--out", out, *words)
    # Read when it is first needed, for a million photographs cannot all be read beforehand.
    assert command(*options, "--epochs", 1) == 1
    assert_one_clear_error(capsys, name)
    assert not (out / "model.safetensors").exists()
    assert command(*options, *QUICK.split(), "--skip-bad", "--overwrite") == 0
    assert "skipped: image that cannot be read" in (out / "log.txt").read_text(encoding="utf-8")


def test_what_can_be_put_right_is_counted(
    pictures: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    def change(content: dict[str, Any]) -> None:
        boxes = content["annotations"]
        boxes[0]["bbox"] = [30, 30, 100, 100]
        boxes[1]["bbox"] = [100, 100, 5, 5]
        boxes.append({**boxes[2], "bbox": [20.0, 10, 9, 9]})
        boxes.append(dict(boxes[3]))
        boxes[4]["category_id"] = 90
        content["images"].append(dict(content["images"][0]))

    edited(change)(pictures)
    out = tmp_path / "run"
    words = (*NETWORK.split(), *SMALL.split(), "--batch-size", 2, "--no-class-agnostic")
    options = ("pretrain", "--task", "detect", "--data", pictures, "--out", out, *words)
    assert command(*options, *QUICK.split()) == 0
    log = (out / "log.txt").read_text(encoding="utf-8")
    for said in (
        "6 images; ",
        "1 images listed twice",
        "1 annotations given twice",
        "1 annotation ids of two boxes",
        "1 boxes clipped to their image",
        "1 boxes dropped for lying outside their image",
        "1 images without boxes",
        "(cat 5, dog 1)",
    ):
        assert said in log
    header = read_header(out / "model.safetensors")
    assert header.head is not None
    # Ids of categories with a gap between them become labels without.
    assert header.head.class_names == ("cat", "dog")
    assert header.head.num_classes == 2


def test_a_full_run_folder_is_kept(
    run_folder: Path, lesion_folder: Path, command: Command, capsys: Captured, snapshot: Snapshot
) -> None:
    before = snapshot(run_folder)
    for start in ("finetune", "pretrain"):
        options = ("--task", "detect", "--data", lesion_folder, "--out", run_folder)
        assert command(start, *options) == 1
        assert_one_clear_error(capsys, str(run_folder), "--overwrite")
    assert snapshot(run_folder) == before


def test_photographs_have_three_slices(
    pictures: Path, tmp_path: Path, command: Command, capsys: Captured
) -> None:
    out = tmp_path / "new"
    options = ("pretrain", "--task", "detect", "--data", pictures, "--out", out)
    assert command(*options, "--num-slices", 9) == 1
    assert_one_clear_error(capsys, "holds photographs", "Leave --num-slices out")
    assert not out.exists()
