import datetime
import json
import platform
from pathlib import Path

import pytest

from voxlift.config import FinetuneConfig, NetworkConfig, PretrainConfig
from voxlift.recipes.pretraining import cifar10_tiny
from voxlift.training.provenance import describe_origin


def test_origin_says_how_to_run_it_again() -> None:
    config = cifar10_tiny().model_copy(update={"seed": 4, "steps": 7})
    origin = describe_origin(config, {"val/top1": 0.12345678}, command="pretrain")
    assert origin["command"] == "voxlift pretrain --recipe cifar10-tiny --data cifar10"
    assert (origin["recipe"], origin["data"]) == ("cifar10-tiny", "cifar10")
    assert (origin["seed"], origin["epochs"], origin["steps"]) == (4, None, 7)
    assert origin["start"] == "scratch"
    assert origin["metrics"] == {"val/top1": 0.123457}
    assert datetime.date.fromisoformat(str(origin["date"])).year >= 2020
    json.dumps(origin)


def test_origin_of_a_fine_tuning() -> None:
    config = FinetuneConfig(data="nodules.csv", network=NetworkConfig(weights="tiny"))
    origin = describe_origin(config, {})
    assert origin["command"] == "voxlift finetune --data nodules.csv"
    assert origin["start"] == "tiny"


def test_origin_names_no_folders_and_no_host() -> None:
    config = PretrainConfig(
        data="/home/jane.doe/pictures",
        out=Path("/home/jane.doe/run"),
        network=NetworkConfig(weights="/home/jane.doe/start.safetensors"),
    )
    origin = describe_origin(config, {})
    assert origin["data"] == "pictures"
    assert origin["start"] == "start.safetensors"
    assert "jane" not in json.dumps(origin)
    assert platform.node() not in json.dumps(origin).split()


@pytest.mark.parametrize(
    ("weights", "start"),
    [
        ("tiny", "tiny"),
        ("/home/smith/best.pth", "best.pth"),
        ("i3d:/home/smith/resnet18.pth", "i3d:resnet18.pth"),
        ("hf://org/name/model.safetensors", "hf://org/name/model.safetensors"),
        ("medicalnet:https://host/a.pth#sha256=12345678", None),
    ],
)
def test_a_start_is_named_without_folders(weights: str, start: str | None) -> None:
    config = PretrainConfig.model_validate({"network": {"weights": weights}})
    assert describe_origin(config, {})["start"] == (start or weights)
