"""Train each task in bf16 on thin volumes with wide planes; compare each gradient with fp32.

A process of its own, for what `test_bf16_training.py` guards against can end the process. Where the
processor has no AMX, the layers that AMX gets wrong are computed as they are there.
"""

import itertools
import json
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

import voxlift
from voxlift.lifting import conv3d

SIZES = ((3, 224), (5, 112), (8, 96), (9, 64), (12, 80))
"""Depth and edge of the plane."""

LIFTED_SIZES = ((3, 64), (3, 96), (3, 224))
SIZES_OF_TASK = {
    "pretrain": LIFTED_SIZES,
    "classify": SIZES[1:],
    "segment": SIZES,
    "detect": SIZES,
}


def build(task: str, depth: int) -> nn.Module:
    backbone = voxlift.create_backbone(
        "resnet10",
        width=8,
        stem=3,
        norm="group",
        geometry="thumbnail",
        num_slices=depth if task == "detect" else None,
    )
    kind = "classify" if task == "pretrain" else task
    return voxlift.create_model(kind, backbone=backbone, num_classes=2)


def compute_loss(task: str, model: nn.Module, volumes: Tensor) -> Tensor:
    if task == "detect":
        edge = volumes.shape[-1] / 4
        boxes = torch.tensor([[edge, edge, 3 * edge, 3 * edge]])
        targets = [{"boxes": boxes, "labels": torch.tensor([1])} for _ in volumes]
        return torch.stack(list(model(volumes, targets).values())).sum()
    if task == "pretrain":
        volumes = voxlift.lift(volumes[:, 0])
    logits = model(volumes)
    if task == "segment":
        return functional.cross_entropy(logits, (volumes[:, 0] > 0).long())
    return functional.cross_entropy(logits, torch.arange(len(volumes)))


def exact_gradient(conv: nn.Conv3d, volume: Tensor, gradient: Tensor) -> Tensor:
    """Compute the weight gradient in fp32 as a sum over the taps of the kernel."""
    pads = conv._reversed_padding_repeated_twice
    padded = functional.pad(volume.float(), pads)
    taps = torch.zeros_like(conv.weight)
    for d, h, w in itertools.product(*map(range, conv.kernel_size)):
        over, down, along = conv.stride
        seen = padded[:, :, d::over, h::down, w::along]
        depth, height, width = gradient.shape[2:]
        taps[:, :, d, h, w] = torch.einsum(
            "bodhw,bidhw->oi", gradient.float(), seen[:, :, :depth, :height, :width]
        )
    return taps


def largest_error(task: str, depth: int, edge: int) -> float:
    """Return the largest relative error of the weight gradient of a 3D convolution."""
    torch.manual_seed(0)
    model = build(task, depth)
    seen: dict[nn.Module, list[Tensor]] = {}

    def remember(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[conv] = [inputs[0].detach().bfloat16()]
        output.register_hook(lambda gradient: seen[conv].append(gradient.detach()))  # type: ignore[no-untyped-call]

    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv3d)]
    for conv in convolutions:
        conv.register_forward_hook(remember)
    with torch.autocast("cpu", torch.bfloat16):
        loss = compute_loss(task, model, torch.randn(1, 1, depth, edge, edge))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite(), loss
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    errors = []
    for conv in convolutions:
        if conv not in seen:
            continue
        assert conv.weight.grad is not None
        exact = exact_gradient(conv, *seen[conv])
        errors.append(float((conv.weight.grad - exact).norm() / exact.norm()))
    # The stem is folded to a 2D convolution, and so not among them.
    assert len(errors) >= len(convolutions) - 1, (len(errors), len(convolutions))
    return max(errors)


def main() -> None:
    if conv3d.AMX_CACHE_BYTES is None:
        conv3d.AMX_CACHE_BYTES = 1024 * 1024
    for task, sizes in SIZES_OF_TASK.items():
        for depth, edge in sizes:
            found = [task, depth, edge, largest_error(task, depth, edge)]
            sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
