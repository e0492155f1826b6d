from pathlib import Path

import pytest

from voxlift.core.errors import ConfigError
from voxlift.inference.inspection import try_weights
from voxlift.nets.factory import create_backbone, create_model
from voxlift.weights.header import HeadDescription
from voxlift.weights.save import save_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    backbone = create_backbone("resnet10", width=4, stem=3, geometry="thumbnail")
    return save_weights(backbone, tmp_path / "a.safetensors")


def test_a_backbone_like_the_file_takes_all_of_it(weights: Path) -> None:
    tried = try_weights(weights, "resnet10")
    assert tried.fits
    assert tried.report is not None
    assert tried.report.coverage == 1
    assert not tried.report.geometry
    assert "geometry differs" in try_weights(weights, "resnet10", geometry="volume").summary()


def test_another_depth_width_or_family_takes_none_and_says_why(weights: Path) -> None:
    for name, options, why in (
        ("resnet18", {}, "name is resnet10 in the file, resnet18"),
        ("resnet10", {"width": 8}, "width is 4 in the file, 8"),
        ("resnet10", {"norm": "group"}, "norm is batch in the file, group"),
    ):
        tried = try_weights(weights, name, **options)
        assert tried.fits is False
        assert why in str(tried)


def test_more_channels_are_adapted(weights: Path) -> None:
    tried = try_weights(weights, "resnet10", in_channels=2)
    assert tried.fits
    assert "shared out evenly over 2" in str(tried)


def test_a_model_is_named_by_its_file(weights: Path, tmp_path: Path) -> None:
    backbone = create_backbone("resnet10", width=4, stem=3)
    model = create_model("classify", backbone=backbone, num_classes=2)
    saved = save_weights(backbone, tmp_path / "backbone.safetensors")
    assert try_weights(weights, str(saved)).fits
    whole = save_weights(
        model,
        tmp_path / "model.safetensors",
        head=HeadDescription(task="classify", num_classes=2),
    )
    with pytest.raises(ConfigError, match="describe a backbone by name"):
        try_weights(weights, str(whole), width=3)


def test_impossible_backbones_are_refused(weights: Path) -> None:
    with pytest.raises(ConfigError, match="width"):
        try_weights(weights, "resnet10", width=0)
    with pytest.raises(ConfigError, match="num_slices"):
        try_weights(weights, "mp3d18")


def test_what_is_wrong_with_an_impossible_backbone_is_told_in_words(weights: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        try_weights(weights, "resnet10", in_channels=0)
    assert str(caught.value) == (
        "No backbone can be built like this: in_channels is 0 "
        "(Input should be greater than or equal to 1)."
    )


def test_a_transformer_takes_its_part_of_a_larger_network(tmp_path: Path) -> None:
    backbone = create_backbone("swinunetr", width=12)
    saved = save_weights(backbone, tmp_path / "swinunetr.safetensors")
    tried = try_weights(saved, "swin")
    assert tried.fits
    assert tried.report is not None
    assert tried.report.coverage == 1
    assert "swin, taken out of the swinunetr of the file" in str(tried)
    assert try_weights(saved, "swin_v2").fits is False


def test_a_plain_file_serves_a_network_of_slices(weights: Path) -> None:
    tried = try_weights(weights, "resnet10", num_slices=3)
    assert tried.fits
    assert "group_transform" in str(tried)
