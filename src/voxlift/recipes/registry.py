"""Recipes by name."""

from collections.abc import Callable

from voxlift.config import DetectConfig, FinetuneConfig, PretrainConfig, SegmentConfig
from voxlift.core.errors import ConfigError
from voxlift.recipes.detection import coco_p3d63, coco_small, deeplesion_mp3d63, detect_few
from voxlift.recipes.pretraining import (
    cifar10_tiny,
    cifar10_tiny_axes,
    imagenet_resnet18,
    imagenet_resnet18_fast,
    photographs,
    tiny_imagenet_small,
)
from voxlift.recipes.segmentation import (
    bcv,
    hippocampus,
    lidc_segment,
    lidc_segment_full,
    lits_liver,
    msd,
    segment_few,
)
from voxlift.recipes.transfer import classify_few, lidc_classify

PRETRAIN_RECIPES: dict[str, Callable[[], PretrainConfig | DetectConfig]] = {
    "photographs": photographs,
    "cifar10-tiny": cifar10_tiny,
    "cifar10-tiny-axes": cifar10_tiny_axes,
    "tiny-imagenet-small": tiny_imagenet_small,
    "imagenet-resnet18": imagenet_resnet18,
    "imagenet-resnet18-fast": imagenet_resnet18_fast,
    "coco-small": coco_small,
    "coco-p3d63": coco_p3d63,
}
FINETUNE_RECIPES: dict[str, Callable[[], FinetuneConfig | SegmentConfig | DetectConfig]] = {
    "classify-few": classify_few,
    "lidc-classify": lidc_classify,
    "segment-few": segment_few,
    "hippocampus": hippocampus,
    "msd": msd,
    "bcv": bcv,
    "lits-liver": lits_liver,
    "lidc-segment": lidc_segment,
    "lidc-segment-full": lidc_segment_full,
    "detect-few": detect_few,
    "deeplesion-mp3d63": deeplesion_mp3d63,
}


def pretrain_recipe(name: str) -> PretrainConfig | DetectConfig:
    """Look up a recipe for pre-training.

    Raises:
        ConfigError: For an unknown name, with the known ones.
    """
    if name not in PRETRAIN_RECIPES:
        raise ConfigError(f"Unknown recipe {name!r}; known are {', '.join(PRETRAIN_RECIPES)}.")
    return PRETRAIN_RECIPES[name]()


def finetune_recipe(name: str) -> FinetuneConfig | SegmentConfig | DetectConfig:
    """Look up a recipe for fine-tuning.

    Raises:
        ConfigError: For an unknown name, with the known ones.
    """
    if name not in FINETUNE_RECIPES:
        raise ConfigError(f"Unknown recipe {name!r}; known are {', '.join(FINETUNE_RECIPES)}.")
    return FINETUNE_RECIPES[name]()
