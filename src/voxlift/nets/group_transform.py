"""From a stack of slices to one plane: feature maps for the detection of lesions in key slices."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import SliceTransform
from voxlift.core.errors import ConfigError, DataError
from voxlift.lifting.conv3d import conv3d

SliceStart = Literal["center", "mean"]
"""What a group transform computes before it has learnt: the middle slice, or the mean of all."""

WITHOUT_WEIGHTS: tuple[SliceTransform, ...] = ("center", "pool")


class GroupTransform(nn.Module):
    """Weigh the slices of a feature map and add them up, to one plane.

    Args:
        channels: Of the feature map.
        num_slices: Its depth.
        kind: `group` weighs the slices of each channel by weights of its own, as a grouped 1x1
            convolution over channels times slices does; `conv3d` mixes the channels too, with a
            full convolution of slices x 1 x 1; `center` and `pool` take the middle slice, without
            weights.
        start: What is computed before training.

    Shape:
        `(batch, channels, num_slices, height, width)` -> `(batch, channels, height, width)`.

    Raises:
        ConfigError: For an unknown kind or start.

    Source:
        Group transform module, arXiv 2012.08770, section 2.2.
    """

    def __init__(
        self,
        channels: int,
        num_slices: int,
        *,
        kind: SliceTransform = "group",
        start: SliceStart = "center",
    ) -> None:
        super().__init__()
        self.channels, self.num_slices, self.kind = channels, num_slices, kind
        weight = transform_weight(channels, num_slices, kind=kind, start=start)
        if weight is not None:
            self.weight = nn.Parameter(weight)

    def forward(self, volume: Tensor) -> Tensor:
        """Turn the slices into a plane.

        Raises:
            DataError: If the map has another number of slices.
        """
        if volume.shape[2] != self.num_slices:
            raise DataError(
                f"This group transform takes {self.num_slices} slices and was given "
                f"{volume.shape[2]}. Feed it as many, or build the network with "
                f"num_slices={volume.shape[2]}: a weight file's transform is then rebuilt."
            )
        if self.kind in WITHOUT_WEIGHTS:
            return volume[:, :, middle_slice(self.num_slices)]
        if self.kind == "conv3d":
            return conv3d(volume, self.weight).squeeze(2)
        # Channels times slices in this order: the slices of a channel are a group of their own.
        return functional.conv2d(volume.flatten(1, 2), self.weight, groups=self.channels)

    def extra_repr(self) -> str:
        """Say what it was made for."""
        return f"{self.channels}, num_slices={self.num_slices}, kind={self.kind!r}"


def middle_slice(num_slices: int) -> int:
    """Index of the middle slice; of an even number the later of the two in the middle."""
    return num_slices // 2


def transform_weight(
    channels: int, num_slices: int, *, kind: SliceTransform = "group", start: SliceStart = "center"
) -> Tensor | None:
    """Make the weight of a transform that has learnt nothing yet; None for one that has none.

    Raises:
        ConfigError: For an unknown kind or start.
    """
    shares = torch.zeros(num_slices)
    if start == "center":
        shares[middle_slice(num_slices)] = 1.0
    elif start == "mean":
        shares += 1 / num_slices
    else:
        raise ConfigError(f"Unknown start {start!r} of a group transform; known: center, mean.")
    if kind == "group":
        return shares.repeat(channels, 1)[..., None, None]
    if kind == "conv3d":
        return (torch.eye(channels)[..., None] * shares)[..., None, None]
    if kind in WITHOUT_WEIGHTS:
        return None
    raise ConfigError(
        f"Unknown slice transform {kind!r}; known are 'group', 'conv3d', 'center' and 'pool'."
    )
