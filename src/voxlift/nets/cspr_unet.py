"""The U-Net decoder of CSPR, as its authors segment abdominal organs (BCV) and the liver (LiTS)."""

import torch
from torch import Tensor, nn

from voxlift.core.backbone import Backbone
from voxlift.core.errors import ConfigError
from voxlift.nets.decoder import conv_norm_relu, output_convolution, resize_to
from voxlift.nets.layers import initialize

HEAD_CHANNELS = 16
DROPOUT = 0.1


class CsprUNet(nn.Module):
    """Segment volumes with the decoder and the head of the paper's public configurations.

    It differs from `UNet` in three ways: a 1^3 convolution with norm and ReLU brings an upsampled
    map to the channels of the map beside it; a level keeps the channels of that map; and the head
    is of two 3^3 convolutions to 16 channels, dropout of whole channels, and the logits.

    Args:
        backbone: Any backbone; of ResNets the geometry `unet` keeps the first map at full
            resolution, as the paper does.
        num_classes: Channels of the output: classes with the background, or regions.

    Shape:
        `(batch, in_channels, *size)` -> `(batch, num_classes, *size)`.

    Raises:
        ConfigError: If there is no class.

    Source:
        The public configurations of arXiv 2201.01426 for BCV and LiTS. On ResNet3D-18 of width 64
        decoder and head have 7.51 million parameters for the 14 classes of BCV.
    """

    def __init__(self, backbone: Backbone, *, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"A segmenter needs at least one output; found {num_classes}.")
        assert isinstance(backbone, nn.Module)
        self.backbone = backbone
        norm, maps = backbone.architecture.norm, backbone.out_channels
        below = maps[1:]
        self.reductions = nn.ModuleList(
            conv_norm_relu(norm, after, skip, kernel=1)
            for after, skip in zip(below, maps[:-1], strict=True)
        )
        self.levels = nn.ModuleList(
            nn.Sequential(conv_norm_relu(norm, 2 * skip, skip), conv_norm_relu(norm, skip, skip))
            for skip in maps[:-1]
        )
        self.head = nn.Sequential(
            conv_norm_relu(norm, maps[0], HEAD_CHANNELS),
            conv_norm_relu(norm, HEAD_CHANNELS, HEAD_CHANNELS),
            nn.Dropout3d(DROPOUT),
            output_convolution(HEAD_CHANNELS, num_classes),
        )
        initialize(self.reductions)
        initialize(self.levels)
        initialize(self.head[:2])

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the logits."""
        *skips, out = self.backbone(volume)
        climb = zip(reversed(self.reductions), reversed(self.levels), reversed(skips), strict=True)
        for reduction, level, skip in climb:
            out = level(torch.cat([skip, reduction(resize_to(out, skip.shape[2:]))], dim=1))
        return resize_to(self.head(out), volume.shape[2:])
