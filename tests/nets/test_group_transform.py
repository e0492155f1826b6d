import pytest
import torch
from torch import nn

from voxlift.core.errors import ConfigError, DataError
from voxlift.nets.group_transform import GroupTransform, middle_slice, transform_weight


@pytest.mark.parametrize("num_slices", [1, 3, 4, 9, 27])
def test_it_is_a_grouped_convolution_over_channels_times_slices(num_slices: int) -> None:
    transform = GroupTransform(5, num_slices)
    nn.init.normal_(transform.weight)
    reference = nn.Conv2d(5 * num_slices, 5, 1, groups=5, bias=False)
    reference.weight.data = transform.weight.data
    volume = torch.randn(2, 5, num_slices, 3, 4)
    torch.testing.assert_close(transform(volume), reference(volume.reshape(2, -1, 3, 4)))
    by_hand = (volume * transform.weight[None, :, :]).sum(dim=2)
    torch.testing.assert_close(transform(volume), by_hand)


@pytest.mark.parametrize("kind", ["group", "conv3d", "center"])
@pytest.mark.parametrize("num_slices", [3, 4, 9])
def test_it_starts_as_the_middle_slice(kind: str, num_slices: int) -> None:
    transform = GroupTransform(6, num_slices, kind=kind)  # type: ignore[arg-type]
    volume = torch.randn(2, 6, num_slices, 3, 4)
    assert middle_slice(num_slices) == num_slices // 2
    torch.testing.assert_close(transform(volume), volume[:, :, num_slices // 2])


@pytest.mark.parametrize("kind", ["group", "conv3d"])
def test_it_can_start_as_the_mean(kind: str) -> None:
    transform = GroupTransform(6, 9, kind=kind, start="mean")  # type: ignore[arg-type]
    volume = torch.randn(2, 6, 9, 3, 4)
    torch.testing.assert_close(transform(volume), volume.mean(dim=2))


def test_parameters_of_each_kind() -> None:
    def count(kind: str) -> int:
        transform = GroupTransform(6, 9, kind=kind)  # type: ignore[arg-type]
        return sum(p.numel() for p in transform.parameters())

    assert (count("group"), count("conv3d"), count("center")) == (54, 324, 0)


def test_gradients_reach_every_slice() -> None:
    transform = GroupTransform(4, 3)
    volume = torch.randn(1, 4, 3, 2, 2)
    transform(volume).square().sum().backward()
    assert transform.weight.grad is not None
    assert (transform.weight.grad != 0).all()


def test_other_slices_kinds_and_starts_are_refused() -> None:
    with pytest.raises(DataError, match=r"takes 9 slices and was given 7.*num_slices=7"):
        GroupTransform(4, 9)(torch.zeros(1, 4, 7, 2, 2))
    with pytest.raises(ConfigError, match="Unknown slice transform 'max'; known are 'group'"):
        GroupTransform(4, 9, kind="max")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Unknown start 'zero'"):
        transform_weight(4, 9, start="zero")  # type: ignore[arg-type]
    assert "num_slices=9" in repr(GroupTransform(4, 9))
