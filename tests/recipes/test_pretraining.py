from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from voxlift.config import MachineConfig, PretrainConfig
from voxlift.experiment import _image_loader, _open_images, _photograph_geometry
from voxlift.nets.factory import list_backbones
from voxlift.recipes.pretraining import (
    cifar10_tiny,
    cifar10_tiny_axes,
    imagenet_resnet18,
    imagenet_resnet18_fast,
    photographs,
)
from voxlift.recipes.registry import PRETRAIN_RECIPES


def test_paper_recipe_has_the_papers_network() -> None:
    """From the paper's public configuration for ImageNet."""
    config = imagenet_resnet18()
    assert config.network.weights == "scratch"
    assert (config.network.width, config.network.stem) == (None, None)  # 64 channels, 7 voxels
    assert not config.axis_shuffle
    rule = config.optimization
    assert not rule.nesterov
    assert rule.decay_norms
    assert rule.warmup == rule.warmup_steps == 0
    geometry = _photograph_geometry(config)
    assert geometry.stem_stride == (1, 2, 2)
    assert geometry.pool_stride == (1, 2, 2)
    assert geometry.stage_strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))


def test_validation_takes_the_central_224_of_256_pixels(tmp_path: Path) -> None:
    """Of an image whose shorter side has 256 pixels nothing has to be scaled."""
    pixels = np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    config = imagenet_resnet18().model_copy(
        update={"data": str(tmp_path), "machine": MachineConfig()}
    )
    loader = _image_loader(_open_images(config, "val"), config, training=False)
    images = next(iter(loader))["image"].numpy()
    np.testing.assert_array_equal(images[0].transpose(1, 2, 0), pixels[16:240, 38:262])


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
