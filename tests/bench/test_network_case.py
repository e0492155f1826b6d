import logging
from typing import Any

import pytest
import torch

from voxlift.bench import network_case
from voxlift.bench.network_case import NetworkCase
from voxlift.bench.networks import Baseline, plain_network
from voxlift.bench.setting import Setting
from voxlift.bench.timing import TimingBudget
from voxlift.nets.classifier import Classifier
from voxlift.nets.resnet import ResNet


@pytest.fixture(autouse=True)
def _only_the_plain_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain_alone(ours: Classifier, *, device: str) -> list[Baseline]:
        del device
        return [Baseline("plain", plain_network(ours), has_our_weights=True)]

    monkeypatch.setattr(network_case, "baselines", plain_alone)


def tiny(kind: Any) -> NetworkCase:
    return NetworkCase(
        f"{kind}-32",
        kind,
        size=32,
        batch_size=2,
        gpu_batch_size=4,
        width=4,
        num_classes=5,
        budget=TimingBudget(num_warmup=1, num_rounds=2, turn_seconds=0.0),
    )


@pytest.mark.parametrize("kind", ["train", "forward"])
def test_a_case_yields_a_row_for_each_baseline(kind: str) -> None:
    (row,) = tiny(kind).rows(Setting("cpu", bf16=False, compiler=False))
    assert row.name == f"{kind}-32"
    assert row.shape == "2x1x3x32x32"
    assert row.baseline_name == "plain"
    assert row.same_function
    assert row.unit == "images/s"
    assert row.ratio == pytest.approx(row.ours / row.baseline, rel=1e-3)


@pytest.mark.parametrize("wins", [True, False])
def test_compiled_code_is_used_where_it_wins(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wins: bool
) -> None:
    timed: list[str] = []

    def pretend(contestants: dict[str, object], **_: object) -> dict[str, float]:
        timed.extend(contestants)
        return {"plain": 1.0, "ours": 0.5, "ours-compiled": 0.4 if wins else 0.6}

    monkeypatch.setattr(network_case, "time_in_turns", pretend)
    compiled: list[torch.nn.Module] = []

    def record(module: torch.nn.Module) -> None:
        compiled.append(module)

    monkeypatch.setattr(torch.nn.Module, "compile", record)
    with caplog.at_level(logging.INFO, logger="voxlift.bench"):
        (row,) = tiny("train").rows(Setting("cpu", bf16=True, compiler=True))
    assert timed == ["plain", "ours", "ours-compiled"]
    assert [type(module) for module in compiled] == [ResNet]
    assert row.ratio == (2.5 if wins else 2.0)
    assert ("torch.compile wins" in caplog.text) == wins


def test_a_compiler_that_fails_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no linker")

    def broken(module: torch.nn.Module) -> None:
        module.register_forward_pre_hook(fail)

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    with caplog.at_level(logging.WARNING, logger="voxlift.bench"):
        (row,) = tiny("forward").rows(Setting("cpu", bf16=False, compiler=True))
    assert row.ratio > 0
    assert "torch.compile is off, for it failed: no linker" in caplog.text


def test_a_baseline_that_is_not_the_same_is_said_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def others(ours: Classifier, *, device: str) -> list[Baseline]:
        del device
        wrong = plain_network(ours)
        torch.nn.init.ones_(wrong.head.bias[:1])
        return [
            Baseline("wrong", wrong, has_our_weights=True),
            Baseline("foreign", plain_network(ours), has_our_weights=False),
        ]

    monkeypatch.setattr(network_case, "baselines", others)
    rows = list(tiny("forward").rows(Setting("cpu", bf16=False, compiler=False)))
    assert [(row.baseline_name, row.same_function) for row in rows] == [
        ("wrong", False),
        ("foreign", False),
    ]
    assert "wrong computes another function" in caplog.text
    assert "foreign" not in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["train", "forward"])
def test_a_gpu_is_measured_with_its_own_batch(kind: str) -> None:
    (row,) = tiny(kind).rows(Setting("cuda", bf16=True, compiler=False))
    assert row.shape == "4x1x3x32x32"
    assert row.same_function
