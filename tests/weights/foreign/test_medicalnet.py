from collections.abc import Callable
from typing import Any

import pytest
import torch

from voxlift.core.errors import WeightsError
from voxlift.nets.factory import create_backbone
from voxlift.weights.container import Container
from voxlift.weights.file import WeightFile
from voxlift.weights.foreign.cspr import CsprFormat
from voxlift.weights.foreign.kinetics import KineticsFormat
from voxlift.weights.foreign.medicalnet import MedicalNetFormat
from voxlift.weights.load import load_weights

Maker = Callable[..., Any]
NATIVE: dict[str, Any] = {
    "stem_stride": (2, 2, 2),
    "pool_stride": (2, 2, 2),
    "stage_strides": ((1, 1, 1), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    "dilations": (1, 1, 2, 4),
}
KNOWN = MedicalNetFormat()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10", {"shortcut": "B"}),
        ("resnet18", {"shortcut": "A", "blocks": (2, 2, 2, 2)}),
        ("resnet34", {"shortcut": "A", "blocks": (3, 4, 6, 3)}),
        ("resnet50", {"shortcut": "B", "blocks": (3, 4, 6, 3), "bottleneck": True}),
    ],
)
def test_ours_computes_what_theirs_does(
    make_their_resnet: Maker,
    make_container: Maker,
    translated: Callable[[Any, Container], WeightFile],
    name: str,
    options: Any,
) -> None:
    theirs = make_their_resnet(**NATIVE, **options)
    container = make_container(theirs.state_dict(), prefix="module.")
    assert KNOWN.recognises(container)
    assert not CsprFormat().recognises(container)
    assert not KineticsFormat().recognises(container)
    file = translated(KNOWN, container)
    architecture = file.header.architecture
    assert (architecture.name, architecture.shortcut) == (name, options["shortcut"])
    ours = create_backbone(name, weights=file).double().eval()
    report = load_weights(ours, file)
    assert (report.missing, report.unused, report.coverage) == ({}, {}, 1.0)
    assert report.licence == "MIT"
    volume = torch.randn(1, 1, 17, 33, 24, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(ours(volume), theirs(volume), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_another_geometry_is_warned_of(
    make_their_resnet: Maker,
    make_container: Maker,
    translated: Callable[[Any, Container], WeightFile],
) -> None:
    file = translated(KNOWN, make_container(make_their_resnet().state_dict(), prefix="module."))
    create_backbone("resnet10", weights=file)
    with pytest.warns(UserWarning, match=r"another geometry, which matters.*dilations"):
        create_backbone("resnet10", weights=file, geometry="volume")


def test_what_it_was_fed_and_what_is_left(make_their_resnet: Maker, make_container: Maker) -> None:
    state = make_their_resnet().state_dict()
    state["conv_seg.0.weight"] = torch.zeros(32, 32, 2, 2, 2)
    translation = KNOWN.translate(make_container(state, prefix="module."))
    assert list(translation.ignored) == ["module.conv_seg.0.weight"]
    preprocessing = translation.header.preprocessing
    assert preprocessing is not None
    assert preprocessing.intensity == "zscore"
    assert "normal noise" in translation.notes[0]


def test_a_classifier_beside_it_makes_the_origin_doubtful(
    make_their_resnet: Maker, make_container: Maker
) -> None:
    state = {**make_their_resnet().state_dict(), "fc.weight": torch.zeros(400, 32)}
    container = make_container(state, prefix="module.")
    assert KNOWN.recognises(container)
    assert KineticsFormat().recognises(container)
    assert not CsprFormat().recognises(container)


def test_others_are_refused(make_their_resnet: Maker, make_container: Maker) -> None:
    groups = make_container(make_their_resnet(norm="gn", width=32).state_dict())
    assert not KNOWN.recognises(groups)
    with pytest.raises(WeightsError, match="not of MedicalNet: its norms are group norms"):
        KNOWN.translate(groups)
    with pytest.raises(WeightsError, match="not of MedicalNet: there is no 3D ResNet in it"):
        KNOWN.translate(make_container({"a": torch.ones(1)}))
    assert not KNOWN.recognises(make_container({"a": torch.ones(1)}))
    deeper = make_their_resnet(blocks=(1, 1, 1, 2)).state_dict()
    with pytest.raises(WeightsError, match=r"basic blocks \(1, 1, 1, 2\)"):
        KNOWN.translate(make_container(deeper, prefix="module."))
