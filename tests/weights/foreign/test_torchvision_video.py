from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision.models import video

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import PLANE_STAGES, VOLUME_STAGES
from voxlift.nets.factory import create_backbone
from voxlift.weights.container import Container
from voxlift.weights.file import WeightFile
from voxlift.weights.foreign.torchvision_video import TorchvisionVideoFormat
from voxlift.weights.load import load_weights

Maker = Callable[..., Any]
KNOWN = TorchvisionVideoFormat()


@pytest.mark.parametrize(("name", "stages"), [("r3d_18", VOLUME_STAGES), ("mc3_18", PLANE_STAGES)])
def test_ours_computes_what_theirs_does(
    randomised: Maker,
    make_container: Maker,
    translated: Callable[[Any, Container], WeightFile],
    name: str,
    stages: Any,
) -> None:
    theirs = randomised(getattr(video, name)(weights=None)).double()
    container = make_container(theirs.state_dict(), wrapper="")
    assert KNOWN.recognises(container)
    file = translated(KNOWN, container)
    assert file.header.geometry.stage_strides == stages
    assert file.header.geometry.pool_stride is None
    assert file.header.provenance["source"] == f"torchvision {name}"
    ours = create_backbone("resnet18", weights=file, in_channels=3).double().eval()
    report = load_weights(ours, file)
    assert (report.missing, report.unused, report.coverage) == ({}, {}, 1.0)
    assert report.ignored.keys() == {"fc.weight", "fc.bias"}
    assert "3x7x7 kernel laid in the middle of 7x7x7" in report.adapted["conv1.weight"]
    assert ("layer2.0.conv1.weight" in report.adapted) == (name == "mc3_18")
    volume = torch.randn(1, 3, 8, 24, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = volume
        stages = (theirs.stem, theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
        for found, stage in zip(ours(volume), stages, strict=True):
            expected = stage(expected)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_split_kernels_are_refused(make_container: Maker) -> None:
    with torch.device("meta"):
        state = video.r2plus1d_18(weights=None).state_dict()
    container = make_container(state)
    assert KNOWN.recognises(container)
    with pytest.raises(WeightsError, match=r"is r2plus1d_18.*Use r3d_18 or mc3_18"):
        KNOWN.translate(container)


def test_a_wrong_rest_is_refused_under_the_files_names(make_container: Maker) -> None:
    with torch.device("meta"):
        state = video.mc3_18(weights=None).state_dict()
        changed = dict(state)
        changed["layer2.1.conv2.0.weight"] = torch.zeros(9, 128, 1, 3, 3)
        with pytest.raises(WeightsError, match=r"module\.layer2\.1\.conv2\.0\.weight has the sha"):
            KNOWN.translate(make_container(changed, prefix="module."))
        changed["layer3.1.conv2.0.weight"] = torch.zeros(256, 256, 3, 3, 3)
        with pytest.raises(WeightsError, match=r"stage 3: \[1, 3\].*3 in the first and 1"):
            KNOWN.translate(make_container(changed))
    assert not KNOWN.recognises(make_container({"stem.0.weight": torch.zeros(1)}))
    assert not KNOWN.recognises(make_container({"conv1.weight": torch.zeros(1)}))
