from voxlift.core.geometry import named_geometry
from voxlift.recipes.transfer import classify_few, lidc_classify


def test_lidc_recipe_strides_depth_as_height_and_width() -> None:
    config = lidc_classify()
    assert [share * config.epochs for share in config.optimization.milestones] == [30, 60, 90]
    for stride in named_geometry(config.network.geometry).strides:
        assert len(set(stride)) == 1
    named_geometry(config.network.geometry).check_size((48, 48, 48))


def test_recipe_for_few_labels_is_cautious() -> None:
    config = classify_few()
    assert config.network.weights == "tiny"
    assert config.head_warmup > 0
    assert config.layer_decay < 1
    assert config.patience > 0
