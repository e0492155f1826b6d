"""Files of every version of the header that was ever written keep loading, to the same function.

Each file in `past_versions` was written by the Voxlift of its time: a narrow classifier with random
weights. The logits are what that Voxlift computed.
"""

from pathlib import Path

import pytest
import torch

from voxlift.core.geometry import named_geometry
from voxlift.inference.saved_model import load_model
from voxlift.weights.file import read_header
from voxlift.weights.header import FORMAT_VERSION

FOLDER = Path(__file__).parent / "past_versions"
LOGITS = {
    1: (0.01438309159129858, 0.0032628027256578207),
    2: (-0.004743353929370642, 0.0073407781310379505),
    3: (-0.10586494952440262, -0.2658706307411194),
}


def test_there_is_a_file_of_every_version() -> None:
    assert sorted(LOGITS) == list(range(1, FORMAT_VERSION + 1))
    assert {path.name for path in FOLDER.iterdir()} == {f"version-{v}.safetensors" for v in LOGITS}


@pytest.mark.parametrize("version", LOGITS)
def test_a_file_of_a_past_version_answers_as_it_did(version: int) -> None:
    path = FOLDER / f"version-{version}.safetensors"
    header = read_header(path)
    assert header.format_version == version
    assert (header.architecture.name, header.architecture.width) == ("resnet10", 2)
    assert header.geometry == named_geometry("small")
    model = load_model(path)
    assert model.class_names == ("benign", "malignant")
    assert (model.head.threshold, model.preprocessing.window) == (0.4, (-1000, 400))
    volume = torch.linspace(-1, 1, 512).view(1, 1, 8, 8, 8).sin()
    with torch.no_grad():
        logits = model.networks[0](volume)
    torch.testing.assert_close(logits, torch.tensor([LOGITS[version]]), rtol=1e-3, atol=1e-6)
