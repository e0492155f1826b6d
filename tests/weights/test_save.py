from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.file import read_header, read_weight_file
from voxlift.weights.header import HeadDescription
from voxlift.weights.licences import is_non_commercial
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

Make = Callable[..., Any]


def test_everything_that_is_known_is_saved(make_classifier: Make, tmp_path: Path) -> None:
    model = make_classifier(num_classes=2, geometry="small", width=6)
    preprocessing = Preprocessing(unit="HU", intensity="window", window=(-1000, 400))
    head = HeadDescription(
        task="classify", num_classes=2, class_names=("benign", "malignant"), threshold=0.4
    )
    path = save_weights(
        model,
        tmp_path / "run" / "model.safetensors",
        preprocessing=preprocessing,
        head=head,
        provenance={"data": "LIDC", "seed": 3},
        licence="Apache-2.0",
        citation="arXiv 2201.01426",
    )
    file = read_weight_file(path)
    assert file.header.architecture == model.backbone.architecture
    assert file.header.geometry == named_geometry("small")
    assert file.header.preprocessing == preprocessing
    assert file.header.head == head
    assert file.header.provenance == {"data": "LIDC", "seed": 3}
    assert (file.header.licence, file.header.citation) == ("Apache-2.0", "arXiv 2201.01426")
    assert file.tensors.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(file.tensors[name], tensor)


def test_the_geometry_is_that_of_the_moment(make_backbone: Make, tmp_path: Path) -> None:
    backbone = make_backbone(geometry="pretrain")
    backbone.geometry = named_geometry("unet")
    path = save_weights(backbone, tmp_path / "a.safetensors")
    assert read_weight_file(path).header.geometry == named_geometry("unet")


def test_half_is_about_half_the_size(make_backbone: Make, tmp_path: Path) -> None:
    backbone = make_backbone(width=32, stem_kernel=7)
    whole = save_weights(backbone, tmp_path / "a.safetensors").stat().st_size
    half = save_weights(backbone, tmp_path / "b.safetensors", half=True).stat().st_size
    assert 0.49 < half / whole < 0.6


def test_saving_leaves_the_model_alone(make_backbone: Make, tmp_path: Path) -> None:
    backbone = make_backbone().train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    save_weights(backbone, tmp_path / "a.safetensors", half=True)
    assert backbone.training
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_later_saving_replaces_an_earlier_one(make_backbone: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(make_backbone(seed=1), path)
    last = make_backbone(seed=2)
    save_weights(last, path)
    assert torch.equal(
        read_weight_file(path).tensors["conv1.weight"], last.state_dict()["conv1.weight"]
    )
    assert list(tmp_path.iterdir()) == [path]


def test_a_diverged_model_is_not_saved(make_backbone: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(make_backbone(seed=1), path)
    before = path.read_bytes()
    diverged = make_backbone(seed=2)
    diverged.state_dict()["layer1.0.conv1.weight"][0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"27 of the 432 numbers in layer1\.0\.conv1\.weight"):
        save_weights(diverged, path)
    assert path.read_bytes() == before


def test_a_module_without_a_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="Linear is no Voxlift backbone"):
        save_weights(nn.Linear(2, 2), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:The weights .* are not for commercial use")
def test_the_terms_of_a_start_travel_with_what_is_made_from_it(
    make_backbone: Make, tmp_path: Path
) -> None:
    start = save_weights(
        make_backbone(), tmp_path / "start.safetensors", licence="CC BY-NC 4.0", citation="them"
    )
    tuned = make_backbone()
    assert read_header(save_weights(tuned, tmp_path / "scratch.safetensors")).licence is None
    report = load_weights(tuned, start)
    header = read_header(save_weights(tuned, tmp_path / "tuned.safetensors"))
    assert header.licence == "not stated; of the start start.safetensors: CC BY-NC 4.0"
    assert is_non_commercial(header.licence)
    assert header.citation == "them"
    assert header.provenance["start_sha256"] == report.sha256
    again = make_backbone()
    load_weights(again, tmp_path / "tuned.safetensors")
    assert read_header(save_weights(again, tmp_path / "b.safetensors")).licence == header.licence
    own = save_weights(again, tmp_path / "own.safetensors", licence="CC0", citation="us")
    assert (read_header(own).licence, read_header(own).citation) == ("CC0", "us")
