from pathlib import Path
from typing import Any

import pytest
import torch

from voxlift.config import PretrainConfig, SegmentConfig
from voxlift.core.errors import ConfigError
from voxlift.experiment import finetune
from voxlift.tasks.segment import SegmentTask
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.memory import OutOfMemoryError, is_out_of_memory, largest_that_fits


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 B"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


@pytest.mark.parametrize(("limit", "below", "expected"), [(5, 16, 4), (1, 3, 1), (0, 8, None)])
def test_batch_is_halved_until_it_fits(limit: int, below: int, expected: int | None) -> None:
    tried = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_that_fits(attempt, below=below) == expected
    assert max(tried) == below // 2


def test_other_errors_of_the_probe_are_not_swallowed() -> None:
    def attempt(size: int) -> None:
        raise RuntimeError(f"a bug with {size}")

    with pytest.raises(RuntimeError, match="a bug with 4"):
        largest_that_fits(attempt, below=8)


def limit_memory(task: Any, *, samples: int, checkpointed: int, from_step: int) -> None:
    """Let the task run out of memory above a number of samples, from a step on."""
    compute_loss = task.compute_loss

    def compute(batch: Any, batch_idx: int) -> torch.Tensor:
        limit = checkpointed if task.model.backbone.checkpointing else samples
        if task.global_step >= from_step and len(batch["label"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        loss: torch.Tensor = compute_loss(batch, batch_idx)
        return loss

    task.compute_loss = compute


@pytest.mark.parametrize(
    ("samples", "checkpointed", "advice"),
    [
        (2, 2, r"one step: --batch-size 2 --accumulate 4 \(the same effective batch\)\. "),
        (
            2,
            4,
            r"one step: --batch-size 2 --accumulate 4 \(the same effective batch\), or "
            r"--checkpointing --batch-size 4 --accumulate 2 \(the same",
        ),
        (0, 1, r"one step: --checkpointing --batch-size 1 --accumulate 8 \(the same"),
        (0, 0, r"Not even a batch of one fits: take smaller volumes"),
    ],
)
def test_one_message_says_what_would_fit(
    small_config: PretrainConfig,
    run_small: Any,
    samples: int,
    checkpointed: int,
    advice: str,
) -> None:
    config = small_config.model_copy(
        update={"checkpoint_steps": 2, "accumulate": 2, "axis_shuffle": True}
    )

    def change_task(task: Any) -> None:
        limit_memory(task, samples=samples, checkpointed=checkpointed, from_step=2)

    with pytest.raises(OutOfMemoryError, match=advice) as caught:
        run_small(config, change_task=change_task)
    assert isinstance(caught.value, ConfigError)
    assert str(caught.value).startswith("Out of memory with --batch-size 4 on cpu.")
    checkpoints = config.out / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["last.ckpt"]
    kept = read_checkpoint(checkpoints / "last.ckpt")
    assert kept["global_step"] == 2


def test_odd_batches_fit_about(small_config: PretrainConfig, run_small: Any) -> None:
    config = small_config.model_copy(update={"batch_size": 5})

    def change_task(task: Any) -> None:
        limit_memory(task, samples=2, checkpointed=2, from_step=0)

    with pytest.raises(OutOfMemoryError, match=r"2 --accumulate 3 \(about the same effective"):
        run_small(config, change_task=change_task)


@pytest.mark.parametrize(
    ("samples", "checkpointed", "advice"),
    [
        (2, 2, r"one step: --batch-size 2 --accumulate 2 \(the same effective batch\)\. "),
        (1, 2, r"--accumulate 4 .*, or --checkpointing --batch-size 2 --accumulate 2"),
        (0, 0, r"Not even a batch of one fits: take smaller volumes"),
    ],
)
def test_patches_are_probed_as_well(
    small_segmentation: SegmentConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    samples: int,
    checkpointed: int,
    advice: str,
) -> None:
    config = SegmentConfig.model_validate(
        {
            **small_segmentation.model_dump(),
            "out": tmp_path / "run",
            "batch_size": 4,
            "deep_supervision": True,
            # Batch norm needs more than one voxel in the last map of a batch of one.
            "scan": {"patch_voxels": (9, 9, 9)},
        }
    )
    compute_loss = SegmentTask.compute_loss

    def compute(self: SegmentTask, batch: Any, batch_idx: int) -> torch.Tensor:
        backbone = self.model.backbone
        limit = checkpointed if getattr(backbone, "checkpointing", False) else samples
        if len(batch["label"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute_loss(self, batch, batch_idx)

    monkeypatch.setattr(SegmentTask, "compute_loss", compute)
    with pytest.raises(OutOfMemoryError, match=advice) as caught:
        finetune(config)
    assert str(caught.value).startswith("Out of memory with --batch-size 4 on cpu.")
