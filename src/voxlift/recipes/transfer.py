"""Recipes for fine-tuning on labelled volumes."""

from pathlib import Path

from voxlift.config import FinetuneConfig, NetworkConfig, VolumeConfig
from voxlift.data.classification_batches import VolumeAugmentation
from voxlift.tasks.optimization import OptimizationConfig


def classify_few() -> FinetuneConfig:
    """Fine-tune a bundled start with few labels, on a laptop.

    The head warms up alone, early layers learn slower than late ones, and the run stops when
    validation no longer gains.

    Cost: about a minute on two CPU cores for 100 volumes of 32^3.
    Command: `voxlift finetune --recipe classify-few --data manifest.csv`.
    """
    return FinetuneConfig(
        recipe="classify-few",
        data="manifest.csv",
        out=Path("runs/classify-few"),
        epochs=40,
        batch_size=8,
        head_warmup=0.1,
        layer_decay=0.7,
        patience=10,
        network=NetworkConfig(weights="tiny"),
        augmentation=VolumeAugmentation(shift_voxels=2, flip_axes=("depth", "height", "width")),
        optimization=OptimizationConfig(
            optimizer="adamw", lr=1e-3, weight_decay=0.05, decay_norms=False, warmup=0.1
        ),
    )


def lidc_classify() -> FinetuneConfig:
    """Classify LIDC-IDRI nodules as benign or malignant by the paper's recipe.

    48^3 crops at 1 mm with random shifts, quarter turns and at most one flip; strides on all axes;
    Adam, warmed up over 50 steps, the rate divided by ten at 30, 60 and 90 of 100 epochs.

    Source: arXiv 2201.01426, section on LIDC classification (accuracy and AUC), and its public
    configuration; what differs is in the reference of the recipes.
    Cost: for the paper's network (width 64) a GPU is needed; about an hour.
    Command: `voxlift finetune --recipe lidc-classify --data FOLDER --weights FILE`.
    """
    return FinetuneConfig(
        recipe="lidc-classify",
        data="lidc",
        out=Path("runs/lidc-classify"),
        epochs=100,
        # Differs from the paper: 32 on each of four GPUs, by the name of its configuration.
        batch_size=32,
        network=NetworkConfig(geometry="volume"),
        volume=VolumeConfig(size_voxels=(48, 48, 48), mean_std=(99.2565, 77.3798)),
        augmentation=VolumeAugmentation(
            shift_voxels=5,
            # Differs from the paper: all 24 turns are as likely; of its three in turn, some more.
            rotation="quarter-turns",
            flip_axes=("depth", "height", "width"),
            flip_at_most_one=True,
        ),
        optimization=OptimizationConfig(
            optimizer="adam",
            lr=5e-4,
            weight_decay=1e-4,
            schedule="milestones",
            milestones=(0.3, 0.6, 0.9),
            # Differs from the paper: its public configuration keeps to a tenth for these steps,
            # and then jumps.
            warmup_steps=50,
            warmup_from=0.1,
        ),
    )
