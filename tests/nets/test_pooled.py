import math
from typing import Any

import pytest
import torch

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import Geometry
from voxlift.nets.factory import create_model
from voxlift.nets.genesis import GenesisEncoder
from voxlift.nets.gvsl import GvslEncoder
from voxlift.nets.pooled import PooledEncoder

FAMILIES: dict[str, Any] = {"genesis": GenesisEncoder, "gvsl": GvslEncoder}
pytestmark = pytest.mark.parametrize("name", FAMILIES)


def build(name: str, **fields: Any) -> PooledEncoder:
    family = FAMILIES[name]
    options = {k: fields.pop(k) for k in ("zero_init_residual", "checkpointing") if k in fields}
    architecture = Architecture.model_validate(
        {**family.defaults, "name": name, "width": 8, **fields}
    )
    backbone = family(architecture, family.default_geometry(architecture), **options)
    assert isinstance(backbone, PooledEncoder)
    return backbone


def test_maps_have_the_promised_channels_and_sizes(name: str) -> None:
    backbone = build(name, in_channels=2).eval()
    assert backbone.out_channels == tuple(8 * 2**i for i in range(backbone.num_levels))
    assert backbone.strides == tuple((2**i,) * 3 for i in range(backbone.num_levels))
    size = (19, 32, 17)
    maps = backbone(torch.randn(1, 2, *size))
    for found, channels, stride in zip(maps, backbone.out_channels, backbone.strides, strict=True):
        assert found.shape[1] == channels
        sizes = [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]
        assert list(found.shape[2:]) == sizes


def test_any_stride_will_do_and_no_tensor_is_touched(name: str) -> None:
    backbone = build(name).eval()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    strides = ((1, 2, 2), (1, 1, 1), (3, 1, 2), (2, 2, 2))[: backbone.num_levels - 1]
    backbone.geometry = Geometry(stage_strides=strides)
    total = backbone.strides[-1]
    assert backbone(torch.randn(1, 1, 12, 16, 16))[-1].shape[2:] == tuple(
        math.ceil(n / s) for n, s in zip((12, 16, 16), total, strict=True)
    )
    torch.testing.assert_close(backbone.state_dict(), before, rtol=0, atol=0)


def test_the_last_voxel_of_odd_sizes_counts(name: str) -> None:
    backbone = build(name).eval().double()
    edge = backbone.strides[-1][0]
    volume = torch.zeros(1, 1, edge + 1, edge, edge, dtype=torch.float64, requires_grad=True)
    backbone(volume + torch.randn_like(volume))[-1].square().sum().backward()
    assert volume.grad is not None
    assert volume.grad[0, 0, -1].count_nonzero() > 0


def test_what_is_too_small_or_of_other_channels_is_refused(name: str) -> None:
    backbone = build(name)
    with pytest.raises(DataError, match="already one voxel long"):
        backbone(torch.zeros(1, 1, 2, 32, 32))
    with pytest.raises(DataError, match=rf"{name} takes \(batch, 1, depth"):
        backbone(torch.zeros(1, 3, 32, 32, 32))
    with pytest.raises(ConfigError, match="no residual blocks"):
        build(name, zero_init_residual=True)


def test_checkpointing_changes_no_gradient(name: str) -> None:
    plain, saving = build(name), build(name, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    volume = torch.randn(2, 1, 16, 16, 32)
    gradients = []
    for backbone in (plain, saving):
        loss = torch.stack([m.square().mean() for m in backbone(volume)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append({key: p.grad for key, p in backbone.named_parameters()})
        assert all(grad is not None for grad in gradients[-1].values())
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("decoder", ["unet", "fcn", "classify"])
def test_makes_models_of_every_task(name: str, decoder: Any) -> None:
    backbone = build(name)
    if decoder == "classify":
        model = create_model("classify", backbone=backbone, num_classes=3)
    else:
        model = create_model("segment", backbone=backbone, num_classes=3, decoder=decoder)
    out = model(torch.randn(2, 1, 16, 17, 32))
    assert out.shape == ((2, 3) if decoder == "classify" else (2, 3, 16, 17, 32))
    out.square().mean().backward()
    first = backbone.get_submodule(backbone.input_layers[0])
    assert isinstance(first, torch.nn.Conv3d)
    assert first.weight.grad is not None
    assert first.weight.grad.count_nonzero() > 0
