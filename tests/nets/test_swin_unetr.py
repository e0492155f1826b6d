import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from voxlift.core.architecture import Architecture, PatchMerging
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import ALL, GEOMETRIES, Geometry
from voxlift.nets.classifier import Classifier
from voxlift.nets.factory import create_backbone
from voxlift.nets.layers import Conv3d
from voxlift.nets.swin_unetr import MERGED_PLACES, SWIN_UNETRS, SWINS, Swin, SwinUNETREncoder
from voxlift.nets.unet import UNet
from voxlift.weights.container import read_metadata
from voxlift.weights.header import HEADER_KEY
from voxlift.weights.save import save_weights

NAMES = (*SWINS, *SWIN_UNETRS)


def describe(name: str, **fields: Any) -> Architecture:
    return Architecture.model_validate({**Swin.defaults, "name": name, "width": 12, **fields})


def build(name: str, *, checkpointing: bool = False, **fields: Any) -> Swin:
    family = SwinUNETREncoder if name in SWIN_UNETRS else Swin
    architecture = describe(name, **fields)
    own = family.default_geometry(architecture)
    return family(architecture, own, checkpointing=checkpointing)


def theirs(name: str, ours: Swin) -> Any:
    """Make MONAI's whole network with the numbers of our encoder."""
    from monai.networks.nets import SwinUNETR

    network = SwinUNETR(in_channels=1, out_channels=2, feature_size=12, use_v2=name.endswith("_v2"))
    state = network.state_dict()
    assert set(ours.state_dict()) <= set(state)
    network.load_state_dict({**state, **ours.state_dict()})
    return network.eval()


def maps_to_decoder(network: Any, volume: Tensor, name: str) -> list[Tensor]:
    """Compute what MONAI's network computes inside, on a volume laid out (x, y, z)."""
    given: list[Tensor] = []
    if name in SWINS:
        network.swinViT.register_forward_hook(lambda *call: given.extend(call[2]))
    else:
        for decoder in ("decoder5", "decoder4", "decoder3", "decoder2", "decoder1"):
            module = network.get_submodule(decoder)
            module.register_forward_hook(lambda *call: given.append(call[1][1]))
        network.decoder5.register_forward_hook(lambda *call: given.append(call[1][0]))
    network(volume)
    if name in SWINS:
        return given
    hidden, bottleneck, *rest = given
    return [*rest[::-1], hidden, bottleneck]


@pytest.mark.parametrize("name", NAMES)
def test_computes_what_monai_hands_to_its_decoder(name: str) -> None:
    ours = build(name).eval()
    volume = torch.randn(1, 1, 32, 64, 32)
    with torch.no_grad():
        expected = maps_to_decoder(theirs(name, ours), volume.permute(0, 1, 4, 3, 2), name)
        found = ours(volume)
    assert len(found) == len(expected) == len(ours.out_channels)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other.permute(0, 1, 4, 3, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(33, 20, 18), (17, 17, 40)])
def test_maps_have_the_promised_channels_and_sizes(name: str, size: tuple[int, ...]) -> None:
    backbone = build(name).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 1, *size))
    assert tuple(m.shape[1] for m in maps) == backbone.out_channels
    for feature_map, stride in zip(maps, backbone.strides, strict=True):
        assert tuple(feature_map.shape[2:]) == tuple(
            math.ceil(length / step) for length, step in zip(size, stride, strict=True)
        )
        assert torch.isfinite(feature_map).all()


def test_a_file_keeps_how_patches_are_merged(tmp_path: Path) -> None:
    ours = build("swin", patch_merging="repeated").eval()
    path = save_weights(ours, tmp_path / "repeated.safetensors")
    saved = create_backbone(weights=path).eval()
    assert saved.architecture.patch_merging == "repeated"
    volume = torch.randn(1, 1, 17, 20, 33)
    with torch.no_grad():
        for mine, other in zip(saved(volume), ours(volume), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_older_files_do_not_name_the_merging_and_merge_all(tmp_path: Path) -> None:
    path = save_weights(build("swin"), tmp_path / "older.safetensors")
    header = json.loads(read_metadata(path)[HEADER_KEY])
    assert header["architecture"].pop("patch_merging") == "all"
    save_file(load_file(path), path, {HEADER_KEY: json.dumps({**header, "format_version": 2})})
    again = create_backbone(weights=path).eval()
    assert isinstance(again, Swin)
    volume = torch.randn(1, 1, 32, 64, 32)
    with torch.no_grad():
        expected = maps_to_decoder(theirs("swin", again), volume.permute(0, 1, 4, 3, 2), "swin")
        for mine, other in zip(again(volume), expected, strict=True):
            torch.testing.assert_close(mine, other.permute(0, 1, 4, 3, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MERGED_PLACES)
def test_odd_axes_are_padded_with_zeros_at_their_ends(kind: PatchMerging) -> None:
    layer = build("swin", patch_merging=kind).swinViT.layers1[0].downsample  # type: ignore[union-attr, index]
    volume = torch.randn(2, 5, 4, 7, 12)
    padded = torch.zeros(2, 6, 4, 8, 12)
    padded[:, :5, :, :7] = volume
    torch.testing.assert_close(layer(volume), layer(padded), rtol=0, atol=0)


def test_strides_and_channels_are_as_told() -> None:
    assert [stride[0] for stride in build("swin").strides] == [2, 4, 8, 16, 32]
    assert build("swin").out_channels == (12, 24, 48, 96, 192)
    assert [stride[0] for stride in build("swinunetr").strides] == [1, 2, 4, 8, 16, 32]
    assert build("swinunetr").out_channels == (12, 12, 24, 48, 96, 192)


def test_positions_in_a_window_are_no_part_of_the_weights() -> None:
    backbone = build("swin")
    assert not any("position_index" in name for name in backbone.state_dict())
    assert sum("position_index" in name for name, _ in backbone.named_buffers()) == 8


@pytest.mark.parametrize("name", NAMES)
def test_trains_below_a_unet_and_a_classifier(name: str) -> None:
    backbone = build(name)
    volume = torch.randn(1, 1, 17, 35, 18)
    logits = UNet(backbone, num_classes=2).train()(volume)
    scores = Classifier(backbone, num_classes=3).train()(volume)
    assert logits.shape == (1, 2, 17, 35, 18)
    assert scores.shape == (1, 3)
    (logits.square().mean() + scores.square().mean()).backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_checkpointing_can_be_changed() -> None:
    backbone = build("swin")
    assert not backbone.checkpointing
    backbone.checkpointing = True
    assert backbone.checkpointing
    assert build("swin", checkpointing=True).checkpointing


def test_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(1)
    plain = build("swin_v2").double()
    torch.manual_seed(1)
    saving = build("swin_v2", checkpointing=True).double()
    volume = torch.randn(1, 1, 18, 20, 17, dtype=torch.float64)
    for backbone in (plain, saving):
        backbone(volume)[-1].square().sum().backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_convolutions_are_those_that_are_right_on_a_cpu() -> None:
    modules = list(build("swinunetr_v2").modules())
    convolutions = [module for module in modules if isinstance(module, torch.nn.Conv3d)]
    assert convolutions
    assert all(type(module) is Conv3d for module in convolutions)


@pytest.mark.parametrize("geometry", GEOMETRIES.values())
@pytest.mark.parametrize("name", ["swin", "swinunetr"])
def test_other_geometries_are_refused(name: str, geometry: Geometry) -> None:
    with pytest.raises(ConfigError, match=rf"{name} has strides of its own, \(\("):
        build(name).geometry = geometry


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "swin_v3"}, "'swin_v3' is none of swin, swin_v2"),
        ({"width": 16}, "multiple of 12; found 16"),
        ({"norm": "batch"}, "cannot have the norm 'batch'"),
        ({"ndim": 2}, "no choice of ndim"),
        ({"convolution": "acs"}, "no choice of convolution"),
    ],
)
def test_other_architectures_are_refused(fields: Any, message: str) -> None:
    own = Geometry(stem_stride=ALL, stage_strides=(ALL,) * 4)
    with pytest.raises(ConfigError, match=message):
        Swin(describe("swin").model_copy(update=fields), own)


def test_a_start_as_shortcuts_is_refused() -> None:
    architecture = describe("swin")
    with pytest.raises(ConfigError, match="leave zero_init_residual out"):
        Swin(architecture, Swin.default_geometry(architecture), zero_init_residual=True)


@pytest.mark.parametrize("name", NAMES)
def test_other_inputs_are_refused(name: str) -> None:
    backbone = build(name)
    for shape in ((1, 3, 40, 40, 40), (1, 1, 40, 40)):
        with pytest.raises(DataError, match=rf"{name} takes \(batch, 1, depth, height, width\)"):
            backbone(torch.zeros(shape))
    with pytest.raises(DataError, match="already one voxel long"):
        backbone(torch.zeros(1, 1, 40, 40, 16))


def test_a_single_voxel_below_instance_norm_is_refused() -> None:
    message = r"longer than 32 voxels: .*--patch-voxels.* backbone swin_v2, .* same weight file"
    with pytest.raises(DataError, match=message):
        build("swinunetr_v2")(torch.zeros(1, 1, 32, 32, 32))
    build("swin_v2")(torch.zeros(1, 1, 32, 32, 32))
    build("swin").check_size((32, 32, 32))
    with pytest.raises(DataError, match="one voxel long"):
        build("swinunetr").check_size((16, 64, 64))


def test_more_channels_are_taken() -> None:
    assert len(build("swinunetr", in_channels=2)(torch.zeros(1, 2, 17, 17, 33))) == 6
