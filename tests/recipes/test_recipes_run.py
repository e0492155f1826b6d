"""Every shipped recipe, run to its end by the command line on a little data in its layout."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from voxlift.data.volumes import Volume, write_volume
from voxlift.recipes.registry import FINETUNE_RECIPES, PRETRAIN_RECIPES

Write = Callable[[Path], Path]

TINY = "--backbone resnet10 --weights scratch --width 4 --stem 3"
FEW_STEPS = "--accumulate 1 --steps 2 --batch-size 2 --workers 0 --device cpu --precision fp32"
ANY_PHOTOGRAPHS = f"{TINY} --image-size 16 --geometry thumbnail --no-compile"
SMALL_PATCHES = f"{TINY} --patch-voxels 10 16 16"
SMALL_DETECTOR = "--image-size 32 --image-sizes 32 --fpn-channels 8 --head-width 8 --box-samples 16"
SMALL_P3D = f"--width 4 --weights scratch {SMALL_DETECTOR}"


def photographs(folder: Path) -> Path:
    """Two classes of six pictures, as CIFAR-10 and Tiny-ImageNet are unpacked."""
    for split, count in (("train", 4), ("val", 2)):
        for name in ("n01", "n02"):
            for number in range(count):
                draw(folder / split / name / f"{number}.png", seed=number)
    return folder


def imagenet(folder: Path) -> Path:
    """ImageNet as it is published: class folders to learn from, one folder to validate on."""
    lines = []
    for number in range(4):
        for name in ("n01440764", "n01443537"):
            draw(folder / "train" / name / f"{name}_{number}.JPEG", seed=number)
        draw(folder / "val" / f"ILSVRC2012_val_{number + 1:08d}.JPEG", seed=number)
        lines.append(f"ILSVRC2012_val_{number + 1:08d}.JPEG {number % 2}")
    (folder / "meta").mkdir()
    (folder / "meta" / "val.txt").write_text("\n".join(lines))
    return folder


def coco(folder: Path) -> Path:
    """Six photographs with a box each."""
    images, boxes = [], []
    for number in range(6):
        draw(folder / "images" / f"{number}.jpg", seed=number, size=32)
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 32, "width": 32})
        box = {"id": number + 1, "image_id": number, "bbox": [4, 6, 16, 12], "area": 192}
        boxes.append({**box, "category_id": 1, "iscrowd": 0})
    annotations = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "instances.json").write_text(json.dumps(annotations))
    return folder


def lidc(folder: Path) -> Path:
    """Nodules as the authors keep them: arrays of 8 bits, with the tables."""
    generator = np.random.default_rng(0)
    rows, split = ["index,malignancy_mode,patient_id"], ["train,test"]
    for number in range(12):
        voxel = generator.integers(0, 100 + 100 * (number % 2), (14, 14, 14), dtype=np.uint8)
        (folder / "nodule").mkdir(parents=True, exist_ok=True)
        np.savez(folder / "nodule" / f"n{number}.npz", voxel=voxel, answer1=voxel > 60)
        rows.append(f"n{number},{1 + 4 * (number % 2)},P{number}")
    split += [f"n{number}.npz,{f'n{number + 8}.npz' if number < 4 else ''}" for number in range(8)]
    (folder / "nodules.csv").write_text("\n".join(rows))
    (folder / "train_test_split.csv").write_text("\n".join(split))
    return folder


def scans(
    *names: str, values: Sequence[int] = (1,), places: tuple[str, str] = ("images/", "labels/")
) -> Write:
    """CT scans and their masks, in which the values lie one behind the other."""

    def write(folder: Path) -> Path:
        mask = np.zeros((12, 20, 20), np.uint8)
        for place, value in enumerate(values):
            mask[1:-1, 2 + place : 16, 4:-4] = value
        for seed, name in enumerate(names):
            noise = np.random.default_rng(seed).normal(0, 20, mask.shape)
            image = (np.where(mask, 10 * mask.astype(int), -600) + noise).astype(np.int16)
            spacing_mm = (2.0, 0.7 + 0.1 * (seed % 2), 0.7)
            for start, array in zip(places, (image, mask.astype(np.int16)), strict=True):
                write_volume(folder / f"{start}{name}.nii", Volume(array, spacing_mm=spacing_mm))
        return folder

    return write


def draw(path: Path, *, seed: int, size: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


BCV = scans("1", "21", *(str(number) for number in range(35, 41)), values=range(1, 14))
LITS = scans("3", "4", "5", "34", "52", values=(1, 2), places=("volume-", "segmentation-"))
NODULES = scans(*(f"nodule-{number}" for number in range(6)))

CASES: dict[str, tuple[Write | str, str]] = {
    "photographs": ("photographs", f"{TINY} --image-size 8 --cache-gb 0"),
    "cifar10-tiny": (photographs, ANY_PHOTOGRAPHS),
    "cifar10-tiny-axes": (photographs, ANY_PHOTOGRAPHS),
    "tiny-imagenet-small": (photographs, ANY_PHOTOGRAPHS),
    "imagenet-resnet18": (imagenet, "--width 4 --image-size 32"),
    "imagenet-resnet18-fast": (imagenet, "--width 4 --image-size 32 --no-compile"),
    "coco-small": (coco, f"{TINY} {SMALL_DETECTOR}"),
    "coco-p3d63": (coco, SMALL_P3D),
    "classify-few": (lidc, TINY),
    "lidc-classify": (lidc, f"{TINY} --size-voxels 18 18 18"),
    "segment-few": (NODULES, SMALL_PATCHES),
    "hippocampus": ("ball_folder", f"{SMALL_PATCHES} --class-names ball bead"),
    "msd": ("ball_folder", SMALL_PATCHES),
    "bcv": (BCV, f"{SMALL_PATCHES} --window-steps 4 8 8"),
    "lits-liver": (
        LITS,
        f"{SMALL_PATCHES} --window-steps 4 8 8 --val-cases *-34 --test-cases *-52",
    ),
    "lidc-segment": (NODULES, SMALL_PATCHES),
    "lidc-segment-full": (lidc, SMALL_PATCHES),
    "detect-few": ("lesion_folder", f"{TINY} {SMALL_DETECTOR}"),
    "deeplesion-mp3d63": ("lesion_folder", SMALL_P3D),
}
"""Of each recipe: what writes its data, or a fixture or name; options that make the run small."""


def test_every_recipe_is_run() -> None:
    assert set(CASES) == {*PRETRAIN_RECIPES, *FINETUNE_RECIPES}


@pytest.mark.parametrize("name", CASES)
def test_recipe_runs_to_its_end(
    name: str,
    tmp_path: Path,
    command: Callable[..., int],
    request: pytest.FixtureRequest,
) -> None:
    data, options = CASES[name]
    place: Any
    if callable(data):
        place = data(tmp_path / "data")
    else:
        place = data if data == name else request.getfixturevalue(data)
    verb = "pretrain" if name in PRETRAIN_RECIPES else "finetune"
    run = tmp_path / "run"
    words = ["--recipe", name, "--data", place, "--out", run]
    assert command(verb, *words, *f"{FEW_STEPS} {options}".split()) == 0
    assert (run / "model.safetensors").is_file()
    assert command("inspect", run / "model.safetensors") == 0
