import pytest
import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import named_geometry
from voxlift.nets.classifier import Classifier
from voxlift.nets.norm import NormMode, apply_norm_mode
from voxlift.nets.resnet import ResNet


@pytest.fixture(params=[2, 3])
def backbone(request: pytest.FixtureRequest) -> ResNet:
    architecture = Architecture(name="resnet10", ndim=request.param, width=16, stem_kernel=3)
    network = ResNet(architecture, named_geometry("thumbnail"))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.weight, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 2)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
    return network


def volumes(backbone: ResNet) -> Tensor:
    return torch.randn(2, 1, *(8,) * backbone.architecture.ndim)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_train_changes_nothing(backbone: ResNet) -> None:
    kinds = [type(module) for module in backbone.modules()]
    apply_norm_mode(backbone, "train")
    assert [type(module) for module in backbone.modules()] == kinds


def test_frozen_norms_use_and_keep_the_running_statistics(backbone: ResNet) -> None:
    batch = volumes(backbone)
    expected = backbone.eval()(batch)[-1]
    before = tensors(backbone)
    apply_norm_mode(backbone, "frozen")
    model = Classifier(backbone, num_classes=2).train()
    assert model.training
    torch.testing.assert_close(backbone(batch)[-1], expected)
    backbone(batch)[-1].sum().backward()
    torch.testing.assert_close(tensors(backbone), before, rtol=0, atol=0)
    # Scale and shift are still learnt.
    scale = backbone.get_parameter("norm1.weight")
    assert scale.grad is not None
    assert scale.grad.abs().sum() > 0


def test_group_norms_keep_scale_and_shift(backbone: ResNet) -> None:
    before = tensors(backbone)
    apply_norm_mode(backbone, "group")
    after = backbone.state_dict()
    assert backbone.architecture.norm == "group"
    assert after.keys() == {
        name for name in before if "running" not in name and "tracked" not in name
    }
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    # What is saved can be built again.
    rebuilt = ResNet(backbone.architecture, backbone.geometry)
    rebuilt.load_state_dict(after)
    batch = volumes(backbone)
    torch.testing.assert_close(rebuilt(batch)[-1], backbone(batch)[-1], rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["train", "group"])
def test_group_norms_are_left_alone(mode: NormMode) -> None:
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3, norm="group")
    network = ResNet(architecture, named_geometry("small"))
    before = tensors(network)
    apply_norm_mode(network, mode)
    torch.testing.assert_close(tensors(network), before, rtol=0, atol=0)


def test_an_unknown_mode_is_refused(backbone: ResNet) -> None:
    with pytest.raises(ConfigError, match="'eval'; known are train, frozen and group"):
        apply_norm_mode(backbone, "eval")  # type: ignore[arg-type]


def test_norms_that_always_use_the_batch_are_not_frozen() -> None:
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3, norm="batch_always")
    network = ResNet(architecture, named_geometry("small"))
    batch = torch.randn(3, 1, 8, 8, 8)
    always = network.eval()(batch)[-1]
    torch.testing.assert_close(always, network.train()(batch)[-1])
    with pytest.raises(ConfigError, match="norm='batch'"):
        apply_norm_mode(network, "frozen")


def test_group_norms_have_nothing_to_freeze() -> None:
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3, norm="group")
    network = ResNet(architecture, named_geometry("small"))
    with pytest.raises(ConfigError, match=r"'frozen' is for batch norm; .* group norm.*'train'"):
        apply_norm_mode(network, "frozen")


@pytest.mark.parametrize("mode", ["frozen", "group"])
def test_instance_norm_has_nothing_to_change(mode: NormMode) -> None:
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3, norm="instance")
    network = ResNet(architecture, named_geometry("small"))
    with pytest.raises(ConfigError, match=r"instance norm.*'train'"):
        apply_norm_mode(network, mode)
    assert network.architecture.norm == "instance"
