from pathlib import Path

import pytest
import torch

from voxlift.core.errors import WeightsError
from voxlift.weights.container import Container
from voxlift.weights.file import read_weight_file
from voxlift.weights.formats import FORMATS, recognise
from voxlift.weights.header import HEADER_KEY, WeightHeader
from voxlift.weights.own import VoxliftFormat
from voxlift.weights.translation import Translation


def container(metadata: dict[str, str], *names: str) -> Container:
    tensors = {name: torch.ones(1) for name in names}
    return Container(Path("a.safetensors"), "0" * 64, tensors, metadata)


def test_our_own_files_are_recognised_by_their_header(header: WeightHeader) -> None:
    ours = container({HEADER_KEY: header.to_json()}, "conv1.weight")
    assert recognise(ours) == "voxlift"
    translation = FORMATS["voxlift"].translate(ours)
    assert translation.header == header
    assert translation.tensors.keys() == {"conv1.weight"}
    assert translation.ignored == {}


def test_an_unknown_layout_is_refused_with_what_was_seen() -> None:
    with pytest.raises(WeightsError, match=r"no Voxlift header.*conv1\.weight, fc\.bias.*voxlift"):
        recognise(container({}, "conv1.weight", "fc.bias"))
    with pytest.raises(WeightsError, match="no tensors at all"):
        recognise(container({"pt": "1"}))


def test_a_format_is_one_class_and_one_line(
    weight_path: Path, header: WeightHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Renamed:
        summary = "renamed"
        licence = None

        def recognises(self, container: Container) -> bool:
            return "conv1.weight" in container.tensors

        def translate(self, container: Container) -> Translation:
            tensors = {"other": container.tensors["conv1.weight"]}
            return Translation(tensors, header, ignored={"fc.weight": "head"})

    monkeypatch.setattr(VoxliftFormat, "recognises", lambda *_: False)
    monkeypatch.setitem(FORMATS, "renamed", Renamed())
    file = read_weight_file(weight_path)
    assert (file.format, set(file.tensors)) == ("renamed", {"other"})
    assert file.ignored == {"fc.weight": "head"}
