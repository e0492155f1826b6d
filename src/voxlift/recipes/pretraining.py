"""Recipes for pre-training on labelled photographs."""

from pathlib import Path

from voxlift.config import MachineConfig, NetworkConfig, PretrainConfig
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
        network=NetworkConfig(backbone="resnet18", width=16, stem=3, geometry="thumbnail"),
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

    Cost: about half an hour on two CPU cores with AVX512-BF16.
    Command: `voxlift pretrain --recipe cifar10-tiny-axes --data cifar10 --download`.
    """
    return PretrainConfig.model_validate(
        {
            **dict(cifar10_tiny()),
            "recipe": "cifar10-tiny-axes",
            "out": Path("runs/cifar10-tiny-axes"),
            "epochs": 8,
            "progressive_sizes": ((0.7, 24),),
            "axis_shuffle": True,
        }
    )


def photographs() -> PretrainConfig:
    """Pre-train for two minutes on the ten photographs that ship with Voxlift's dependencies.

    A demonstration without any download: the classes are which photograph a crop comes from.

    Cost: about two minutes on two CPU cores.
    Command: `voxlift pretrain --recipe photographs`.
    """
    return PretrainConfig(
        recipe="photographs",
        data="photographs",
        out=Path("runs/photographs"),
        epochs=6,
        batch_size=64,
        image_size=32,
        network=NetworkConfig(backbone="resnet18", width=16, stem=3, geometry="thumbnail"),
        augmentation=ImageAugmentation(crop="pad", pad_pixels=4),
        optimization=OptimizationConfig(
            lr=0.1, nesterov=True, weight_decay=5e-4, schedule="linear", warmup=0.15
        ),
    )


def tiny_imagenet_small() -> PretrainConfig:
    """Pre-train a ResNet3D-18 of width 32 on lifted 64-pixel photographs.

    Made for Tiny-ImageNet (200 classes); any folder of classes will do.

    Cost: for 100,000 images about 20 minutes on a GPU, a day on two CPU cores. Not yet run to its
    end by the authors.
    Command: `voxlift pretrain --recipe tiny-imagenet-small --data FOLDER`.
    """
    return PretrainConfig(
        recipe="tiny-imagenet-small",
        data="tiny-imagenet",
        out=Path("runs/tiny-imagenet-small"),
        epochs=30,
        batch_size=128,
        image_size=64,
        progressive_sizes=((0.4, 48),),
        network=NetworkConfig(backbone="resnet18", width=32, stem=5, geometry="thumbnail"),
        augmentation=ImageAugmentation(area=(0.35, 1.0)),
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


def imagenet_resnet18() -> PretrainConfig:
    """Pre-train ResNet3D-18 on lifted ImageNet by the paper's recipe.

    SGD of rate 0.1, momentum 0.9, decay 1e-4, cosine to 0 over 100 epochs, batches of 256, label
    smoothing 0.1, random resized crops of 224 pixels, flips, slice shuffle, blocks that start as
    their shortcuts, fp16; validation on the central 224 pixels of images of 256. `FOLDER` holds
    `train/` with class folders, and `val/` with class folders or, as ImageNet is published, with
    the images themselves and a list (`meta/val.txt` or the development kit).

    Source: arXiv 2201.01426 and its public configuration; the published file's name says 73.07 %
    top-1. What differs is in the reference of the recipes.
    Cost: the paper's took 7 days on 8 Titan XP. fp16 needs CUDA; elsewhere give `--precision auto`.
    Command: `voxlift pretrain --recipe imagenet-resnet18 --data FOLDER`.
    """
    return PretrainConfig(
        recipe="imagenet-resnet18",
        data="imagenet",
        out=Path("runs/imagenet-resnet18"),
        epochs=100,
        batch_size=256,
        image_size=224,
        val_center_fraction=0.875,
        network=NetworkConfig(backbone="resnet18", geometry="pretrain", zero_init_residual=True),
        # Differs from the paper: the factor of the loss adapts itself; the paper's is 512.
        machine=MachineConfig(workers=8, precision="fp16"),
        optimization=OptimizationConfig(lr=0.1, weight_decay=1e-4, label_smoothing=0.1),
    )


def imagenet_resnet18_fast() -> PretrainConfig:
    """Pre-train ResNet3D-18 on lifted ImageNet in a fraction of the paper's time.

    Differs from the paper: 18 epochs instead of 100, batches of 1024 at a higher rate with warm-up
    and Nesterov's momentum, no decay of norms, crops of at least a quarter, progressive resizing
    (128, 160, 192, then 224 pixels), averaged weights, bf16 where the hardware has it,
    torch.compile.

    Cost: the pixels of about 11 epochs at 224 pixels instead of 100, so about a ninth of the
    paper's arithmetic; not yet run to its end by the authors.
    Command: `voxlift pretrain --recipe imagenet-resnet18-fast --data FOLDER`.
    """
    return PretrainConfig(
        recipe="imagenet-resnet18-fast",
        data="imagenet",
        out=Path("runs/imagenet-resnet18-fast"),
        epochs=18,
        batch_size=1024,
        image_size=224,
        progressive_sizes=((0.3, 128), (0.55, 160), (0.8, 192)),
        val_center_fraction=0.875,
        network=NetworkConfig(backbone="resnet18", geometry="pretrain", zero_init_residual=True),
        machine=MachineConfig(workers=12, compile=True),
        augmentation=ImageAugmentation(area=(0.25, 1.0)),
        optimization=OptimizationConfig(
            lr=1.0,
            nesterov=True,
            weight_decay=5e-5,
            decay_norms=False,
            warmup=0.12,
            label_smoothing=0.1,
            ema_decay=0.999,
        ),
    )
