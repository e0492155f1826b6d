"""The head of CSPR for nodules: two fusions by 1^3 convolutions, then a 3^3 one."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.backbone import Backbone
from voxlift.core.errors import ConfigError
from voxlift.nets.decoder import conv_norm_relu, output_convolution, resize_to
from voxlift.nets.layers import initialize


class CsprFCN(nn.Module):
    """Segment volumes from the stem and the stages 2 and 4, as the paper segments LIDC nodules.

    Stage 4 is laid beside stage 2 and both are fused to as many channels as stage 4 has (512 at
    width 64); this is laid beside the stem and fused likewise. A 3^3 convolution to a quarter of
    the channels and the logits follow. Maps are enlarged by nearest neighbours.

    Args:
        backbone: Any backbone; of other than five maps it is the first, the middle and the last.
            The geometry `nodule` is the paper's.
        num_classes: Channels of the output: classes with the background, or regions.

    Shape:
        `(batch, in_channels, *size)` -> `(batch, num_classes, *size)`.

    Raises:
        ConfigError: If there is no class.

    Source:
        The public configuration of arXiv 2201.01426 for LIDC segmentation. Left out are two layers
        that its code makes and never calls.
    """

    def __init__(self, backbone: Backbone, *, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"A segmenter needs at least one output; found {num_classes}.")
        assert isinstance(backbone, nn.Module)
        self.backbone = backbone
        last = len(backbone.out_channels) - 1
        self.chosen = (0, (last + 1) // 2, last)
        stem, middle, deep = (backbone.out_channels[i] for i in self.chosen)
        norm = backbone.architecture.norm
        self.fusions = nn.ModuleList(
            conv_norm_relu(norm, channels + deep, deep, kernel=1) for channels in (middle, stem)
        )
        width = max(1, deep // 4)
        self.head = nn.Sequential(
            conv_norm_relu(norm, deep, width), output_convolution(width, num_classes)
        )
        initialize(self.fusions)
        initialize(self.head[:1])

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the logits."""
        maps = self.backbone(volume)
        stem, middle, out = (maps[i] for i in self.chosen)
        for fusion, skip in zip(self.fusions, (middle, stem), strict=True):
            enlarged = functional.interpolate(out, skip.shape[2:], mode="nearest")
            out = fusion(torch.cat([skip, enlarged], dim=1))
        return resize_to(self.head(out), volume.shape[2:])
