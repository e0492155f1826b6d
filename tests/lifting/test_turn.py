import pytest
import torch
from torch import nn

from voxlift.core.errors import ConfigError
from voxlift.core.geometry import AXIS_ORDERS, AxisOrder
from voxlift.lifting.acs import ACSConv
from voxlift.lifting.turn import turned_parameters


@pytest.mark.parametrize("order", AXIS_ORDERS)
def test_turned_kernels_give_the_turned_convolution(order: AxisOrder) -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, (3, 3, 3), padding=1), nn.BatchNorm3d(2)).double()
    volume = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64)
    axes = (0, 1, *(2 + axis for axis in order))
    turned = turned_parameters(model, order)
    ours = torch.func.functional_call(model, turned, (volume,))
    torch.testing.assert_close(ours.permute(axes), model(volume.permute(axes)))
    assert turned.keys() == dict(model.named_parameters()).keys()
    ours.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 1, 1)])
def test_kernels_that_are_no_cubes_are_refused(kernel: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"cubic kernels .* 0\.weight .*Train without axis"):
        turned_parameters(nn.Sequential(nn.Conv3d(1, 1, kernel)), (1, 0, 2))


def test_kernels_that_lie_in_planes_are_refused() -> None:
    with pytest.raises(ConfigError, match="Only cubic kernels"):
        turned_parameters(ACSConv(1, 3, 3), (1, 0, 2))
