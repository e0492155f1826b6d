"""Batch norm that meets data unlike those it was trained on: gather its running statistics anew."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from voxlift.core.errors import ConfigError
from voxlift.nets.layers import AlwaysBatchNorm3d


def gather_statistics(backbone: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics of batch norm by those of other volumes, in place.

    No label is needed, and nothing that was learnt changes. The statistics are averaged over the
    batches, each counting by its volumes. A backbone without batch norm is left alone.

    Args:
        backbone: The network; it is left in the mode that it is in.
        batches: Volumes as the network is fed them, on its device.

    Returns:
        How many norms got new statistics.

    Raises:
        ConfigError: If a batch is so small that a map has a single voxel in it.

    Source:
        Adaptive batch normalization, arXiv 1603.04779, section 3.
    """
    norms = [
        module
        for module in backbone.modules()
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)
        and not isinstance(module, AlwaysBatchNorm3d)
        and module.track_running_stats
    ]
    if not norms:
        return 0
    modes = [(module, module.training) for module in backbone.modules()]
    momenta = [norm.momentum for norm in norms]
    backbone.eval()
    for norm in norms:
        nn.Module.train(norm, mode=True)
    try:
        num_seen = 0
        for volumes in batches:
            num_seen += len(volumes)
            for norm in norms:
                norm.momentum = len(volumes) / num_seen
            _run(backbone, volumes)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
    return len(norms)


def _run(backbone: nn.Module, volumes: Tensor) -> None:
    try:
        with torch.no_grad():
            backbone(volumes)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"Batch norm has no statistics of {len(volumes)} volume(s) of "
            f"{tuple(volumes.shape[2:])} voxels: a feature map has a single voxel in all. Give "
            "more volumes, a larger --batch-size, or take the statistics of the weight file."
        ) from error
