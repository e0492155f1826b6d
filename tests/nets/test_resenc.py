import math
from typing import Any

import pytest
import torch

from voxlift.core.architecture import Architecture, Stage
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import Geometry
from voxlift.nets.factory import create_model
from voxlift.nets.resenc import ResEncEncoder

STAGES = (
    Stage(channels=4, blocks=1, kernel=(1, 3, 3)),
    Stage(channels=8, blocks=2),
    Stage(channels=8, blocks=1),
)


def build(*, geometry: Geometry | None = None, **fields: Any) -> ResEncEncoder:
    options = {k: fields.pop(k) for k in ("zero_init_residual", "checkpointing") if k in fields}
    architecture = Architecture.model_validate(
        {"name": "resenc", "width": 4, "stem_kernel": 3, "norm": "instance", "stages": STAGES}
        | fields
    )
    geometry = geometry or ResEncEncoder.default_geometry(architecture)
    return ResEncEncoder(architecture, geometry, **options)


def test_without_a_plan_it_is_the_large_one() -> None:
    with torch.device("meta"):
        backbone = build(width=32, stages=None)
    assert backbone.out_channels == (32, 64, 128, 256, 320, 320)
    assert [len(stage) for stage in backbone.stages] == [1, 3, 4, 6, 6, 6]  # type: ignore[arg-type]
    assert backbone.strides == tuple((2**i,) * 3 for i in range(6))
    # A published checkpoint of it has 448, each under two names.
    assert 2 * len(backbone.state_dict()) == 448
    planned = backbone.architecture.stages
    assert planned is not None
    assert [stage.channels for stage in planned] == [32, 64, 128, 256, 320, 320]


def test_maps_have_the_promised_channels_and_sizes() -> None:
    strides = ((1, 1, 1), (1, 2, 2), (3, 2, 1))
    backbone = build(in_channels=2, geometry=Geometry(stage_strides=strides)).eval()
    assert backbone.strides == ((1, 1, 1), (1, 2, 2), (3, 4, 2))
    size = (7, 13, 9)
    maps = backbone(torch.randn(1, 2, *size))
    for found, channels, stride in zip(maps, (4, 8, 8), backbone.strides, strict=True):
        sizes = [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]
        assert (found.shape[1], list(found.shape[2:])) == (channels, sizes)


def test_changing_the_geometry_touches_no_tensor() -> None:
    backbone = build().eval()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    volume = torch.randn(1, 1, 8, 8, 8)
    first = backbone(volume)[-1]
    own = backbone.geometry
    backbone.geometry = Geometry(stage_strides=((2, 2, 2), (1, 1, 1), (1, 2, 2)))
    assert backbone(volume)[0].shape[2:] == (4, 4, 4)
    backbone.geometry = own
    torch.testing.assert_close(backbone(volume)[-1], first, rtol=0, atol=0)
    torch.testing.assert_close(backbone.state_dict(), before, rtol=0, atol=0)


def test_blocks_can_start_as_their_shortcut() -> None:
    backbone = build(zero_init_residual=True, stages=STAGES[:1])
    volume = torch.randn(1, 1, 6, 6, 6)
    stem = torch.nn.functional.leaky_relu(backbone.stem(volume), 0.01)
    expected = torch.nn.functional.leaky_relu(stem, 0.01)
    torch.testing.assert_close(backbone(volume)[0], expected)


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_every_parameter_gets_a_finite_gradient(norm: str) -> None:
    backbone = build(norm=norm)
    maps = backbone(torch.randn(2, 1, 9, 8, 8))
    loss = torch.stack([m.square().mean() for m in maps]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_checkpointing_changes_no_gradient(norm: str) -> None:
    plain, saving = build(norm=norm), build(norm=norm, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    volume = torch.randn(2, 1, 8, 8, 8)
    gradients = []
    for backbone in (plain, saving):
        loss = torch.stack([m.square().mean() for m in backbone(volume)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append({key: p.grad for key, p in backbone.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(plain.state_dict(), saving.state_dict())


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="width 8 and in its first stage 4"):
        build(width=8)
    with pytest.raises(ConfigError, match="in its first stage no stage"):
        build(stages=(), geometry=Geometry())
    with pytest.raises(ConfigError, match="odd edges"):
        build(stages=(Stage(channels=4, blocks=1, kernel=(2, 3, 3)),))
    with pytest.raises(DataError, match="already one voxel long"):
        build()(torch.zeros(1, 1, 1, 8, 8))


@pytest.mark.parametrize("decoder", ["unet", "fcn", "classify"])
def test_makes_models_of_every_task(decoder: Any) -> None:
    backbone = build()
    if decoder == "classify":
        model = create_model("classify", backbone=backbone, num_classes=3)
    else:
        model = create_model("segment", backbone=backbone, num_classes=3, decoder=decoder)
    out = model(torch.randn(2, 1, 9, 8, 12))
    assert out.shape == ((2, 3) if decoder == "classify" else (2, 3, 9, 8, 12))
    out.square().mean().backward()
    grad = backbone.stem.conv.weight.grad
    assert grad is not None
    assert grad.count_nonzero() > 0
