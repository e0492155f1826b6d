from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from voxlift.core.errors import WeightsError
from voxlift.nets.factory import BACKBONES, create_backbone
from voxlift.nets.gvsl import GvslEncoder
from voxlift.weights.container import Container
from voxlift.weights.file import read_weight_file
from voxlift.weights.foreign.gvsl import GvslFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.load import load_weights

State = dict[str, Tensor]
KNOWN = GvslFormat()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "gvsl", KNOWN)
    monkeypatch.setitem(BACKBONES, "gvsl", GvslEncoder)


def their_network(width: int = 16) -> State:
    """Random numbers under the names of the published network, heads and all."""
    state: State = {}

    def double(name: str, before: int, after: int) -> None:
        for conv, source in ((0, before), (3, after)):
            start = f"{name}.double_conv"
            kernel = torch.randn(after, source, 3, 3, 3) / (27 * source) ** 0.5
            state[f"{start}.{conv}.weight"] = kernel
            state[f"{start}.{conv}.bias"] = torch.randn(after)
            state[f"{start}.{conv + 1}.weight"] = torch.rand(after) + 0.5
            state[f"{start}.{conv + 1}.bias"] = torch.randn(after)

    double("unet.inc", 1, width)
    for number in range(1, 5):
        double(f"unet.down{number}.maxpool_conv.1", width * 2 ** (number - 1), width * 2**number)
        double(f"unet.up{number}.conv", width, width)
    double("f_conv", width, 8)
    double("sp_conv", width, 8)
    state["res_conv.0.weight"] = torch.randn(4, 4, 3, 3, 3)
    state["out_flow.weight"] = torch.randn(3, 4, 3, 3, 3)
    for kind in ("rot", "scl", "trans", "shear"):
        state[f"fc_{kind}.weight"] = torch.randn(3, 8)
    return state


def their_maps(state: State, volume: Tensor) -> list[Tensor]:
    """Compute what the published network hands from its encoder to its decoder."""
    maps: list[Tensor] = []
    out = volume
    for name in ("inc", *(f"down{number}.maxpool_conv.1" for number in range(1, 5))):
        out = functional.max_pool3d(out, 2) if maps else out
        for conv in (0, 3):
            kernel, bias, scale, shift = (
                state[f"unet.{name}.double_conv.{number}.{kind}"].to(volume.dtype)
                for number in (conv, conv + 1)
                for kind in ("weight", "bias")
            )
            out = functional.conv3d(out, kernel, bias, padding=1)
            out = functional.group_norm(out, out.shape[1] // 8, scale, shift, 1e-5)
            out = functional.leaky_relu(out, 0.2)
        maps.append(out)
    return maps


@pytest.mark.parametrize("prefix", ["", "module."])
def test_ours_computes_what_theirs_does(tmp_path: Path, prefix: str) -> None:
    state, path = their_network(), tmp_path / "GVSL_epoch_1000.pth"
    torch.save({prefix + name: tensor for name, tensor in state.items()}, path)
    file = read_weight_file(path)
    backbone = create_backbone("gvsl", weights=file).double().eval()
    assert backbone.out_channels == (16, 32, 64, 128, 256)
    report = load_weights(backbone, file)
    assert report.is_complete
    assert report.coverage == 1.0
    assert report.licence is None
    assert prefix + "unet.up1.conv.double_conv.0.weight" in report.ignored
    assert prefix + "fc_rot.weight" in report.ignored
    volume = torch.randn(1, 1, 16, 32, 16, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(backbone(volume), their_maps(state, volume), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_what_it_was_fed(make_container: Callable[..., Container]) -> None:
    header = KNOWN.translate(make_container(their_network())).header
    assert header.preprocessing is not None
    assert "0 to 2048 raw scaled to 0..1" in header.preprocessing.describe()
    assert header.architecture.norm == "group"
    assert header.geometry.strides[-1] == (16, 16, 16)


def test_a_wrong_rest_is_refused(make_container: Callable[..., Container]) -> None:
    first = "unet.inc.double_conv.0.weight"
    deep = "unet.down3.maxpool_conv.1.double_conv.3.bias"

    def refused(change: Callable[[State], object], match: str) -> None:
        state = their_network()
        change(state)
        with pytest.raises(WeightsError, match=match):
            KNOWN.translate(make_container(state, prefix="module."))

    refused(lambda state: state.pop(deep), rf"module\.{deep} is missing, expected the shape \(128")
    refused(lambda state: state.update({"decoder.x": torch.ones(1)}), r"decoder\.x is there")
    refused(lambda state: state.update({first: torch.zeros(12, 1, 3, 3, 3)}), "a multiple of 8")
    refused(lambda state: state.update({first: torch.zeros(16, 1, 3, 3)}), "a 3D kernel")
    stranger = make_container({"conv1.weight": torch.zeros(1)})
    assert not KNOWN.recognises(stranger)
    with pytest.raises(WeightsError, match=r"not of GVSL: .* is missing"):
        KNOWN.translate(stranger)
