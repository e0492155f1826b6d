import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from voxlift.core.errors import ConfigError
from voxlift.tasks.optimization import (
    OptimizationConfig,
    build_optimizer,
    layer_factor,
    schedule_factor,
)


def course(num_steps: int, **fields: Any) -> list[float]:
    config = OptimizationConfig.model_validate(fields)
    return [schedule_factor(k, num_steps=num_steps, config=config) for k in range(num_steps + 1)]


def test_cosine_falls_from_one_to_zero() -> None:
    expected = [(1 + math.cos(math.pi * k / 8)) / 2 for k in range(9)]
    assert course(8, schedule="cosine") == pytest.approx(expected)


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    rates = []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert course(8, schedule="cosine") == pytest.approx(rates)


def test_linear_with_warmup() -> None:
    assert course(10, schedule="linear", warmup=0.2) == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    )


def test_a_warmup_in_steps_climbs_from_a_share() -> None:
    rates = course(8, schedule="constant", warmup_steps=4, warmup_from=0.2)
    assert rates == pytest.approx([0.4, 0.6, 0.8] + [1] * 6)
    # The paper's detector: 500 steps from a third, the climb of mmcv's linear warm-up.
    rates = course(
        2000, schedule="milestones", milestones=(0.9,), warmup_steps=500, warmup_from=1 / 3
    )
    mmcv = [1 - (1 - step / 500) * (1 - 1 / 3) for step in range(1, 501)]
    assert rates[:500] == pytest.approx(mmcv)
    assert rates[500] == 1


def test_one_length_of_the_warmup() -> None:
    with pytest.raises(ValidationError, match="set one of them"):
        OptimizationConfig(warmup=0.1, warmup_steps=10)


def test_poly_falls_by_a_power_to_zero() -> None:
    expected = [((8 - k) / 8) ** 0.9 for k in range(9)]
    assert course(8, schedule="poly") == pytest.approx(expected)
    assert course(10, schedule="poly", warmup=0.2)[:3] == [0.5, 1, 1]


def test_milestones_divide_by_ten() -> None:
    rates = course(10, schedule="milestones", milestones=(0.3, 0.6, 0.9))
    assert rates == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3 + [0.001] * 2)


def test_constant() -> None:
    assert course(4, schedule="constant") == [1.0] * 5


@pytest.mark.parametrize("schedule", ["cosine", "linear", "poly", "milestones", "constant"])
def test_no_schedule_leaves_its_range(schedule: str) -> None:
    for num_steps in (1, 2, 7):
        rates = course(num_steps, schedule=schedule, warmup=0.4, milestones=(0.5,))
        assert all(0 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": 0},
        {"momentum": 1},
        {"warmup": 1},
        {"warmup_from": 2},
        {"schedule": "step"},
        {"learning_rate": 1},
    ],
)
def test_settings_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OptimizationConfig.model_validate(fields)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 2, 3, bias=False), nn.BatchNorm3d(2), nn.Linear(2, 2))


def groups(optimizer: torch.optim.Optimizer) -> list[tuple[float, float, int]]:
    return [
        (group["weight_decay"], group["lr"], sum(p.numel() for p in group["params"]))
        for group in optimizer.param_groups
    ]


def test_norms_and_biases_decay_only_if_asked(model: nn.Module) -> None:
    config = OptimizationConfig(lr=0.5, weight_decay=0.25)
    assert groups(build_optimizer(model, config)) == [(0.25, 0.5, 54 + 4 + 6)]
    config = config.model_copy(update={"decay_norms": False})
    assert groups(build_optimizer(model, config)) == [(0.25, 0.5, 54 + 4), (0.0, 0.5, 4 + 2)]


def test_layers_learn_at_their_own_rate(model: nn.Module) -> None:
    config = OptimizationConfig(lr=0.5, weight_decay=0)
    optimizer = build_optimizer(
        model, config, lr_factor=lambda name: 1.0 if name.startswith("2.") else 0.1
    )
    assert groups(optimizer) == [(0, pytest.approx(0.05), 54 + 4), (0, 0.5, 4 + 2)]


def test_frozen_parameters_are_left_out(model: nn.Module) -> None:
    model[0].requires_grad_(requires_grad=False)  # type: ignore[index]
    assert groups(build_optimizer(model, OptimizationConfig()))[0][2] == 4 + 6
    with pytest.raises(ConfigError, match="left to be trained"):
        build_optimizer(model.requires_grad_(requires_grad=False), OptimizationConfig())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_rule_and_its_settings(
    model: nn.Module, name: str, kind: type[torch.optim.Optimizer]
) -> None:
    config = OptimizationConfig.model_validate(
        {"optimizer": name, "momentum": 0.8, "nesterov": True, "lr": 0.3}
    )
    optimizer = build_optimizer(model, config)
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.3
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.8, True)
    else:
        assert group["betas"] == (0.8, 0.999)


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("head.weight", 0),
        ("levels.3.0.0.weight", 0),
        ("heads.0.bias", 0),
        ("merge.0.weight", 0),
        ("backbone.layer4.0.conv1.weight", 1),
        ("backbone.layer3.1.norm2.bias", 2),
        ("backbone.layer2.0.downsample.0.weight", 3),
        ("backbone.layer1.0.conv1.weight", 4),
        ("backbone.conv1.weight", 5),
        ("backbone.norm1.weight", 5),
    ],
)
def test_earlier_stages_have_smaller_factors(name: str, power: int) -> None:
    assert layer_factor(name, 0.7) == pytest.approx(0.7**power)
    assert layer_factor(name, 1.0) == 1
