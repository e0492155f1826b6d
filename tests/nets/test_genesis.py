import pytest
import torch

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.errors import ConfigError
from voxlift.nets.genesis import GenesisEncoder


def build(*, width: int = 8, norm: Norm = "batch") -> GenesisEncoder:
    architecture = Architecture(name="genesis", width=width, stem_kernel=3, norm=norm)
    return GenesisEncoder(architecture, GenesisEncoder.default_geometry(architecture))


def test_has_the_published_shapes_at_the_published_width() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in build(width=64).state_dict().items()}
    assert shapes["down_tr64.ops.0.conv1.weight"] == (32, 1, 3, 3, 3)
    assert shapes["down_tr64.ops.1.conv1.weight"] == (64, 32, 3, 3, 3)
    assert shapes["down_tr512.ops.0.conv1.weight"] == (256, 256, 3, 3, 3)
    assert shapes["down_tr512.ops.1.bn1.running_mean"] == (512,)


def test_batch_norm_of_the_batch_depends_on_the_batch_and_not_on_the_mode() -> None:
    backbone = build(norm="batch_always").double()
    volumes = torch.randn(3, 1, 16, 16, 16, dtype=torch.float64)
    trained = backbone(volumes)[-1]
    backbone.eval()
    torch.testing.assert_close(backbone(volumes)[-1], trained)
    assert not torch.allclose(backbone(volumes[:1])[-1], trained[:1])


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_can_be_had_from_scratch_with_norms_that_do_not_mix_the_batch(norm: Norm) -> None:
    backbone = build(norm=norm).double()
    volumes = torch.randn(2, 1, 16, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(backbone(volumes[:1])[-1], backbone(volumes)[-1][:1])


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="odd width 9"):
        build(width=9)
