from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.file import read_weight_file
from voxlift.weights.header import HeadDescription
from voxlift.weights.inspect import WeightDescription, describe_weights
from voxlift.weights.save import save_weights

Make = Callable[..., Any]


@pytest.fixture
def path(make_classifier: Make, tmp_path: Path) -> Path:
    """A classifier with all that a header can say."""
    return save_weights(
        make_classifier(num_classes=2, seed=1),
        tmp_path / "model.safetensors",
        preprocessing=Preprocessing.for_photographs(32),
        head=HeadDescription(
            task="classify", num_classes=2, class_names=("benign", "malignant"), threshold=0.25
        ),
        provenance={"data": "CIFAR-10", "accuracy": 0.82},
        licence="CC0",
        citation="arXiv 2201.01426",
        half=True,
    )


def test_everything_is_described(path: Path, make_classifier: Make) -> None:
    model = make_classifier(num_classes=2)
    description = describe_weights(path)
    file = read_weight_file(path)
    assert description.sha256 == file.sha256
    assert description.header == file.header
    assert description.format == "voxlift"
    assert description.num_bytes == path.stat().st_size
    assert description.num_tensors == len(model.state_dict())
    assert description.num_parameters == sum(p.numel() for p in model.backbone.parameters())
    assert description.num_head_parameters == 2 * 4 + 2
    assert description.precisions == ("float16", "float32")
    assert (description.fits, description.report, description.refusal) == (None, None, None)


def test_a_person_can_read_it(path: Path) -> None:
    text = str(describe_weights(path))
    for words in (
        "model.safetensors",
        describe_weights(path).sha256,
        "voxlift, header version 3",
        "resnet10, 3D, width 4, stem kernel 3, shortcut B",
        "pretrain: strides total (1, 32, 32)",
        "0-255 values, 1 channel(s): mean 114.495",
        "float16",
        "classify, 2 classes: benign, malignant",
        "threshold:      0.25",
        "CIFAR-10",
        "0.82",
        "CC0",
        "arXiv 2201.01426",
    ):
        assert words in text, words


def test_a_bare_backbone_is_described(make_backbone: Make, tmp_path: Path) -> None:
    description = describe_weights(save_weights(make_backbone(), tmp_path / "a.safetensors"))
    assert description.num_head_parameters == 0
    assert description.num_parameters == sum(p.numel() for p in make_backbone().parameters())
    text = str(description)
    assert "preprocessing:  not stated" in text
    assert "licence:        not stated" in text
    assert "head:" not in text


def test_a_model_is_tried_and_not_changed(path: Path, make_backbone: Make) -> None:
    model = make_backbone(seed=2, geometry="volume")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    description = describe_weights(path, model=model)
    assert description.fits is True
    assert description.report is not None
    assert description.report.coverage == 1
    assert "Would load into this model" in str(description)
    assert "geometry differs" in str(description)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_model_that_does_not_fit_is_no_error(path: Path, make_backbone: Make) -> None:
    description = describe_weights(path, model=make_backbone(width=8))
    assert description.fits is False
    assert description.refusal is not None
    assert "width is 4 in the file, 8 in the model" in description.refusal
    assert "Would not load into this model" in str(description)


def test_a_description_becomes_json_and_comes_back(path: Path, make_backbone: Make) -> None:
    description = describe_weights(path, model=make_backbone())
    assert WeightDescription.model_validate_json(description.model_dump_json()) == description


def test_a_damaged_file_is_an_error(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        describe_weights(path)
