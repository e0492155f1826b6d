"""Recipes by name."""

from collections.abc import Callable

from voxlift.config import FinetuneConfig, PretrainConfig, SegmentConfig
from voxlift.core.errors import ConfigError
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
    lits_liver,
    msd,
    segment_few,
)
from voxlift.recipes.transfer import classify_few, lidc_classify

PRETRAIN_RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    "photographs": photographs,
    "cifar10-tiny": cifar10_tiny,
    "cifar10-tiny-axes": cifar10_tiny_axes,
    "tiny-imagenet-small": tiny_imagenet_small,
    "imagenet-resnet18": imagenet_resnet18,
    "imagenet-resnet18-fast": imagenet_resnet18_fast,
}
FINETUNE_RECIPES: dict[str, Callable[[], FinetuneConfig | SegmentConfig]] = {
    "classify-few": classify_few,
    "lidc-classify": lidc_classify,
    "segment-few": segment_few,
    "hippocampus": hippocampus,
    "msd": msd,
    "bcv": bcv,
    "lits-liver": lits_liver,
    "lidc-segment": lidc_segment,
}


def pretrain_recipe(name: str) -> PretrainConfig:
    """Look up a recipe for pre-training.

    Raises:
        ConfigError: For an unknown name, with the known ones.
    """
    if name not in PRETRAIN_RECIPES:
        raise ConfigError(f"Unknown recipe {name!r}; known are {', '.join(PRETRAIN_RECIPES)}.")
    return PRETRAIN_RECIPES[name]()


def finetune_recipe(name: str) -> FinetuneConfig | SegmentConfig:
    """Look up a recipe for fine-tuning.

    Raises:
        ConfigError: For an unknown name, with the known ones.
    """
    if name not in FINETUNE_RECIPES:
        raise ConfigError(f"Unknown recipe {name!r}; known are {', '.join(FINETUNE_RECIPES)}.")
    return FINETUNE_RECIPES[name]()
