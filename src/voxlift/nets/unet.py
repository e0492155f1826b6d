"""A U-Net: the decoder climbs back over all feature maps of any backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from voxlift.core.architecture import Norm
from voxlift.core.backbone import Backbone
from voxlift.core.errors import ConfigError
from voxlift.nets.decoder import conv_norm_relu, output_convolution, resize_to
from voxlift.nets.layers import initialize


class UNet(nn.Module):
    """Segment volumes with a U-Net decoder on a backbone.

    Each level resizes the map below to the size of the backbone's map, lays both side by side and
    convolves twice. Sizes are taken from the maps, so any geometry will do, anisotropic ones too.

    Args:
        backbone: Any backbone; of ResNets the geometry `unet` keeps the first at full resolution.
        num_classes: Channels of the output: classes with the background, or regions.
        deep_supervision: In training, return the logits of the coarser levels as well.
        norm: Norm of the decoder; None takes the backbone's.

    Shape:
        `(batch, in_channels, *size)` -> `(batch, num_classes, *size)`.
        With deep supervision, in training only, a list: full size first, then each level's own.

    Raises:
        ConfigError: If there is no class.

    Source:
        After the decoder of arXiv 2201.01426, section on BCV and LiTS: stem at full resolution,
        then 1/2 to 1/16, trilinear upsampling, two convolutions a level. The paper's own is
        `CsprUNet`.
    """

    # Differs from the paper: no 1^3 convolutions behind the upsampling, the logits directly on each
    # level without a head and dropout, channels that follow the stem's width and not the maps', and
    # coarser levels that can be supervised.

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        deep_supervision: bool = False,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"A segmenter needs at least one output; found {num_classes}.")
        assert isinstance(backbone, nn.Module)
        self.backbone = backbone
        self.deep_supervision = deep_supervision
        norm = norm or backbone.architecture.norm
        maps = backbone.out_channels
        # The stem's level and the first stage's are as wide as the stem; then each doubles.
        channels = [maps[0] * 2 ** max(0, level - 1) for level in range(len(maps) - 1)]
        below = [*channels[1:], maps[-1]]
        self.levels = nn.ModuleList(
            nn.Sequential(
                conv_norm_relu(norm, maps[i] + below[i], channels[i]),
                conv_norm_relu(norm, channels[i], channels[i]),
            )
            for i in range(len(channels))
        )
        initialize(self.levels)
        num_heads = len(channels) if deep_supervision else 1
        self.heads = nn.ModuleList(
            output_convolution(channels[i], num_classes) for i in range(num_heads)
        )

    def forward(self, volume: Tensor) -> Tensor | list[Tensor]:
        """Compute the logits."""
        levels = self._decode(self.backbone(volume))
        logits = resize_to(self.heads[0](levels[0]), volume.shape[2:])
        if not (self.deep_supervision and self.training):
            return logits
        pairs = zip(list(self.heads)[1:], levels[1:], strict=True)
        return [logits, *(head(level) for head, level in pairs)]

    def _decode(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Climb from the coarsest map to the finest; return the levels, the finest first."""
        out, levels = maps[-1], []
        for level, skip in zip(reversed(self.levels), reversed(maps[:-1]), strict=True):
            out = level(torch.cat([skip, resize_to(out, skip.shape[2:])], dim=1))
            levels.append(out)
        return levels[::-1]
