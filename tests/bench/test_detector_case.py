"""Timing of the paper's networks, at a small size."""

import pytest
import torch

from voxlift.bench.detector_case import DetectorCase
from voxlift.bench.run import ON_DEMAND
from voxlift.bench.setting import Setting, choose_setting
from voxlift.bench.timing import TimingBudget

QUICK = TimingBudget(num_warmup=1, num_rounds=1, min_rounds=1, seconds=0, turn_seconds=0)
CPU = Setting("cpu", bf16=False, compiler=False)


@pytest.mark.parametrize("backbone", ["p3d18", "mp3d18"])
@pytest.mark.parametrize("kind", ["train", "forward"])
def test_a_row_tells_both_rates(backbone: str, kind: str) -> None:
    case = DetectorCase(
        "x",
        backbone,
        kind,  # type: ignore[arg-type]
        size_voxels=(3, 64, 64),
        width=4,
        budget=QUICK,
    )
    (row,) = case.rows(CPU)
    assert row.shape == "1x1x3x64x64"
    assert row.same_function
    assert row.ratio == pytest.approx(row.ours / row.baseline, rel=1e-3)


def test_the_papers_sizes_are_there_on_demand() -> None:
    cases = [case for case in ON_DEMAND.values() if isinstance(case, DetectorCase)]
    assert {(case.backbone, case.kind) for case in cases} == {
        (backbone, kind) for backbone in ("p3d63", "mp3d63") for kind in ("train", "forward")
    }
    assert {case.size_voxels for case in cases} == {(9, 512, 512)}


@pytest.mark.gpu
def test_memory_is_told_on_a_gpu() -> None:
    assert torch.cuda.is_available()
    case = DetectorCase("x", "mp3d18", "train", size_voxels=(9, 64, 64), width=8, budget=QUICK)
    rates, memory = case.rows(choose_setting())
    assert rates.unit == "images/s"
    assert (memory.name, memory.unit) == ("x-memory", "GB")
    assert 0 < memory.ours < 80
