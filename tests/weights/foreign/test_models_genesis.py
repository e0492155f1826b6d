from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from voxlift.core.errors import WeightsError
from voxlift.nets.factory import BACKBONES, create_backbone
from voxlift.nets.genesis import GenesisEncoder
from voxlift.weights.container import Container
from voxlift.weights.file import read_weight_file
from voxlift.weights.foreign.models_genesis import ModelsGenesisFormat
from voxlift.weights.foreign.suprem_unet import SupremUnetFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.load import load_weights

State = dict[str, Tensor]
KNOWN, OTHER = ModelsGenesisFormat(), SupremUnetFormat()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "models_genesis", KNOWN)
    monkeypatch.setitem(FORMATS, "suprem_unet", OTHER)
    monkeypatch.setitem(BACKBONES, "genesis", GenesisEncoder)


def their_unet(width: int = 8, in_channels: int = 1) -> State:
    """Random numbers under the names of the published U-Net, decoder and all."""
    state: State = {}

    def layer(name: str, before: int, after: int) -> None:
        state[f"{name}.conv1.weight"] = torch.randn(after, before, 3, 3, 3) / (before * 27) ** 0.5
        state[f"{name}.conv1.bias"] = torch.randn(after)
        state[f"{name}.bn1.weight"] = torch.rand(after) + 0.5
        state[f"{name}.bn1.bias"] = torch.randn(after)
        state[f"{name}.bn1.running_mean"] = torch.randn(after)
        state[f"{name}.bn1.running_var"] = torch.rand(after) + 0.5
        state[f"{name}.bn1.num_batches_tracked"] = torch.tensor(7)

    before = in_channels
    for level, factor in (("64", 1), ("128", 2), ("256", 4), ("512", 8)):
        layer(f"down_tr{level}.ops.0", before, width * factor // 2)
        layer(f"down_tr{level}.ops.1", width * factor // 2, width * factor)
        before = width * factor
    for level, factor in (("256", 4), ("128", 2), ("64", 1)):
        below = 2 * width * factor
        state[f"up_tr{level}.up_conv.weight"] = torch.randn(below, below, 2, 2, 2)
        state[f"up_tr{level}.up_conv.bias"] = torch.randn(below)
        layer(f"up_tr{level}.ops.0", 3 * width * factor, width * factor)
        layer(f"up_tr{level}.ops.1", width * factor, width * factor)
    state["out_tr.final_conv.weight"] = torch.randn(1, width, 1, 1, 1)
    state["out_tr.final_conv.bias"] = torch.randn(1)
    return state


def their_maps(state: State, volume: Tensor, *, always: bool = True) -> list[Tensor]:
    """Compute what the published U-Net hands from its encoder to its decoder."""
    maps: list[Tensor] = []
    out = volume
    for level in ("64", "128", "256", "512"):
        out = functional.max_pool3d(out, 2) if maps else out
        for number in (0, 1):
            name = f"down_tr{level}.ops.{number}"
            part = {key.removeprefix(f"{name}."): t.to(volume.dtype) for key, t in state.items()}
            out = functional.conv3d(out, part["conv1.weight"], part["conv1.bias"], padding=1)
            out = functional.batch_norm(
                out,
                part["bn1.running_mean"].clone(),
                part["bn1.running_var"].clone(),
                part["bn1.weight"],
                part["bn1.bias"],
                training=always,
                momentum=0.1,
                eps=1e-5,
            )
            out = functional.relu(out)
        maps.append(out)
    return maps


def turned(volume: Tensor) -> Tensor:
    """Lay a volume (z, y, x) out as theirs (x, y, z), or the other way round."""
    return volume.permute(0, 1, 4, 3, 2)


def saved(folder: Path, state: State, prefix: str = "module.", wrapper: str = "state_dict") -> Path:
    path = folder / "Genesis_Chest_CT.pt"
    tensors = {prefix + name: tensor for name, tensor in state.items()}
    content = {"epoch": 3, wrapper: tensors, "optimizer_state_dict": {"state": {}}}
    torch.save(content if wrapper else tensors, path)
    return path


@pytest.mark.parametrize(("prefix", "wrapper"), [("module.", "state_dict"), ("", "")])
def test_ours_computes_what_theirs_does(tmp_path: Path, prefix: str, wrapper: str) -> None:
    state = their_unet()
    path = saved(tmp_path, state, prefix, wrapper)
    backbone = create_backbone("genesis", weights=path).double().eval()
    assert backbone.architecture.norm == "batch_always"
    assert backbone.architecture.width == 8
    assert backbone.out_channels == (8, 16, 32, 64)
    assert backbone.strides == tuple((n, n, n) for n in (1, 2, 4, 8))
    volume = torch.randn(2, 1, 16, 24, 16, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(
            backbone(volume), their_maps(state, turned(volume)), strict=True
        ):
            torch.testing.assert_close(turned(found), expected, rtol=1e-9, atol=1e-9)


def test_running_statistics_can_be_asked_for(tmp_path: Path) -> None:
    state = their_unet()
    path = saved(tmp_path, state)
    backbone = create_backbone("genesis", weights=path, norm="batch").double().eval()
    volume = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = their_maps(state, turned(volume), always=False)
        for found, wanted in zip(backbone(volume), expected, strict=True):
            torch.testing.assert_close(turned(found), wanted, rtol=1e-9, atol=1e-9)


def test_everything_is_accounted_for(tmp_path: Path) -> None:
    path = saved(tmp_path, their_unet())
    file = read_weight_file(path)
    report = load_weights(create_backbone("genesis", weights=file), file)
    assert (report.missing, report.unused) == ({}, {})
    assert set(report.adapted) == {name for name, t in file.tensors.items() if t.ndim == 5}
    assert all("turned" in how for how in report.adapted.values())
    assert report.coverage == 1.0
    assert report.licence is not None
    assert report.licence.startswith("MIT")
    assert "decoder" in report.ignored["module.out_tr.final_conv.weight"]
    assert "training" in report.ignored["optimizer_state_dict"]
    assert not any("down_tr" in name for name in report.ignored)
    assert any("(x, y, z)" in note for note in report.notes)
    assert any("norm='batch'" in note for note in report.notes)
    preprocessing = file.header.preprocessing
    assert preprocessing is not None
    assert (preprocessing.window, preprocessing.unit) == ((-1000, 1000), "HU")


def test_several_channels_share_the_first_kernel_evenly(tmp_path: Path) -> None:
    path = saved(tmp_path, their_unet())
    one = create_backbone("genesis", weights=path)
    three = create_backbone("genesis", weights=path, in_channels=3)
    volume = torch.randn(1, 1, 8, 8, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            three(volume.expand(1, 3, 8, 8, 16))[-1], one(volume)[-1], rtol=1e-3, atol=1e-4
        )


def test_counters_may_be_missing(tmp_path: Path) -> None:
    state = {n: t for n, t in their_unet().items() if not n.endswith("num_batches_tracked")}
    path = saved(tmp_path, state)
    report = load_weights(create_backbone("genesis", weights=path), path)
    assert report.is_complete


def test_tells_its_files_from_those_of_suprem(make_container: Callable[..., Container]) -> None:
    state = their_unet()
    for known, prefix, wrapper in (
        (KNOWN, "module.", "state_dict"),
        (KNOWN, "", ""),
        (OTHER, "module.backbone.", "net"),
        (OTHER, "module.", "net"),
        (OTHER, "", "net"),
    ):
        container = make_container(state, prefix=prefix, wrapper=wrapper)
        assert KNOWN.recognises(container) == (known is KNOWN)
        assert OTHER.recognises(container) == (known is OTHER)
    stranger = make_container({"conv1.weight": torch.zeros(2)})
    assert not KNOWN.recognises(stranger)
    assert not OTHER.recognises(stranger)
    with pytest.raises(WeightsError, match="not of Models Genesis: it has no down_tr64"):
        KNOWN.translate(stranger)


def test_a_wrong_rest_is_refused(make_container: Callable[..., Container]) -> None:
    def refused(change: Callable[[State], object], match: str) -> None:
        state = their_unet()
        change(state)
        with pytest.raises(WeightsError, match=match):
            KNOWN.translate(make_container(state, prefix="module."))

    name = "down_tr128.ops.1.conv1.weight"
    refused(lambda state: state.pop(name), rf"module\.{name} is missing, expected the shape \(16, ")
    refused(
        lambda state: state.update({name: torch.zeros(16, 8, 1, 1, 1)}),
        r"has the shape \(16, 8, 1, 1, 1\), expected \(16, 8, 3, 3, 3\)",
    )
    refused(
        lambda state: state.update({"down_tr64.extra": torch.zeros(1)}),
        r"down_tr64\.extra is there",
    )
    refused(
        lambda state: state.update({"down_tr64.ops.0.conv1.weight": torch.zeros(4, 1, 3, 3)}),
        "of a 2D network",
    )


def test_what_stands_beside_the_network_is_refused(
    make_container: Callable[..., Container],
) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in their_unet().items()}
    container = make_container({**state, "head.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"head\.weight stands beside .* suprem_unet:"):
        KNOWN.translate(container)
