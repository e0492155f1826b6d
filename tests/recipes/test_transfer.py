from voxlift.core.geometry import named_geometry
from voxlift.recipes.transfer import classify_few, lidc_classify


def test_lidc_recipe_has_the_papers_numbers() -> None:
    """From the paper's public configuration for nodules."""
    config = lidc_classify()
    assert config.volume.size_voxels == (48, 48, 48)
    assert (config.epochs, config.batch_size) == (100, 32)
    assert config.augmentation.shift_voxels == 5
    assert config.augmentation.rotation == "quarter-turns"
    assert config.augmentation.flip_axes == ("depth", "height", "width")
    rule = config.optimization
    assert (rule.optimizer, rule.lr, rule.weight_decay) == ("adam", 5e-4, 1e-4)
    assert rule.schedule == "milestones"
    assert [share * config.epochs for share in rule.milestones] == [30, 60, 90]
    # Depth is strided as height and width are.
    for stride in named_geometry(config.network.geometry).strides:
        assert len(set(stride)) == 1
    named_geometry(config.network.geometry).check_size((48, 48, 48))


def test_recipe_for_few_labels_is_cautious() -> None:
    config = classify_few()
    assert config.network.weights == "tiny"
    assert config.head_warmup > 0
    assert config.layer_decay < 1
    assert config.patience > 0
