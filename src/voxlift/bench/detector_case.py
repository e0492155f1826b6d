"""Time a training step, or an answer, of the paper's networks on slices of DeepLesion's size."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from voxlift.bench.report import BenchRow
from voxlift.bench.setting import Setting
from voxlift.bench.timing import TimingBudget, time_in_turns
from voxlift.core.randomness import torch_generator
from voxlift.core.types import Triple
from voxlift.nets.detector import Detector
from voxlift.nets.factory import create_backbone, create_model
from voxlift.tasks.detect import total
from voxlift.training.hardware import prepare_memory_format

_OURS, _PLAIN = "ours", "plain-fp32-eager"
_BUDGET = TimingBudget(num_warmup=1, num_rounds=5, seconds=60.0)
_SMALL = 64
_ROUNDING = 1e-8


@dataclass(frozen=True)
class DetectorCase:
    """One network at one size: MP3D as a Faster R-CNN of one class, P3D as a backbone alone.

    Args:
        name: Name of the rows.
        backbone: `mp3d63`, `p3d63` or a smaller one.
        kind: What is timed: a training step, or the answer of the trained network.
        size_voxels: Of a volume.
        batch_size: Volumes in a batch.
        width: Channels of the first stage.
        budget: How long to measure.
    """

    name: str
    backbone: str
    kind: Literal["train", "forward"]
    size_voxels: Triple = (9, 512, 512)
    batch_size: int = 1
    width: int = 64
    budget: TimingBudget = _BUDGET

    def rows(self, setting: Setting) -> Iterator[BenchRow]:
        """Time ours and plain code in turns; on CUDA also compare the memory that they take."""
        torch.manual_seed(0)
        network = self._network()
        same = self._is_same(network)
        plain = copy.deepcopy(network).to(setting.device)
        ours = prepare_memory_format(network.to(setting.device), setting.device)
        steps: dict[str, Callable[[], object]] = {
            _PLAIN: self._step(plain, setting, bf16=False),
            _OURS: self._step(ours, setting, bf16=setting.bf16),
        }
        seconds = time_in_turns(steps, budget=self.budget, synchronize=setting.synchronize)
        shape = "x".join(map(str, (self.batch_size, 1, *self.size_voxels)))
        yield BenchRow.from_rates(
            self.name,
            shape=shape,
            ours=self.batch_size / seconds[_OURS],
            baseline=self.batch_size / seconds[_PLAIN],
            baseline_name=_PLAIN,
            same_function=same,
        )
        if setting.device == "cuda":
            taken_gb = {name: _peak_gb(step) for name, step in steps.items()}
            yield BenchRow(
                name=f"{self.name}-memory",
                shape=shape,
                ours=taken_gb[_OURS],
                baseline=taken_gb[_PLAIN],
                unit="GB",
                ratio=round(taken_gb[_PLAIN] / taken_gb[_OURS], 3),
                baseline_name=_PLAIN,
                same_function=same,
            )

    def _network(self) -> nn.Module:
        if not self.backbone.startswith("m"):
            return create_backbone(self.backbone, width=self.width)
        backbone = create_backbone(self.backbone, width=self.width, num_slices=self.size_voxels[0])
        return create_model("detect", backbone=backbone, num_classes=1)

    def _is_same(self, network: nn.Module) -> bool:
        """Compare feature maps in double precision, at a small size."""
        backbone = network.backbone if isinstance(network, Detector) else network
        plain = copy.deepcopy(backbone).double().eval()
        ours = prepare_memory_format(copy.deepcopy(plain), "cpu")
        volume = self._volumes(height=_SMALL, width=_SMALL).double()
        with torch.no_grad():
            pairs = zip(plain(volume), ours(volume), strict=True)
            return all(
                float((a - b).abs().max()) <= _ROUNDING * float(a.abs().max()) for a, b in pairs
            )

    def _volumes(self, *, height: int, width: int) -> Tensor:
        shape = (self.batch_size, 1, self.size_voxels[0], height, width)
        return torch.randn(shape, generator=torch_generator(0, "bench-detector"))

    def _step(self, network: nn.Module, setting: Setting, *, bf16: bool) -> Callable[[], object]:
        _, height, width = self.size_voxels
        volumes = self._volumes(height=height, width=width).to(setting.device)
        autocast = torch.autocast(setting.device, torch.bfloat16, enabled=bf16)
        if self.kind == "forward":
            network.eval()

            def answer() -> object:
                with torch.inference_mode(), autocast:
                    return network(volumes)

            return answer
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
        boxes = torch.tensor([[0.2, 0.2, 0.3, 0.3], [0.6, 0.5, 0.7, 0.65]])
        target = {
            "boxes": (boxes * torch.tensor([width, height] * 2)).to(setting.device),
            "labels": torch.zeros(len(boxes), dtype=torch.int64, device=setting.device),
        }

        def train() -> object:
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                if isinstance(network, Detector):
                    loss = total(network(volumes, [target] * self.batch_size))
                else:
                    loss = torch.stack(
                        [each.float().square().mean() for each in network(volumes)]
                    ).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return loss.detach()

        return train


def _peak_gb(step: Callable[[], object]) -> float:
    """Measure the most memory that a step takes on CUDA, its network's included."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 1e9, 3)
