"""Optimizers and learning-rate schedules, from a config."""

import math
from collections.abc import Callable
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from voxlift.core.errors import ConfigError


class OptimizationConfig(BaseModel):
    """How the weights are moved.

    Args:
        optimizer: Update rule.
        lr: Highest learning rate of the run (no unit; for the whole batch size given).
        momentum: Momentum of SGD, or the first beta of Adam.
        nesterov: Use Nesterov's momentum with SGD.
        weight_decay: L2 penalty (SGD, Adam) or decoupled decay (AdamW).
        decay_norms: Decay biases and the weights of norms too, as the paper's recipes do.
        schedule: Course of the learning rate over the steps of the run: `cosine` to 0, `linear` to
            0 (behind a warm-up that is the one-cycle course), `poly` (to 0, by the power 0.9 of
            what is left), `milestones` (a tenth at each), or `constant`.
        warmup: Share of the steps, 0 to 1, in which the rate climbs linearly to its highest.
        warmup_steps: The same in optimizer steps, instead of a share.
        warmup_from: Share of the highest rate, 0 to 1, from which it climbs.
        milestones: Shares of the steps, 0 to 1, at which `milestones` divides the rate by ten.
        gradient_clip: Largest norm of the gradient; 0 for no clipping.
        label_smoothing: Share of each label, 0 to 1, that is spread over all classes.
        ema_decay: Decay of an exponential moving average of the weights, for each step; 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=1e-4, ge=0)
    decay_norms: bool = True
    schedule: Literal["cosine", "linear", "poly", "milestones", "constant"] = "cosine"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_from: float = Field(default=0.0, ge=0, le=1)
    milestones: tuple[float, ...] = ()
    gradient_clip: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup and self.warmup_steps:
            raise ValueError("warmup and warmup_steps give the same length; set one of them.")
        return self


ParameterGroup = dict[str, float | list[nn.Parameter]]


def build_optimizer(
    model: nn.Module, config: OptimizationConfig, *, lr_factor: Callable[[str], float] | None = None
) -> torch.optim.Optimizer:
    """Make the optimizer for all parameters that require a gradient.

    Args:
        model: The network.
        config: What to build.
        lr_factor: Share of the learning rate for a parameter, by its name; 1 for all if None.

    Raises:
        ConfigError: If no parameter requires a gradient.
    """
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 or config.decay_norms else 0.0
            factor = lr_factor(name) if lr_factor else 1.0
            grouped.setdefault((decay, factor), []).append(parameter)
    if not grouped:
        raise ConfigError("No parameter of the network is left to be trained.")
    groups: list[ParameterGroup] = [
        {"params": parameters, "weight_decay": decay, "lr": config.lr * factor}
        for (decay, factor), parameters in grouped.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov
        )
    rule = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return rule(groups, lr=config.lr, betas=(config.momentum, 0.999))


def layer_factor(name: str, layer_decay: float) -> float:
    """Share of the learning rate for a parameter: smaller the earlier its stage is.

    Args:
        name: Of the parameter; what belongs to no stage is the stem if it is the backbone's, else
            the head or decoder, which learns at the full rate.
        layer_decay: Factor from each stage to the one before it.
    """
    for depth, stage in enumerate(("layer4", "layer3", "layer2", "layer1"), start=1):
        if f".{stage}." in f".{name}":
            return float(layer_decay**depth)
    return float(layer_decay**5) if name.startswith("backbone.") else 1.0


def schedule_factor(step: int, *, num_steps: int, config: OptimizationConfig) -> float:
    """Share of the highest learning rate at a step, counted from 0."""
    warmup_steps = config.warmup_steps or round(config.warmup * num_steps)
    if step < warmup_steps:
        return config.warmup_from + (1 - config.warmup_from) * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    match config.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case "poly":
            return float((1 - progress) ** 0.9)
        case "milestones":
            return float(0.1 ** sum(step >= share * num_steps for share in config.milestones))
        case "constant":
            return 1.0
