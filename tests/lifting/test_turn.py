import pytest
import torch
from torch import nn

from voxlift.core.geometry import AXIS_ORDERS, AxisOrder
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
