from types import SimpleNamespace
from typing import Any

import torch

from voxlift.training.reproducible import SeededSteps


def draw(seed: int, *, epoch: int, batch_idx: int, rank: int = 0) -> float:
    trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    module: Any = None
    SeededSteps(seed).on_train_batch_start(trainer, module, {}, batch_idx)
    return torch.rand(()).item()


def test_a_step_draws_the_same_whenever_it_is_computed() -> None:
    first = draw(1, epoch=2, batch_idx=3)
    torch.rand(10)
    assert draw(1, epoch=2, batch_idx=3) == first
    others = {
        draw(2, epoch=2, batch_idx=3),
        draw(1, epoch=3, batch_idx=3),
        draw(1, epoch=2, batch_idx=4),
        draw(1, epoch=2, batch_idx=3, rank=1),
        first,
    }
    assert len(others) == 5
