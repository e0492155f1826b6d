from typing import Any

import pytest
import torch

from voxlift.core.architecture import Architecture, Stage
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.nets.genesis import GenesisEncoder
from voxlift.nets.gvsl import GvslEncoder
from voxlift.nets.resenc import ResEncEncoder

FAMILIES: dict[str, Any] = {
    "genesis": GenesisEncoder,
    "gvsl": GvslEncoder,
    "resenc": ResEncEncoder,
}


def build(name: str, geometry: Geometry | None = None, **fields: Any) -> Any:
    family = FAMILIES[name]
    fields = {**family.defaults, "name": name, "width": 8, **fields}
    options = {k: fields.pop(k) for k in ("zero_init_residual", "checkpointing") if k in fields}
    architecture = Architecture.model_validate(fields)
    return family(architecture, geometry or family.default_geometry(architecture), **options)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "fields",
    [
        {"ndim": 2},
        {"stem_kernel": 7},
        {"shortcut": "A"},
        {"num_slices": 9},
        {"project_first": True},
        {"convolution": "acs"},
    ],
)
def test_what_a_family_has_no_choice_of_is_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no choice of {next(iter(fields))}"):
        build(name, **fields)


def test_stages_are_planned_for_residual_encoders_alone() -> None:
    stages = (Stage(channels=8, blocks=1),)
    assert len(build("resenc", stages=stages).stages) == 1
    for name in ("genesis", "gvsl"):
        with pytest.raises(ConfigError, match="no choice of stages"):
            build(name, stages=stages)


def test_norms_that_a_family_cannot_have_are_refused() -> None:
    for norm in ("batch", "instance", "batch_always"):
        with pytest.raises(ConfigError, match="gvsl cannot have the norm"):
            build("gvsl", norm=norm)
    with pytest.raises(ConfigError, match="resenc cannot have the norm 'batch_always'"):
        build("resenc", norm="batch_always")


@pytest.mark.parametrize("name", FAMILIES)
def test_geometries_that_a_family_cannot_step_are_refused(name: str) -> None:
    backbone = build(name)
    num_stages = len(backbone.geometry.stage_strides)
    twos = ((2, 2, 2),) * num_stages
    for geometry, match in (
        (Geometry(stem_stride=(2, 2, 2), stage_strides=twos), "full resolution"),
        (Geometry(pool_stride=(2, 2, 2), stage_strides=twos), "full resolution"),
        (Geometry(stage_strides=twos, dilations=twos), "no dilated"),
        (Geometry(stage_strides=(*twos, (1, 1, 1))), f"has {num_stages} stages"),
    ):
        with pytest.raises(ConfigError, match=match):
            backbone.geometry = geometry
    if num_stages == 4:
        backbone.geometry = named_geometry("small")


@pytest.mark.parametrize(
    ("name", "norm"), [("genesis", "batch_always"), ("genesis", "instance"), ("resenc", "instance")]
)
def test_a_norm_needs_more_than_one_number(name: str, norm: str) -> None:
    backbone = build(name, norm=norm).eval()
    edge = backbone.strides[-1][0]
    with pytest.raises(DataError, match=rf"single voxel.*Feed more than \({edge}"):
        backbone(torch.randn(1, 1, edge, edge, edge))
    assert len(backbone(torch.randn(1, 1, edge, edge, edge + 1))) == len(backbone.strides)


def test_a_batch_is_enough_for_batch_norm() -> None:
    backbone = build("genesis", norm="batch_always").eval()
    assert backbone(torch.randn(2, 1, 8, 8, 8))[-1].shape[2:] == (1, 1, 1)


def test_the_check_of_size_does_not_hinder_export() -> None:
    backbone = build("resenc").eval()
    volume = torch.randn(1, 1, 32, 32, 64)
    exported = torch.export.export(backbone, (volume,)).module()
    for found, expected in zip(exported(volume), backbone(volume), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
