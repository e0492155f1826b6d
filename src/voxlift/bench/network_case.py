"""Time a training step, or a forward pass, of ResNet3D-18 on lifted photographs."""

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from voxlift.bench.networks import Baseline, baselines, computes_the_same, our_network
from voxlift.bench.report import BenchRow
from voxlift.bench.setting import Setting
from voxlift.bench.steps import ForwardPass, PhotographBatch, TrainStep
from voxlift.bench.timing import TimingBudget, time_in_turns
from voxlift.nets.classifier import Classifier
from voxlift.tasks.optimization import OptimizationConfig, build_optimizer
from voxlift.training.hardware import prepare_memory_format

logger = logging.getLogger(__name__)

Step = TrainStep | ForwardPass

_OPTIMIZATION = OptimizationConfig(lr=1e-3)
_BUDGET = TimingBudget()
_EAGER, _COMPILED = "ours", "ours-compiled"


@dataclass(frozen=True)
class NetworkCase:
    """A training step or a forward pass at one size.

    Args:
        name: Name of the rows.
        kind: What is timed.
        size: Edge of the photographs in pixels.
        batch_size: Photographs in a batch on a CPU.
        gpu_batch_size: Photographs in a batch on a GPU.
        width: Channels of the first stage; torchvision's network always has 64.
        num_classes: Number of classes.
        budget: How long to measure.
    """

    name: str
    kind: Literal["train", "forward"]
    size: int
    batch_size: int
    gpu_batch_size: int
    width: int = 64
    num_classes: int = 1000
    budget: TimingBudget = _BUDGET

    def rows(self, setting: Setting) -> Iterator[BenchRow]:
        """Time our side and all alternatives in turns.

        Raises:
            VoxliftError: If our side computes NaN.
        """
        batch = PhotographBatch(
            batch_size=self.batch_size if setting.device == "cpu" else self.gpu_batch_size,
            size=self.size,
            num_classes=self.num_classes,
            device=setting.device,
        )
        ours = our_network(width=self.width, num_classes=self.num_classes)
        same: dict[str, bool] = {}
        contestants: dict[str, Callable[[], object]] = {}
        for baseline in baselines(ours, device=setting.device):
            same[baseline.name] = self._is_same(ours, baseline)
            contestants[baseline.name] = self._baseline_step(baseline, batch)
        contestants |= self._our_steps(ours, batch, setting)

        seconds = time_in_turns(contestants, budget=self.budget, synchronize=setting.synchronize)
        best = self._choose(seconds)
        num_images = len(batch.labels)
        for name, is_same in same.items():
            yield BenchRow.from_rates(
                self.name,
                shape=f"{num_images}x1x3x{self.size}x{self.size}",
                ours=num_images / seconds[best],
                baseline=num_images / seconds[name],
                baseline_name=name,
                same_function=is_same,
            )

    def _is_same(self, ours: Classifier, baseline: Baseline) -> bool:
        if not baseline.has_our_weights:
            return False
        same = computes_the_same(ours, baseline.network)
        if not same:
            logger.warning("%s: %s computes another function than ours", self.name, baseline.name)
        return same

    def _baseline_step(self, baseline: Baseline, batch: PhotographBatch) -> Step:
        network = baseline.network.to(batch.device)
        if self.kind == "forward":
            return ForwardPass(network, batch, bf16=baseline.bf16)
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=_OPTIMIZATION.lr,
            momentum=_OPTIMIZATION.momentum,
            weight_decay=_OPTIMIZATION.weight_decay,
        )
        return TrainStep(network, optimizer, batch, bf16=baseline.bf16)

    def _our_steps(
        self, ours: Classifier, batch: PhotographBatch, setting: Setting
    ) -> dict[str, Step]:
        """Make our step as training does it, and, if it can be, with a compiled backbone."""
        network = prepare_memory_format(ours.to(setting.device), setting.device)
        steps = {_EAGER: self._our_step(network, batch, setting)}
        steps[_EAGER].check()
        if setting.compiler:
            compiled_network = copy.deepcopy(network)
            compiled_network.get_submodule("backbone").compile()
            compiled = self._our_step(compiled_network, batch, setting)
            try:
                compiled.check()
            # What torch's compiler raises; ours, for NaN, are ValueErrors.
            except RuntimeError as error:
                logger.warning("torch.compile is off, for it failed: %s", error)
            else:
                steps[_COMPILED] = compiled
        return steps

    def _our_step(self, network: nn.Module, batch: PhotographBatch, setting: Setting) -> Step:
        if self.kind == "forward":
            return ForwardPass(network, batch, bf16=setting.bf16)
        optimizer = build_optimizer(network, _OPTIMIZATION)
        return TrainStep(network, optimizer, batch, bf16=setting.bf16)

    def _choose(self, seconds: dict[str, float]) -> str:
        """Take our compiled step where it wins, and say so."""
        if _COMPILED not in seconds:
            return _EAGER
        wins = seconds[_COMPILED] < seconds[_EAGER]
        logger.info(
            "%s: torch.compile %s (%.0f ms a batch; eager %.0f ms).",
            self.name,
            "wins" if wins else "does not win, so it is off",
            1000 * seconds[_COMPILED],
            1000 * seconds[_EAGER],
        )
        return _COMPILED if wins else _EAGER
