"""Axis shuffle at full speed: turn the kernels, not the volume.

A network on a transposed volume, under the transposed geometry, computes the transpose of what it
computes on the volume itself with kernels transposed the other way. The second form keeps the thin
axis first, where convolutions are fast, and pooling over all voxels makes both answers equal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from voxlift.core.errors import ConfigError


def turned_parameters(model: nn.Module, order: Sequence[int]) -> dict[str, Tensor]:
    """Give the parameters of a 3D network with all its kernels turned, for `functional_call`.

    They are differentiable functions of the parameters, so gradients arrive where they belong.

    Args:
        model: A network whose only tensors with five dimensions are kernels.
        order: The axis order: the result acts on a volume `v` as the network itself, under
            `geometry.transposed(order)`, acts on `v.permute(order)`.

    Raises:
        ConfigError: If a kernel is no cube: its padding would not turn with it.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 or len(set(parameter.shape[2:])) > 1:
            raise ConfigError(
                f"Only cubic kernels can be turned into another axis order; {name} has the shape "
                f"{tuple(parameter.shape)}. Train without axis shuffle, or with checkpointing, "
                "which transposes the volumes instead."
            )
    back = [2 + list(order).index(axis) for axis in range(3)]
    return {
        name: parameter.permute(0, 1, *back).contiguous(memory_format=torch.channels_last_3d)
        if parameter.ndim == 5
        else parameter
        for name, parameter in model.named_parameters()
    }
