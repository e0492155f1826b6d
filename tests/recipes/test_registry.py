import inspect
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from voxlift.config import RunConfig
from voxlift.core.errors import ConfigError
from voxlift.recipes.registry import (
    FINETUNE_RECIPES,
    PRETRAIN_RECIPES,
    finetune_recipe,
    pretrain_recipe,
)
from voxlift.training.run_folder import to_yaml

RECIPES: dict[str, Callable[[], RunConfig]] = {**PRETRAIN_RECIPES, **FINETUNE_RECIPES}


def test_the_promised_recipes_are_there() -> None:
    assert {
        "imagenet-resnet18",
        "imagenet-resnet18-fast",
        "cifar10-tiny",
        "cifar10-tiny-axes",
        "tiny-imagenet-small",
        "photographs",
        "coco-small",
        "coco-p3d63",
    } == set(PRETRAIN_RECIPES)
    assert {
        "classify-few",
        "lidc-classify",
        "segment-few",
        "hippocampus",
        "msd",
        "bcv",
        "lits-liver",
        "lidc-segment",
        "lidc-segment-full",
        "detect-few",
        "deeplesion-mp3d63",
    } == set(FINETUNE_RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_knows_its_name_and_survives_yaml(name: str) -> None:
    config = RECIPES[name]()
    assert config.recipe == name
    assert config.out.name == name
    assert type(config).model_validate(yaml.safe_load(to_yaml(config))) == config
    # No field of another name came in unchecked.
    assert type(config).model_validate(dict(config)) == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_tells_cost_and_command(name: str) -> None:
    documentation = inspect.getdoc(RECIPES[name]) or ""
    assert "Cost: " in documentation
    verb = "pretrain" if name in PRETRAIN_RECIPES else "finetune"
    assert f"Command: `voxlift {verb} --recipe {name}" in documentation


@pytest.mark.parametrize("look_up", [pretrain_recipe, finetune_recipe])
def test_unknown_recipe_lists_the_known(look_up: Callable[[str], Any]) -> None:
    known = PRETRAIN_RECIPES if look_up is pretrain_recipe else FINETUNE_RECIPES
    for name in known:
        assert look_up(name).recipe == name
    with pytest.raises(ConfigError, match=f"'nosuch'.*{', '.join(known)}"):
        look_up("nosuch")
