import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from voxlift.core.errors import WeightsError
from voxlift.nets.factory import BACKBONES, create_backbone
from voxlift.nets.segresnet import SegResNetEncoder
from voxlift.weights.container import Container
from voxlift.weights.file import WeightFile, read_weight_file
from voxlift.weights.foreign.segresnet import SegResNetFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.licences import is_non_commercial
from voxlift.weights.load import load_weights

KNOWN = SegResNetFormat()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "segresnet", KNOWN)
    monkeypatch.setitem(BACKBONES, "segresnet", SegResNetEncoder)


def original(**options: Any) -> Any:
    """MONAI's SegResNet with random numbers, those of its norms too."""
    from monai.networks.nets import SegResNet

    network = SegResNet(**{"init_filters": 8, "out_channels": 25, **options}).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize(
    ("wrapper", "prefix", "options"),
    [
        ("net", "module.", {"init_filters": 16}),
        ("net", "module.backbone.", {}),
        ("state_dict", "", {"in_channels": 4}),
        ("model", "", {"blocks_down": (2, 1, 3), "blocks_up": (1, 1)}),
    ],
)
def test_ours_computes_what_theirs_does(
    tmp_path: Path, wrapper: str, prefix: str, options: Any
) -> None:
    theirs = original(**options)
    tensors = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
    if prefix == "module.":
        tensors["module.organ_embedding"] = torch.zeros(25, 512)
    path = tmp_path / "supervised_suprem_segresnet_2100.pth"
    torch.save({wrapper: tensors, "scheduler": {"last_epoch": 3}, "epoch": 4}, path)
    file = read_weight_file(path)
    assert file.format == "segresnet"
    architecture = file.header.architecture
    assert architecture.width == options.get("init_filters", 8)
    assert (architecture.stages is None) == ("blocks_down" not in options)
    assert "decoder" in file.ignored[f"{prefix}up_layers.0.0.conv1.conv.weight"]
    assert "output" in file.ignored[f"{prefix}conv_final.2.conv.weight"]
    assert "state of the training" in file.ignored["scheduler"]
    if wrapper == "net":
        assert file.header.preprocessing is not None
        assert file.header.preprocessing.window == (-175.0, 250.0)
        assert file.header.licence is not None
        assert "Apache-2.0" in file.header.licence
    else:
        assert (file.header.preprocessing, file.header.licence) == (None, None)
    channels = architecture.in_channels
    ours = create_backbone("segresnet", weights=file, in_channels=channels).double().eval()
    report = load_weights(ours, file)
    assert (report.missing, report.unused, report.adapted) == ({}, {}, {})
    assert (report.coverage, report.geometry, report.architecture) == (1.0, {}, {})
    assert any("8 groups" in note for note in report.notes)
    volume = torch.randn(1, channels, 9, 16, 13, dtype=torch.float64)
    with torch.no_grad():
        _, expected = theirs.encode(volume.permute(0, 1, 4, 3, 2))
        for mine, other in zip(ours(volume), expected, strict=True):
            torch.testing.assert_close(mine, other.permute(0, 1, 4, 3, 2), rtol=1e-6, atol=1e-6)


def test_the_universal_model_is_known_by_its_name_alone(tmp_path: Path) -> None:
    tensors = {f"module.{name}": tensor for name, tensor in original().state_dict().items()}
    for name, forbidden in (("CLIP_driven_universal_segresnet", True), ("suprem_segresnet", False)):
        path = tmp_path / f"supervised_{name}_2100.pth"
        torch.save({"net": tensors}, path)
        file = read_weight_file(path)
        assert (file.format, is_non_commercial(file.header.licence)) == ("segresnet", forbidden)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("convInit.conv.weight", (8, 1, 5, 5, 5), r"has the shape \(8, 1, 5, 5, 5\)"),
        ("convInit.conv.weight", (12, 1, 3, 3, 3), "makes 12 channels of 1"),
        ("convInit.conv.weight", (16, 1, 3, 3, 3), r"norm1.* has \(16,\)|has \(16, 16, 3"),
        ("down_layers.2.0.conv.weight", (32, 8, 3, 3, 3), r"has \(32, 16, 3, 3, 3\)"),
        ("down_layers.3.4.norm2.weight", (32,), r"has \(64,\)"),
    ],
)
def test_a_wrong_tensor_is_refused(
    make_container: Callable[..., Container], name: str, shape: tuple[int, ...], message: str
) -> None:
    state = {**original().state_dict(), name: torch.zeros(shape)}
    container = make_container(state)
    assert KNOWN.recognises(container)
    with pytest.raises(WeightsError, match=message):
        KNOWN.translate(container)


def test_other_files_are_not_recognised(make_container: Callable[..., Container]) -> None:
    for name in ("conv1.weight", "down_layers.0.conv.weight", "decoder.convInit.conv.weight"):
        state = {name: torch.zeros(8, 1, 3, 3, 3)}
        container = make_container(state)
        assert not KNOWN.recognises(container)
        with pytest.raises(WeightsError, match="holds no SegResNet"):
            KNOWN.translate(container)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("beginnings", "missing"),
    [
        (["convInit"], "convInit"),
        (["down_layers.0"], "down_layers.0"),
        (["down_layers.2"], "down_layers.2"),
        (["down_layers.3"], "down_layers.3"),
        (["down_layers.3", "down_layers.1"], "down_layers.1, {}down_layers.3"),
        (["down_layers.1.0"], "down_layers.1.0"),
        (["down_layers.3.2.conv2"], "down_layers.3.2.conv2"),
        (["down_layers.2.1.norm1.bias"], "down_layers.2.1.norm1"),
        (["down_layers", "up_"], "down_layers.0"),
    ],
)
def test_a_part_of_one_is_told_from_a_whole(
    make_container: Callable[..., Container], prefix: str, beginnings: list[str], missing: str
) -> None:
    whole = original().state_dict()
    state = {name: t for name, t in whole.items() if not name.startswith(tuple(beginnings))}
    container = make_container(state, prefix=prefix)
    assert KNOWN.recognises(container)
    told = re.escape(f"parts are missing: {prefix}{missing.format(prefix)}. It was cut short")
    with pytest.raises(WeightsError, match=told):
        KNOWN.translate(container)


def test_many_missing_parts_are_not_all_listed(make_container: Callable[..., Container]) -> None:
    state = {n: t for n, t in original().state_dict().items() if ".norm" not in n}
    with pytest.raises(WeightsError, match=r"norm1, .* and 12 more\. It was"):
        KNOWN.translate(make_container(state))
    flat = {**original().state_dict(), "convInit.conv.weight": torch.ones(8)}
    with pytest.raises(WeightsError, match="makes 8 channels of 0"):
        KNOWN.translate(make_container(flat))


def test_an_encoder_alone_is_whole(
    make_container: Callable[..., Container],
    translated: Callable[[Any, Container], WeightFile],
) -> None:
    state = original().state_dict()
    kept = {name: t for name, t in state.items() if not name.startswith(("up_", "conv_final"))}
    file = translated(KNOWN, make_container(kept))
    assert load_weights(create_backbone(weights=file), file).coverage == 1


def test_what_nobody_knows_makes_the_load_fail(
    make_container: Callable[..., Container],
    translated: Callable[[Any, Container], WeightFile],
) -> None:
    state = {**original().state_dict(), "vae_fc1.weight": torch.zeros(4, 4)}
    with pytest.raises(WeightsError, match=r"vae_fc1\.weight"):
        create_backbone("segresnet", weights=translated(KNOWN, make_container(state)))
