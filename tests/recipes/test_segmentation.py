import pytest

from voxlift.core.geometry import named_geometry
from voxlift.recipes.registry import FINETUNE_RECIPES
from voxlift.recipes.segmentation import bcv, hippocampus, lidc_segment, lits_liver, segment_few

NAMES = ("segment-few", "hippocampus", "msd", "bcv", "lits-liver", "lidc-segment")


def test_bcv_recipe_has_the_papers_numbers() -> None:
    config = bcv()
    assert len(config.class_names) == 13
    assert config.scan.patch_voxels == (32, 256, 256)
    loss = config.loss_function
    assert (loss.loss, loss.dice_weight, loss.ce_weight) == ("dice-ce", 1.0, 0.3)
    rule = config.optimization
    assert (rule.optimizer, rule.lr, rule.schedule) == ("sgd", 0.02, "poly")
    # Sides are classes.
    assert config.augmentation.flip_axes is not None
    assert "width" not in config.augmentation.flip_axes
    assert config.network.geometry == "unet"


def test_lits_recipe_has_the_papers_numbers() -> None:
    config = lits_liver()
    assert config.scan.bounds == (-200.0, 250.0)
    assert config.scan.spacing_mm is not None
    assert config.scan.spacing_mm[0] == 1.0
    loss = config.loss_function
    assert (loss.loss, loss.dice_weight, loss.ce_weight) == ("dice-ce", 0.5, 1.0)
    rule = config.optimization
    assert (rule.optimizer, rule.lr, config.epochs) == ("adam", 1e-4, 500)


def test_lidc_recipe_has_the_papers_head() -> None:
    config = lidc_segment()
    assert config.decoder == "fcn"
    assert (config.loss_function.dice_weight, config.loss_function.ce_weight) == (0.3, 1.0)
    assert (config.optimization.optimizer, config.optimization.lr) == ("adam", 1e-3)
    geometry = named_geometry(config.network.geometry)
    assert geometry.stem_stride == (1, 1, 1)
    assert geometry.pool_stride is None


def test_hippocampus_holds_a_fifth_out_and_chooses_by_nothing() -> None:
    config = hippocampus()
    assert config.fractions == (0.8, 0.2, 0.0)
    assert config.keep == "last"
    assert config.class_names == ("anterior", "posterior")
    assert config.augmentation.resolved(config.class_names).flip_axes == ("depth", "width")
    assert segment_few().network.weights == "tiny"


@pytest.mark.parametrize("name", NAMES)
def test_recipe_can_be_run(name: str) -> None:
    config = FINETUNE_RECIPES[name]()
    assert config.task == "segment"
    patch, geometry = config.scan.patch_voxels, config.network.geometry
    if patch is not None:
        named_geometry(geometry).check_size(patch)
