"""What decoders of feature maps are made of."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Norm
from voxlift.nets.layers import Conv3d, convolution, normalization


def conv_norm_relu(
    norm: Norm, in_channels: int, out_channels: int, *, kernel: int = 3
) -> nn.Sequential:
    """Make a convolution with norm and ReLU."""
    return nn.Sequential(
        convolution(3, in_channels, out_channels, kernel),
        normalization(norm, 3, out_channels),
        nn.ReLU(inplace=True),
    )


def resize_to(volume: Tensor, size_voxels: Sequence[int]) -> Tensor:
    """Resize a map by trilinear interpolation; one of that size is returned as it is.

    Shape:
        `(batch, channels, *)` -> `(batch, channels, *size_voxels)`.
    """
    if tuple(volume.shape[2:]) == tuple(size_voxels):
        return volume
    return functional.interpolate(volume, tuple(size_voxels), mode="trilinear", align_corners=False)


def output_convolution(in_channels: int, num_classes: int) -> nn.Conv3d:
    """Make the 1^3 convolution that gives the logits, all classes as likely at first."""
    head = Conv3d(in_channels, num_classes, 1)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    return head
