import pytest

from voxlift.config import PretrainConfig
from voxlift.experiment import _photograph_geometry
from voxlift.nets.factory import list_backbones
from voxlift.recipes.pretraining import (
    cifar10_tiny,
    cifar10_tiny_axes,
    imagenet_resnet18,
    imagenet_resnet18_fast,
    photographs,
)
from voxlift.recipes.registry import PRETRAIN_RECIPES


def test_paper_recipe_has_the_papers_numbers() -> None:
    """From the paper's public configuration for ImageNet."""
    config = imagenet_resnet18()
    assert (config.epochs, config.batch_size, config.image_size) == (100, 256, 224)
    assert config.network.backbone == "resnet18"
    assert config.network.weights == "scratch"
    assert (config.network.width, config.network.stem) == (None, None)  # 64 channels, 7 voxels
    assert config.slice_shuffle
    assert not config.axis_shuffle
    assert config.augmentation.crop == "random-resized"
    assert config.augmentation.area == (0.08, 1.0)
    assert config.augmentation.flip_probability == 0.5
    rule = config.optimization
    assert (rule.optimizer, rule.lr, rule.momentum, rule.weight_decay) == ("sgd", 0.1, 0.9, 1e-4)
    assert (rule.schedule, rule.warmup, rule.label_smoothing) == ("cosine", 0.0, 0.1)
    assert not rule.nesterov
    assert rule.decay_norms
    geometry = _photograph_geometry(config)
    assert geometry.stem_stride == (1, 2, 2)
    assert geometry.pool_stride == (1, 2, 2)
    assert geometry.stage_strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))


def test_fast_recipe_costs_a_ninth_of_the_papers() -> None:
    fast, paper = imagenet_resnet18_fast(), imagenet_resnet18()
    pixels = [
        sum(config.size_at(epoch) ** 2 for epoch in range(config.epochs))
        for config in (fast, paper)
    ]
    assert 8 < pixels[1] / pixels[0] < 10


def test_tiny_starts_differ_in_axis_shuffle() -> None:
    plain, axes = cifar10_tiny(), cifar10_tiny_axes()
    assert not plain.axis_shuffle
    assert axes.axis_shuffle
    assert plain.network == axes.network
    assert (plain.network.width, plain.network.stem) == (16, 3)
    assert plain.network.geometry == "thumbnail"


def test_photographs_need_no_file() -> None:
    assert photographs().data == "photographs"


@pytest.mark.parametrize("name", PRETRAIN_RECIPES)
def test_recipe_can_be_run(name: str) -> None:
    config = PRETRAIN_RECIPES[name]()
    assert config.network.backbone in (None, *list_backbones())
    if isinstance(config, PretrainConfig):
        _photograph_geometry(config)
