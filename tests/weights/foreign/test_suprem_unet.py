from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.errors import WeightsError
from voxlift.nets.factory import BACKBONES, create_backbone
from voxlift.nets.genesis import GenesisEncoder
from voxlift.weights.container import Container
from voxlift.weights.file import read_weight_file
from voxlift.weights.foreign.models_genesis import ModelsGenesisFormat
from voxlift.weights.foreign.suprem_unet import SupremUnetFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.licences import is_non_commercial
from voxlift.weights.load import load_weights

State = dict[str, Tensor]
HEAD: State = {
    "module.organ_embedding": torch.zeros(25, 512),
    "module.text_to_vision.weight": torch.zeros(4, 8),
    "module.controller.weight": torch.zeros(153, 512, 1, 1, 1),
    "module.GAP.3.weight": torch.zeros(256, 64, 1, 1, 1),
    "module.precls_conv.0.weight": torch.zeros(8),
}


class TheirLayer(nn.Module):
    """A convolution, a norm that is always in training, and a ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(before, after, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm3d(after)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the layer."""
        out = self.conv1(volume)
        dims = (0, 2, 3, 4)
        mean = out.mean(dims, keepdim=True)
        variance = out.var(dims, unbiased=False, keepdim=True)
        scale = self.bn1.weight.view(1, -1, 1, 1, 1)
        shift = self.bn1.bias.view(1, -1, 1, 1, 1)
        return functional.relu((out - mean) / (variance + 1e-5).sqrt() * scale + shift)


class TheirEncoder(nn.Module):
    """The half of the U-Net before the bottom, and a piece of the rest."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.names = ("down_tr64", "down_tr128", "down_tr256", "down_tr512")
        before = 1
        for i, name in enumerate(self.names):
            after = width * 2**i
            ops = nn.Sequential(TheirLayer(before, after // 2), TheirLayer(after // 2, after))
            self.add_module(name, nn.ModuleDict({"ops": ops}))
            before = after
        self.out_tr = nn.ModuleDict({"final_conv": nn.Conv3d(width, 1, 1)})

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the maps before pooling."""
        maps: list[Tensor] = []
        for name in self.names:
            volume = functional.max_pool3d(volume, 2) if maps else volume
            volume = self.get_submodule(f"{name}.ops")(volume)
            maps.append(volume)
        return maps


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "models_genesis", ModelsGenesisFormat())
    monkeypatch.setitem(FORMATS, "suprem_unet", SupremUnetFormat())
    monkeypatch.setitem(BACKBONES, "genesis", GenesisEncoder)


def turned(volume: Tensor) -> Tensor:
    """Lay a volume (z, y, x) out as theirs (x, y, z), or the other way round."""
    return volume.permute(0, 1, 4, 3, 2)


def saved(
    folder: Path,
    network: nn.Module,
    prefix: str = "module.backbone.",
    name: str = "supervised_suprem_unet_2100.pth",
) -> Path:
    path = folder / name
    tensors = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    beside = HEAD if prefix.endswith("backbone.") else {}
    torch.save({"net": {**beside, **tensors}, "optimizer": {}, "scheduler": {}, "epoch": 1}, path)
    return path


@pytest.mark.parametrize("prefix", ["module.backbone.", "module.", ""])
def test_ours_computes_what_theirs_does(
    tmp_path: Path, randomised: Callable[..., nn.Module], prefix: str
) -> None:
    theirs = randomised(TheirEncoder(8)).double()
    path = saved(tmp_path, theirs, prefix)
    file = read_weight_file(path)
    assert file.format == "suprem_unet"
    ours = create_backbone("genesis", weights=file).double().eval()
    volume = torch.randn(2, 1, 16, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(ours(volume), theirs(turned(volume)), strict=True):
            torch.testing.assert_close(turned(found), expected, rtol=1e-8, atol=1e-8)


def test_everything_is_accounted_for(tmp_path: Path, randomised: Callable[..., nn.Module]) -> None:
    file = read_weight_file(saved(tmp_path, randomised(TheirEncoder(8))))
    report = load_weights(create_backbone("genesis", weights=file), file)
    assert report.is_complete
    assert report.coverage == 1.0
    assert set(HEAD) <= set(report.ignored)
    assert "module.backbone.out_tr.final_conv.weight" in report.ignored
    assert "optimizer" in report.ignored
    preprocessing = file.header.preprocessing
    assert preprocessing is not None
    assert (preprocessing.window, preprocessing.spacing_mm) == ((-175, 250), (1.5, 1.5, 1.5))
    assert (preprocessing.orientation, preprocessing.size_voxels) == ("canonical", (96, 96, 96))
    assert any("-250 to 250 HU" in note for note in report.notes)
    assert "Apache-2.0" in (report.licence or "")


def test_the_universal_model_is_known_by_its_name_alone(
    tmp_path: Path, randomised: Callable[..., nn.Module]
) -> None:
    name = "supervised_clip_driven_universal_unet_2100.pth"
    path = saved(tmp_path, randomised(TheirEncoder(8)), name=name)
    file = read_weight_file(path)
    assert (file.format, is_non_commercial(file.header.licence)) == ("suprem_unet", True)
    assert file.header.provenance["source"] == "CLIP-driven universal model"
    network = create_backbone("genesis", weights=file)
    assert is_non_commercial(load_weights(network, file).licence)
    ours = read_weight_file(saved(tmp_path, randomised(TheirEncoder(8))))
    assert any("only the name of a file tells them apart" in note for note in ours.notes)


def test_a_stranger_beside_the_network_is_refused(
    make_container: Callable[..., Container], randomised: Callable[..., nn.Module]
) -> None:
    state = {f"backbone.{n}": t for n, t in randomised(TheirEncoder(8)).state_dict().items()}
    state["second_backbone.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"second_backbone\.weight stands beside the network"):
        SupremUnetFormat().translate(make_container(state, wrapper="net"))
