"""Recipes for pre-training on labelled photographs."""

from pathlib import Path

from voxlift.config import NetworkConfig, PretrainConfig
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.tasks.optimization import OptimizationConfig


def cifar10_tiny() -> PretrainConfig:
    """Pre-train the bundled `tiny` start: ResNet3D-18 of width 16 on lifted CIFAR-10.

    Expected: at least 82 % test top-1. Cost: about 30 minutes on two CPU cores with AVX512-BF16.
    Command: `voxlift pretrain --recipe cifar10-tiny --data cifar10 --download`.
    """
    return PretrainConfig(
        recipe="cifar10-tiny",
        data="cifar10",
        out=Path("runs/cifar10-tiny"),
        epochs=14,
        batch_size=128,
        image_size=32,
        progressive_sizes=((0.4, 24),),
        network=NetworkConfig(width=16, stem=3, geometry="thumbnail"),
        augmentation=ImageAugmentation(crop="pad", pad_pixels=4),
        optimization=OptimizationConfig(
            lr=0.2,
            nesterov=True,
            weight_decay=5e-4,
            decay_norms=False,
            schedule="linear",
            warmup=0.15,
            label_smoothing=0.1,
        ),
    )


def cifar10_tiny_axes() -> PretrainConfig:
    """Pre-train the bundled `tiny-axes` start: as `cifar10-tiny`, with axis shuffle.

    Differs from the paper: each batch is laid out in one of the six axis orders, so that the
    kernels meet photographs in every orientation.

    Cost: about 40 minutes on two CPU cores with AVX512-BF16.
    Command: `voxlift pretrain --recipe cifar10-tiny-axes --data cifar10 --download`.
    """
    return cifar10_tiny().model_copy(
        update={
            "recipe": "cifar10-tiny-axes",
            "out": Path("runs/cifar10-tiny-axes"),
            "epochs": 20,
            "progressive_sizes": ((0.5, 24),),
            "axis_shuffle": True,
        }
    )
