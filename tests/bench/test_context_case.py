import pytest
import torch

from voxlift.bench.context_case import (
    ContextCase,
    UnsharedMP3D,
    key_slice_planes,
    make_detector,
    plane_difference,
    simulated_chest,
)
from voxlift.bench.setting import Setting
from voxlift.bench.timing import TimingBudget
from voxlift.core.detection_settings import DetectionSettings, DetectorSettings
from voxlift.nets.slice_encoder import MP3D

CPU = Setting("cpu", bf16=False, compiler=False)
SETTINGS = DetectionSettings(
    class_names=("lesion",),
    num_slices=3,
    image_size=64,
    detector=DetectorSettings(head="fcos", fpn_channels=8),
)


def test_the_ways_are_set_side_by_side_and_only_the_exact_ones_are_the_same() -> None:
    case = ContextCase(
        "detect-context",
        size_voxels=(4, 64, 64),
        width=2,
        settings=SETTINGS,
        budget=TimingBudget(num_warmup=1, num_rounds=1, min_rounds=1, turn_seconds=0),
    )
    exact, fast = case.rows(CPU)
    assert (exact.name, exact.baseline_name) == ("detect-context", "every-window-alone")
    assert exact.same_function
    assert exact.shape == "4x64x64, windows of 3, exact, maps differ by 0.0%"
    assert fast.baseline_name == "exact"
    assert not fast.same_function
    assert fast.shape.startswith("4x64x64, windows of 3, fast-context, maps differ by ")
    for row in (exact, fast):
        assert row.ratio == pytest.approx(row.ours / row.baseline, rel=1e-2)
        assert row.unit == "images/s"


def test_differences_are_shares_of_the_other_s_planes() -> None:
    ones = {0.0: [torch.ones(2, 3, 3), torch.ones(4, 2, 2)]}
    others = {0.0: [torch.full((2, 3, 3), 2.0), torch.ones(4, 2, 2)], 1.0: []}
    assert plane_difference(ones, ones) == 0
    assert plane_difference(ones, others) == pytest.approx((0.5 + 0) / 2)
    assert plane_difference({**others, 2.0: []}, ones) == pytest.approx((1 + 0) / 2)


def test_unshared_is_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = simulated_chest((3, 64, 64), interval_mm=2.5)
    assert volume.spacing_mm[0] == 2.5
    stems: list[int] = []
    compute = MP3D.convolve_stem

    def counted(self: MP3D, image: torch.Tensor) -> torch.Tensor:
        stems.append(image.shape[2])
        return compute(self, image)

    monkeypatch.setattr(MP3D, "convolve_stem", counted)
    planes = []
    for kind in (MP3D, UnsharedMP3D):
        planes.append(
            key_slice_planes(make_detector(kind, SETTINGS, width=2, device="cpu"), volume)
        )
    assert stems == [1, 1, 1, 3, 3, 3]
    assert plane_difference(*planes) < 1e-6
