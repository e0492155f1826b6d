from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.weights.checkpoint import header_parts
from voxlift.weights.header import HEADER_KEY, HeadDescription, WeightHeader
from voxlift.weights.source import read_source

TENSORS = {"model.conv1.weight": torch.ones(2, 1, 3, 3, 3), "loss.weight": torch.ones(2)}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint with some entries beside its tensors."""

    def save(**entries: object) -> Path:
        torch.save({"state_dict": TENSORS, **entries}, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return save


def header(*class_names: str) -> list[str]:
    class_names = class_names or ("one",)
    head = HeadDescription(task="segment", num_classes=len(class_names), class_names=class_names)
    return header_parts(
        WeightHeader(
            architecture=Architecture(name="resnet10", width=4),
            geometry=named_geometry("small"),
            head=head,
        )
    )


def test_the_model_is_taken_out_of_the_task(write: Callable[..., Path]) -> None:
    path = write(**{HEADER_KEY: header(), "global_step": 7, "optimizer_states": [{}]})
    file = read_source(path, checkpoint=True)
    assert file.format == "checkpoint"
    assert list(file.tensors) == ["conv1.weight"]
    assert file.header.provenance == {"checkpoint_step": 7}
    assert set(file.ignored) == {"loss.weight", "optimizer_states"}
    with pytest.raises(WeightsError, match=rf"voxlift convert {path} --out"):
        read_source(path)
    with pytest.raises(WeightsError, match=rf"voxlift convert {path} --out"):
        read_source(f"checkpoint:{path}")


def test_class_names_may_be_many(write: Callable[..., Path]) -> None:
    names = tuple(f"a class with a rather long name, number {number}" for number in range(15_000))
    file = read_source(write(**{HEADER_KEY: header(*names)}), checkpoint=True)
    assert file.header.head is not None
    assert file.header.head.class_names == names


def test_what_is_no_checkpoint_of_ours_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(WeightsError, match="has no Voxlift header"):
        read_source(f"checkpoint:{write()}", checkpoint=True)
    older = write(callbacks={"BestCheckpoint": {"best": 0.5}})
    with pytest.raises(WeightsError, match="an older Voxlift, --resume makes the model"):
        read_source(older, checkpoint=True)
    with pytest.raises(WeightsError, match="voxlift convert"):
        read_source(older)
    with pytest.raises(WeightsError, match="is no JSON"):
        read_source(write(**{HEADER_KEY: "{"}), checkpoint=True)
