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
Translated = Callable[[Any, Container], WeightFile]
NATIVE: dict[str, Any] = {
    "in_channels": 3,
    "stem_stride": (1, 2, 2),
    "pool_stride": (2, 2, 2),
    "stage_strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
}
KNOWN = KineticsFormat()


@pytest.mark.parametrize(
    ("prefix", "options"),
    [
        ("module.", {"shortcut": "A", "blocks": (2, 2, 2, 2)}),
        ("", {"shortcut": "B", "blocks": (2, 2, 2, 2)}),
        ("", {"shortcut": "B", "blocks": (3, 4, 6, 3), "bottleneck": True}),
    ],
    ids=["older", "newer", "bottlenecks"],
)
def test_ours_computes_what_theirs_does(
    make_their_resnet: Maker,
    make_container: Maker,
    translated: Translated,
    prefix: str,
    options: Any,
) -> None:
    theirs = make_their_resnet(**NATIVE, **options)
    state = {**theirs.state_dict(), "fc.weight": torch.zeros(400, 32), "fc.bias": torch.zeros(400)}
    container = make_container(state, prefix=prefix, extras={"arch": "resnet-18", "optimizer": {}})
    assert KNOWN.recognises(container)
    assert not CsprFormat().recognises(container)
    assert not MedicalNetFormat().recognises(container)
    file = translated(KNOWN, container)
    ours = create_backbone(file.header.architecture.name, weights=file, in_channels=3)
    report = load_weights(ours.double().eval(), file)
    assert (report.missing, report.unused, report.coverage) == ({}, {}, 1.0)
    assert report.ignored.keys() == {f"{prefix}fc.weight", f"{prefix}fc.bias", "optimizer"}
    volume = torch.randn(1, 3, 16, 40, 48, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(ours(volume), theirs(volume), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_on_grey_volumes_one_channel_computes_what_three_did(
    make_their_resnet: Maker, make_container: Maker, translated: Translated
) -> None:
    theirs = make_their_resnet(**NATIVE)
    file = translated(KNOWN, make_container(theirs.state_dict()))
    ours = create_backbone("resnet10", weights=file).double().eval()
    load_weights(ours, file)
    volume = torch.randn(1, 1, 16, 40, 48, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(volume.expand(-1, 3, -1, -1, -1))
        # The kernels are added up in single precision.
        torch.testing.assert_close(ours(volume)[-1], expected[-1], rtol=1e-4, atol=1e-5)


def test_older_files_were_fed_other_numbers(
    make_their_resnet: Maker, make_container: Maker
) -> None:
    state = make_their_resnet(**NATIVE).state_dict()
    newer = KNOWN.translate(make_container(state)).header.preprocessing
    older = KNOWN.translate(make_container(state, prefix="module.")).header.preprocessing
    assert newer is not None
    assert older is not None
    assert (round(older.mean, 2), older.std) == (107.33, 1.0)
    assert (round(newer.mean, 2), round(newer.std, 2)) == (103.45, 69.85)
    assert (newer.unit, newer.in_channels) == ("0-255", 3)
    assert "red minus 110.797 over 70.584" in KNOWN.translate(make_container(state)).notes[0]


def test_relatives_with_the_same_names_are_refused(
    make_their_resnet: Maker, make_container: Maker
) -> None:
    state = make_their_resnet(**NATIVE, blocks=(3, 4, 6, 3), bottleneck=True).state_dict()
    wide = {**state, "layer1.0.conv1.weight": torch.zeros(8, 4, 1, 1, 1)}
    grouped = {**state, "layer1.0.conv2.weight": torch.zeros(4, 1, 3, 3, 3)}
    for changed in (wide, grouped):
        container = make_container(changed)
        assert KNOWN.recognises(container)
        with pytest.raises(WeightsError, match=r"looks like a 3D resnet50, but layer1\.0\.conv"):
            KNOWN.translate(container)
    with pytest.raises(WeightsError, match="there is no 3D ResNet in it"):
        KNOWN.translate(make_container({"a": torch.ones(1)}))
    assert not KNOWN.recognises(make_container({"a": torch.ones(1)}))
