"""Compare batch-norm statistics shared over the axis orders with statistics kept for each order.

    python scripts/measure_axis_statistics.py runs/cifar10-tiny-axes --data FOLDER_OF_CIFAR10

In training every batch has one order, so statistics "kept for each" are those that the training
photographs give in that order; they are gathered here, from the finished weights.
"""

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from voxlift.core.files import write_text
from voxlift.core.geometry import AXIS_ORDERS, AxisOrder
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.image_batches import image_loader
from voxlift.data.image_source import open_images
from voxlift.inference.saved_model import load_model
from voxlift.lifting.image_to_volume import lift
from voxlift.lifting.turn import turned_parameters
from voxlift.tasks.pretrain import normalize
from voxlift.training.run_folder import describe_environment

BATCH_SIZE = 256


def main() -> None:
    """Measure both, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of the finished pre-training")
    parser.add_argument("--data", required=True, help="CIFAR-10 as class-per-folder images")
    parser.add_argument("--images", type=int, default=2000, help="test images for each order")
    parser.add_argument("--batches", type=int, default=16, help="batches that statistics come from")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    model = load_model(arguments.run).networks[0]
    train, test = _volumes(arguments.data, "train"), _volumes(arguments.data, "val")
    calibration = [next(train)[0] for _ in range(arguments.batches)]
    cases = [next(test) for _ in range(-(-arguments.images // BATCH_SIZE))]
    rows = []
    for order in AXIS_ORDERS:
        own = _with_own_statistics(model, calibration, order)
        row = {
            "order": list(order),
            "shared": _accuracy(model, cases, order),
            "kept_for_each": _accuracy(own, cases, order),
        }
        rows.append(row)
        print(row)
    content = {
        "metric": "top-1 accuracy on test photographs",
        "num_images": sum(len(labels) for _, labels in cases),
        "calibration_images": BATCH_SIZE * arguments.batches,
        "rows": rows,
        "environment": describe_environment(),
    }
    write_text(arguments.json, json.dumps(content, indent=2) + "\n")


def _volumes(
    data: str, split: Literal["train", "val"]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    loader = image_loader(
        open_images(data, split=split),
        batch_size=BATCH_SIZE,
        size=32,
        augmentation=ImageAugmentation.for_evaluation(),
        seed=0,
    )
    for batch in loader:
        yield lift(normalize(batch["image"])), batch["label"]


def _call(model: nn.Module, volumes: torch.Tensor, order: AxisOrder) -> torch.Tensor:
    turned = turned_parameters(model, order)
    logits: torch.Tensor = torch.func.functional_call(model, turned, (volumes,))
    return logits


@torch.no_grad()
def _with_own_statistics(
    model: nn.Module, batches: list[torch.Tensor], order: AxisOrder
) -> nn.Module:
    own = copy.deepcopy(model)
    for norm in own.modules():
        if isinstance(norm, nn.BatchNorm3d):
            norm.reset_running_stats()
            norm.momentum = None
    own.train()
    for volumes in batches:
        _call(own, volumes, order)
    return own.eval()


@torch.no_grad()
def _accuracy(
    model: nn.Module, cases: list[tuple[torch.Tensor, torch.Tensor]], order: AxisOrder
) -> float:
    right = sum(int((_call(model, v, order).argmax(1) == y).sum()) for v, y in cases)
    return right / sum(len(labels) for _, labels in cases)


if __name__ == "__main__":
    main()
