import pytest

from voxlift.weights.local_paths import clean, without_paths


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/anna/My Data/nodules.csv", "(local path)"),
        ("/home/anna", "(local path)"),
        ("~/study", "(local path)"),
        ("../study", "(local path)"),
        ("C:\\Users\\anna\\study", "(local path)"),
        ("\\\\server\\anna\\study", "(local path)"),
        ("//server/anna", "(local path)"),
        ("data\\anna", "(local path)"),
        ("runs/anna/first", "(local path)"),
        ("smith/ct.nii.gz", "(local path)"),
        ("see file:///home/anna/x", "see (local path)"),
        ("scans of /mnt/anna, seed 3", "scans of (local path), seed 3"),
        ("x=/a/b,y=/c/d", "x=(local path),y=(local path)"),
        ("/home/anna/resnet18-5ff2ecb7.pth", "resnet18-5ff2ecb7.pth"),
        ("cspr:/data/anna/start.pth", "cspr:start.pth"),
        ("runs/anna/model.safetensors", "model.safetensors"),
        (
            "voxlift finetune --data /home/anna/n.csv --out runs/anna --seed 1",
            "voxlift finetune --data (local path) --out (local path) --seed 1",
        ),
        (
            "voxlift finetune --data '/home/anna/My Data/n.csv' --weights hf://org/name",
            "voxlift finetune --data (local path) --weights hf://org/name",
        ),
        ("voxlift finetune --data=/x/y", "voxlift finetune --data=(local path)"),
    ],
)
def test_paths_are_taken_out(text: str, left: str) -> None:
    assert without_paths(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "CIFAR-10 (JPEG copy)",
        "voxlift pretrain --recipe cifar10-tiny --data cifar10",
        "hf://org/name/a.pth@v1",
        "i3d:timm/resnet18.a1_in1k",
        "torchvision/resnet50@IMAGENET1K_V1",
        "https://a.org/b/c.pth#sha256=00",
        "train/val 80/10/10, images/s, n/a and/or 1/2",
        "2026/11/23",
        "doi:10.1016/j.media.2020.101840",
        "",
    ],
)
def test_all_else_stays(text: str) -> None:
    assert without_paths(text) == text


def test_everything_inside_is_cleaned() -> None:
    assert clean(
        {
            "data": ["/home/anna/a.csv", 3, None],
            "metrics": {"test/top1": 0.5, "/home/anna/x": 1.0},
            "deep": {"command": "voxlift pretrain --data /x/y"},
            "seed": 0,
        }
    ) == {
        "data": ["(local path)", 3, None],
        "metrics": {"test/top1": 0.5, "(local path)": 1.0},
        "deep": {"command": "voxlift pretrain --data (local path)"},
        "seed": 0,
    }
