"""A fully convolutional head on three feature maps, for small structures such as nodules."""

import torch
from torch import Tensor, nn

from voxlift.core.architecture import Norm
from voxlift.core.backbone import Backbone
from voxlift.core.errors import ConfigError
from voxlift.nets.decoder import conv_norm_relu, output_convolution, resize_to
from voxlift.nets.layers import initialize


class FCN(nn.Module):
    """Segment volumes from the stem and the stages 2 and 4 of a backbone, without a decoder.

    Args:
        backbone: Any backbone; of other than five maps it is the first, the middle and the last.
            Little strides serve small structures.
        num_classes: Channels of the output: classes with the background, or regions.
        norm: Norm of the head; None takes the backbone's.

    Shape:
        `(batch, in_channels, *size)` -> `(batch, num_classes, *size)`.

    Raises:
        ConfigError: If there is no class.

    Source:
        After the nodule segmentation of arXiv 2201.01426. The paper's own head is `CsprFCN`.
    """

    # Differs from the paper: one 3^3 fusion of all three maps to twice the stem's channels instead
    # of two 1^3 ones to 512, and trilinear upsampling: few parameters for few cases.

    def __init__(self, backbone: Backbone, *, num_classes: int, norm: Norm | None = None) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"A segmenter needs at least one output; found {num_classes}.")
        assert isinstance(backbone, nn.Module)
        self.backbone = backbone
        last = len(backbone.out_channels) - 1
        self.chosen = (0, (last + 1) // 2, last)
        channels = [backbone.out_channels[i] for i in self.chosen]
        self.merge = conv_norm_relu(
            norm or backbone.architecture.norm, sum(channels), 2 * channels[0]
        )
        initialize(self.merge)
        self.head = output_convolution(2 * channels[0], num_classes)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the logits."""
        maps = self.backbone(volume)
        size = maps[0].shape[2:]
        merged = self.merge(torch.cat([resize_to(maps[i], size) for i in self.chosen], dim=1))
        return resize_to(self.head(merged), volume.shape[2:])
