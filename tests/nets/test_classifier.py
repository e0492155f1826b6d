import pytest
import torch

from voxlift.core.architecture import Architecture
from voxlift.core.backbone import Backbone
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import named_geometry
from voxlift.nets.classifier import Classifier
from voxlift.nets.resnet import ResNet


@pytest.fixture
def backbone() -> ResNet:
    return ResNet(Architecture(name="resnet10", width=4, stem_kernel=3), named_geometry("small"))


def test_logits_are_the_head_of_the_pooled_map(backbone: ResNet) -> None:
    model = Classifier(backbone, num_classes=3).eval()
    volume = torch.randn(2, 1, 9, 9, 9)
    pooled = backbone(volume)[-1].mean(dim=(2, 3, 4))
    torch.testing.assert_close(model.features(volume), pooled)
    expected = pooled @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(volume), expected)


def test_names_of_the_tensors(backbone: ResNet) -> None:
    names = Classifier(backbone, num_classes=3).state_dict().keys()
    assert names == {f"backbone.{name}" for name in backbone.state_dict()} | {
        "head.weight",
        "head.bias",
    }


def test_dropout_only_in_training(backbone: ResNet) -> None:
    model = Classifier(backbone, num_classes=2, dropout=0.5).eval()
    volume = torch.randn(2, 1, 8, 8, 8)
    torch.testing.assert_close(model(volume), model(volume))
    model.dropout.train()
    assert not torch.equal(model(volume), model(volume))


def test_one_class_is_no_classification(backbone: ResNet) -> None:
    with pytest.raises(ConfigError, match="at least two classes; found 1"):
        Classifier(backbone, num_classes=1)


def test_a_resnet_is_a_backbone(backbone: ResNet) -> None:
    assert isinstance(backbone, Backbone)
