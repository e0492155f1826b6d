"""Every layout of Swin UNETR files, of all three formats that read them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.errors import WeightsError
from voxlift.nets.factory import BACKBONES, create_backbone
from voxlift.nets.swin_unetr import SWIN_UNETRS, SWINS, Swin, SwinUNETREncoder
from voxlift.weights.container import Container
from voxlift.weights.file import WeightFile, read_weight_file
from voxlift.weights.foreign.suprem_monai import SupremSwinUNETRFormat
from voxlift.weights.foreign.swin_unetr import NewSwinUNETRFormat, SwinUNETRFormat
from voxlift.weights.foreign.voco import VocoFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.load import load_weights

State = dict[str, Tensor]
OURS: dict[str, Any] = {
    "swin_unetr": SwinUNETRFormat(),
    "swin_unetr_1.5": NewSwinUNETRFormat(),
    "voco": VocoFormat(),
    "suprem_swinunetr": SupremSwinUNETRFormat(),
}
SSL_HEADS = {
    "rotation_head.weight": torch.zeros(4, 192),
    "rotation_head.bias": torch.zeros(4),
    "contrastive_head.weight": torch.zeros(8, 192),
    "conv.0.weight": torch.zeros(96, 192, 3, 3, 3),
}
SUPREM_HEAD = {
    "module.organ_embedding": torch.zeros(25, 512),
    "module.controller.weight": torch.zeros(153, 512, 1, 1, 1),
    "module.GAP.3.weight": torch.zeros(256, 192, 1, 1, 1),
    "module.precls_conv.0.weight": torch.zeros(12),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, known in OURS.items():
        monkeypatch.setitem(FORMATS, name, known)
    for name in SWINS:
        monkeypatch.setitem(BACKBONES, name, Swin)
    for name in SWIN_UNETRS:
        monkeypatch.setitem(BACKBONES, name, SwinUNETREncoder)


class OldMerging(nn.Module):
    """`PatchMerging` of MONAI up to 1.4: the sixth part is the third again, the seventh the fourth.

    The files are of that time: MONAI 1.5 merges the two voxels that had been left out.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.reduction = layer.norm, layer.reduction

    def forward(self, x: Tensor) -> Tensor:
        assert not any(length % 2 for length in x.shape[1:4])
        x0 = x[:, 0::2, 0::2, 0::2]
        x1 = x[:, 1::2, 0::2, 0::2]
        x2 = x[:, 0::2, 1::2, 0::2]
        x3 = x[:, 0::2, 0::2, 1::2]
        x4 = x[:, 1::2, 0::2, 1::2]
        x7 = x[:, 1::2, 1::2, 1::2]
        merged = torch.cat([x0, x1, x2, x3, x4, x2, x3, x7], -1)
        scaled = functional.layer_norm(merged, merged.shape[-1:], self.norm.weight, self.norm.bias)
        return functional.linear(scaled, self.reduction.weight)


@pytest.fixture(scope="module")
def originals() -> dict[bool, Any]:
    """MONAI's Swin UNETR up to 1.4, V1 and V2, with random numbers."""
    from monai.networks.nets import SwinUNETR

    networks = {}
    for v2 in (False, True):
        torch.manual_seed(int(v2) + 7)
        network = SwinUNETR(in_channels=1, out_channels=21, feature_size=12, use_v2=v2)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        for number in (1, 2, 3, 4):
            stage = getattr(network.swinViT, f"layers{number}")[0]
            stage.downsample = OldMerging(stage.downsample)
        networks[v2] = network.eval()
    return networks


@pytest.fixture(scope="module")
def expected(originals: dict[bool, Any]) -> dict[bool, list[list[Tensor]]]:
    """What the original networks compute inside: five maps of the transformer, six of all."""
    maps = {}
    for v2, network in originals.items():
        given = axes_turned(volume())
        with torch.no_grad():
            hidden = network.swinViT(given, True)
            blocks = [
                network.encoder1(given),
                network.encoder2(hidden[0]),
                network.encoder3(hidden[1]),
                network.encoder4(hidden[2]),
                hidden[3],
                network.encoder10(hidden[4]),
            ]
        maps[v2] = [[axes_turned(m) for m in hidden], [axes_turned(m) for m in blocks]]
    return maps


def volume() -> Tensor:
    return torch.randn(1, 1, 32, 64, 32, generator=torch.Generator().manual_seed(3))


def axes_turned(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 1, 4, 3, 2)


def renamed(state: Mapping[str, Tensor], change: Callable[[str], str | None]) -> State:
    """Give tensors the names that `change` makes of theirs; those of None are left out."""
    pairs = ((change(name), tensor) for name, tensor in state.items())
    return {name: tensor for name, tensor in pairs if name is not None}


def without(*beginnings: str) -> Callable[[str], str | None]:
    return lambda name: None if name.startswith(beginnings) else name


def as_first(name: str) -> str | None:
    """Name as in `model_swinvit.pt`."""
    if not name.startswith("swinViT."):
        return None
    name = name.removeprefix("swinViT.").replace("linear1", "fc1").replace("linear2", "fc2")
    return f"module.{name}"


def as_autoencoder(name: str) -> str | None:
    """Name as in `ssl_pretrained_weights.pth`."""
    if name.startswith("swinViT.layers"):
        layer, rest = name.removeprefix("swinViT.").split(".", 1)
        return f"encoder.{layer}.0.{rest}"
    if name.startswith("swinViT."):
        return name.replace("swinViT.", "encoder.")
    return name if name.startswith(("decoder", "out.")) else None


def below(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


AUTOENCODER_REST = {
    "encoder.mask_token": torch.zeros(1, 12, 1, 1, 1),
    "encoder.norm.weight": torch.ones(192),
    "encoder.norm.bias": torch.zeros(192),
}


PROJECTION = {"proj_head.layer1.0.weight": torch.zeros(8, 24)}


def encoder(state: State) -> State:
    return renamed(state, without("decoder", "out."))


def transformer(state: State, name: str = "swinViT.") -> State:
    bare = renamed(state, without("encoder", "decoder", "out."))
    return renamed(bare, lambda own: own.replace("swinViT.", name))


def of_first_training(state: State) -> State:
    """A teacher of zeros comes first in the file: it must not be taken."""
    nothing = {name: torch.zeros_like(tensor) for name, tensor in encoder(state).items()}
    return below("teacher.", nothing | PROJECTION) | below("student.", encoder(state) | PROJECTION)


def of_large_training(state: State) -> State:
    heads = below("student.", PROJECTION) | below("teacher.", PROJECTION)
    return below("module.", below("backbone.", encoder(state)) | heads)


KINDS: dict[str, tuple[str, str, Callable[[State], Any]]] = {
    "model_swinvit": (
        "swin_unetr",
        "swin",
        lambda state: {"epoch": 3, "state_dict": renamed(state, as_first)},
    ),
    "script": (
        "swin_unetr",
        "swin",
        lambda state: {"state_dict": below("module.", transformer(state) | SSL_HEADS)},
    ),
    "script, old and flat": (
        "swin_unetr",
        "swin",
        lambda state: transformer(state, "swin_vit.") | SSL_HEADS,
    ),
    "autoencoder": (
        "swin_unetr",
        "swin",
        lambda state: {
            "model": renamed(state, as_autoencoder) | AUTOENCODER_REST,
            "optimizer": {"step": 3},
        },
    ),
    "fine-tuned": (
        "swin_unetr",
        "swinunetr",
        lambda state: {"state_dict": state, "best_acc": 0.5},
    ),
    "fine-tuned V2": (
        "swin_unetr",
        "swinunetr_v2",
        lambda state: {"model": {**state, "out.conv.conv.weight": torch.zeros(3, 12, 1, 1, 1)}},
    ),
    "suprem": (
        "suprem_swinunetr",
        "swinunetr",
        lambda state: {"net": below("module.backbone.", state) | SUPREM_HEAD, "epoch": 1},
    ),
    "suprem, bare": ("suprem_swinunetr", "swinunetr", lambda state: {"net": state}),
    "VoCo_10k": (
        "voco",
        "swin_v2",
        lambda state: below("module.", transformer(state, "swin_vit.")),
    ),
    "VoCo head": ("voco", "swinunetr_v2", encoder),
    "VoComni": ("voco", "swinunetr_v2", lambda state: {"state_dict": state}),
    "VoCo training, large": (
        "voco",
        "swinunetr_v2",
        lambda state: {"state_dict": of_large_training(state)},
    ),
    "VoCo training, first": ("voco", "swinunetr_v2", of_first_training),
}
"""The format and the backbone that a kind of file is recognised as, and what is saved in it."""


def is_v2(kind: str) -> bool:
    return KINDS[kind][1].endswith("_v2")


def read(folder: Path, kind: str, originals: dict[bool, Any], name: str = "x.pth") -> WeightFile:
    path = folder / name
    torch.save(KINDS[kind][2](originals[is_v2(kind)].state_dict()), path)
    return read_weight_file(path)


@pytest.mark.parametrize("kind", KINDS)
def test_ours_computes_what_theirs_does(
    tmp_path: Path,
    originals: dict[bool, Any],
    expected: dict[bool, list[list[Tensor]]],
    kind: str,
) -> None:
    file = read(tmp_path, kind, originals)
    known, backbone, _ = KINDS[kind]
    assert (file.format, file.header.architecture.name) == (known, backbone)
    assert (file.header.architecture.width, file.header.architecture.in_channels) == (12, 1)
    ours = create_backbone(backbone, weights=file).eval()
    report = load_weights(ours, file)
    assert (report.missing, report.unused, report.adapted) == ({}, {}, {})
    assert (report.coverage, report.geometry, report.architecture) == (1.0, {}, {})
    assert any("axes x, y, z" in note for note in report.notes)
    wanted = expected[is_v2(kind)][backbone in SWIN_UNETRS]
    with torch.no_grad():
        for mine, theirs in zip(ours(volume()), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_files_of_newer_versions_of_monai_are_declared(
    tmp_path: Path, originals: dict[bool, Any]
) -> None:
    """The installed version merges as those from 1.5 on."""
    from monai.networks.nets import SwinUNETR

    state = originals[True].state_dict()
    newer = SwinUNETR(in_channels=1, out_channels=21, feature_size=12, use_v2=True).eval()
    newer.load_state_dict(state)
    path = tmp_path / "newer.pt"
    torch.save(state, path)
    assert any("swin_unetr_1.5:FILE" in note for note in read_weight_file(path).notes)
    ours = create_backbone("swin_v2", weights=f"swin_unetr_1.5:{path}").eval()
    assert ours.architecture.patch_merging == "all"
    with torch.no_grad():
        wanted = newer.swinViT(axes_turned(volume()), True)
        for mine, theirs in zip(ours(volume()), wanted, strict=True):
            torch.testing.assert_close(mine, axes_turned(theirs), rtol=1e-4, atol=1e-5)


def test_a_network_that_merges_otherwise_is_refused(
    tmp_path: Path, originals: dict[bool, Any]
) -> None:
    file = read(tmp_path, "suprem", originals)
    network = create_backbone("swinunetr", width=12)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    message = r"patch_merging is repeated in the file, all in the model.*create_backbone\(weights="
    with pytest.raises(WeightsError, match=message):
        load_weights(network, file)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "left_out", "why"),
    [
        ("script", "module.rotation_head.weight", "head of the self-supervised training"),
        ("script, old and flat", "conv.0.weight", "head of the self-supervised training"),
        ("autoencoder", "encoder.mask_token", "masked patches"),
        ("autoencoder", "encoder.norm.weight", "last norm"),
        ("autoencoder", "decoder1.transp_conv.conv.weight", "decoder"),
        ("autoencoder", "optimizer", "state of the training"),
        ("fine-tuned", "out.conv.conv.bias", "output layer"),
        ("suprem", "module.organ_embedding", "segments the file's organs"),
        ("suprem", "module.backbone.decoder5.transp_conv.conv.weight", "decoder"),
        ("VoCo training, large", "module.student.proj_head.layer1.0.weight", "projection head"),
        ("VoCo training, first", "student.proj_head.layer1.0.weight", "projection head"),
        ("VoCo training, first", "teacher.swinViT.patch_embed.proj.weight", "running mean"),
    ],
)
def test_what_is_left_out_is_named(
    tmp_path: Path, originals: dict[bool, Any], kind: str, left_out: str, why: str
) -> None:
    assert why in read(tmp_path, kind, originals).ignored[left_out]


def test_positions_in_a_window_are_checked_and_left_out(
    tmp_path: Path, originals: dict[bool, Any]
) -> None:
    ignored = read(tmp_path, "model_swinvit", originals).ignored
    assert len([why for why in ignored.values() if "offsets within a window" in why]) == 8


def test_input_and_licence_are_told(tmp_path: Path, originals: dict[bool, Any]) -> None:
    first = read(tmp_path, "model_swinvit", originals).header
    assert first.preprocessing is not None
    assert (first.preprocessing.window, first.licence) == ((-1000, 1000), None)
    assert first.citation is not None
    assert "2111.14791" in first.citation
    whole = read(tmp_path, "fine-tuned", originals).header
    assert (whole.preprocessing, whole.licence) == (None, None)
    suprem = read(tmp_path, "suprem", originals).header
    assert suprem.preprocessing is not None
    assert suprem.preprocessing.window == (-175.0, 250.0)
    assert suprem.licence is not None
    assert "Apache-2.0" in suprem.licence
    voco = read(tmp_path, "VoComni", originals)
    assert voco.header.licence is not None
    assert "Apache-2.0" in voco.header.licence
    assert any("swin_unetr:FILE" in note for note in voco.notes)


def test_the_universal_model_is_known_by_its_name_alone(
    tmp_path: Path, originals: dict[bool, Any]
) -> None:
    name = "supervised_clip_driven_universal_swin_unetr_2100.pth"
    header = read(tmp_path, "suprem", originals, name).header
    assert header.licence is not None
    assert "non-commercial" in header.licence


def test_a_format_can_be_declared(tmp_path: Path, originals: dict[bool, Any]) -> None:
    path = tmp_path / "mine.pth"
    torch.save(encoder(originals[True].state_dict()), path)
    file = read_weight_file(path, declared="swin_unetr")
    assert (file.header.licence, file.header.architecture.name) == (None, "swinunetr_v2")
    torch.save(originals[False].state_dict(), path)
    with pytest.raises(WeightsError, match="no convolutions before the stages"):
        read_weight_file(path, declared="voco")


@pytest.mark.parametrize("known", OURS.values(), ids=OURS)
def test_other_files_are_not_recognised(
    make_container: Callable[..., Container], known: Any
) -> None:
    planar = {"patch_embed.proj.weight": torch.zeros(96, 3, 4, 4)}
    lone = {"swinViT.patch_embed.proj.weight": torch.zeros(12, 1, 2, 2, 2)}
    elsewhere = {"image_encoder.patch_embed.proj.weight": torch.zeros(12, 1, 2, 2, 2)}
    for state in (planar, lone, elsewhere, {"conv1.weight": torch.zeros(4, 1, 7, 7, 7)}):
        container = make_container(state)
        assert not known.recognises(container)
        with pytest.raises(WeightsError, match="holds no Swin UNETR"):
            known.translate(container)


def test_one_channel_is_shared_out_over_several(
    originals: dict[bool, Any],
    make_container: Callable[..., Container],
    translated: Callable[[Any, Container], WeightFile],
) -> None:
    file = translated(OURS["swin_unetr"], make_container(originals[False].state_dict()))
    one = create_backbone("swinunetr", weights=file).eval()
    two = create_backbone("swinunetr", weights=file, in_channels=2).eval()
    adapted = load_weights(two, file).adapted
    assert set(adapted) == {f"{layer}.weight" for layer in SwinUNETREncoder.input_layers}
    small = torch.randn(1, 1, 17, 33, 18)
    with torch.no_grad():
        for alone, shared in zip(one(small), two(small.repeat(1, 2, 1, 1, 1)), strict=True):
            torch.testing.assert_close(alone, shared, rtol=1e-4, atol=1e-4)
