import pytest
import torch
from torch import nn

from voxlift.core.errors import ConfigError
from voxlift.nets.batch_statistics import gather_statistics
from voxlift.nets.factory import create_backbone
from voxlift.nets.layers import AlwaysBatchNorm3d


def test_statistics_are_those_of_the_volumes() -> None:
    norm = nn.BatchNorm3d(3).eval()
    volumes = 5 + 2 * torch.randn(8, 3, 4, 5, 6)
    assert gather_statistics(norm, [volumes]) == 1
    torch.testing.assert_close(norm.running_mean, volumes.mean((0, 2, 3, 4)))
    torch.testing.assert_close(norm.running_var, volumes.var((0, 2, 3, 4)))
    assert not norm.training
    assert norm.momentum == 0.1


def test_batches_count_by_their_volumes() -> None:
    norm = nn.BatchNorm3d(2)
    batches = [torch.randn(5, 2, 3, 3, 3), 3 + torch.randn(1, 2, 3, 3, 3)]
    gather_statistics(norm, batches)
    means = torch.stack([batch.mean((0, 2, 3, 4)) for batch in batches])
    torch.testing.assert_close(norm.running_mean, (5 * means[0] + means[1]) / 6)
    assert norm.training


def test_the_features_of_the_volumes_are_then_standardised_and_nothing_learnt_changes() -> None:
    backbone = create_backbone("resnet10", width=4, stem=3, geometry="small")
    layer1, layer2 = backbone.get_submodule("layer1"), backbone.get_submodule("layer2")
    layer1.train()
    layer2.eval()
    before = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    volumes = 40 + 9 * torch.randn(6, 1, 9, 9, 9)
    num_norms = sum(isinstance(module, nn.BatchNorm3d) for module in backbone.modules())
    assert gather_statistics(backbone, [volumes]) == num_norms
    assert layer1.training
    assert not layer2.training
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, before[name])
    backbone.eval()
    with torch.no_grad():
        seen = backbone.get_submodule("norm1")(backbone.get_submodule("conv1")(volumes))
    torch.testing.assert_close(seen.mean((0, 2, 3, 4)), torch.zeros(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["group", "instance", "batch_always"])
def test_networks_without_running_statistics_in_use_are_left_alone(norm: str) -> None:
    backbone = create_backbone("resnet10", width=4, stem=3, norm=norm)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert gather_statistics(backbone, [torch.randn(2, 1, 9, 33, 33)]) == 0
    assert all(torch.equal(tensor, before[k]) for k, tensor in backbone.state_dict().items())
    assert (norm == "batch_always") == any(
        isinstance(module, AlwaysBatchNorm3d) for module in backbone.modules()
    )


def test_a_single_voxel_has_no_statistics() -> None:
    backbone = create_backbone("resnet10", width=4, stem=3, geometry="small").eval()
    with pytest.raises(ConfigError, match=r"1 volume\(s\) of \(8, 8, 8\) voxels.*weight file"):
        gather_statistics(backbone, [torch.randn(1, 1, 8, 8, 8)])
    assert not any(module.training for module in backbone.modules())
