import pytest
import torch
from torch import nn

from voxlift.nets.decoder import conv_norm_relu, output_convolution, resize_to
from voxlift.nets.layers import GroupNorm


def test_a_map_of_the_wanted_size_is_returned_as_it_is() -> None:
    volume = torch.randn(1, 2, 3, 4, 5)
    assert resize_to(volume, (3, 4, 5)) is volume


def test_resizing_is_linear_between_the_middles_of_voxels() -> None:
    volume = torch.tensor([0.0, 4.0]).reshape(1, 1, 2, 1, 1)
    # New middles are at -1/4, 1/4, 3/4 and 5/4 of an old voxel.
    assert resize_to(volume, (4, 1, 1)).flatten().tolist() == [0, 1, 3, 4]
    assert resize_to(volume, [2, 3, 1]).shape == (1, 1, 2, 3, 1)


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm3d), ("group", GroupNorm)])
def test_convolution_norm_and_relu(norm: str, kind: type[nn.Module]) -> None:
    block = conv_norm_relu(norm, 2, 4)  # type: ignore[arg-type]
    assert isinstance(block[1], kind)
    out = block(torch.randn(2, 2, 5, 6, 7))
    assert out.shape == (2, 4, 5, 6, 7)
    assert out.min() == 0


def test_all_classes_are_about_as_likely_at_first() -> None:
    head = output_convolution(4, 3)
    assert not head(torch.zeros(1, 4, 2, 2, 2)).any()
