from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def randomize() -> Callable[[nn.Module], nn.Module]:
    """Give every norm of a network random parameters and running statistics; in float64."""

    def apply(network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor in (module.weight, module.bias, module.running_mean):
                    assert tensor is not None
                    tensor.data = 1 + 0.3 * torch.randn(tensor.shape)
                assert module.running_var is not None
                module.running_var.data = 0.5 + torch.rand(module.running_var.shape)
        return network.double().eval()

    return apply
