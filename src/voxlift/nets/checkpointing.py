"""Recompute a block in the backward pass instead of keeping what it held."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_block(block: nn.Module, volume: Tensor, *, checkpointing: bool) -> Tensor:
    """Compute a block, in training without keeping its activations if that is asked for.

    Args:
        block: Any module of one input and one output. Running statistics of its batch norms are
            updated once, not again by the recomputation.
        volume: Its input.
        checkpointing: Keep the input alone; it costs another pass through the block.
    """
    if checkpointing and block.training and torch.is_grad_enabled():
        out: Tensor = checkpoint(
            block, volume, use_reentrant=False, context_fn=lambda: _recomputation(block)
        )
        return out
    computed: Tensor = block(volume)
    return computed


def _recomputation(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first pass and of the recomputation of a checkpointed block."""
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Let a recomputation leave the running statistics alone: the first pass has updated them."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
