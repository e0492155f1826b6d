import pytest
import torch
from torch import nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError
from voxlift.nets.gvsl import GvslEncoder


def build(width: int = 8) -> GvslEncoder:
    architecture = Architecture(name="gvsl", width=width, stem_kernel=3, norm="group")
    return GvslEncoder(architecture, GvslEncoder.default_geometry(architecture))


def test_normalises_groups_of_eight_channels() -> None:
    norms = [m for m in build(16).modules() if isinstance(m, nn.GroupNorm)]
    assert [norm.num_channels // norm.num_groups for norm in norms] == [8] * 10


def test_takes_a_volume_of_which_a_single_voxel_is_left() -> None:
    assert build()(torch.randn(1, 1, 16, 16, 16))[-1].shape == (1, 128, 1, 1, 1)


def test_a_width_that_makes_no_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match="the width 12"):
        build(12)
