"""Architecture: everything about a backbone that shapes its tensors, and nothing else."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Norm = Literal["batch", "group"]
Shortcut = Literal["A", "B"]


class Architecture(BaseModel):
    """What one has to know to rebuild the tensors of a backbone.

    Strides, pooling and dilations are not part of it: see `Geometry`.

    Args:
        name: Name of the backbone, as `list_backbones()` shows it.
        ndim: 3 for volumes, 2 for the planar twin.
        in_channels: Channels of the input.
        width: Channels of the first stage; the paper's networks have 64.
        stem_kernel: Edge of the stem convolution in voxels: 3, 5 or 7.
        norm: `batch`, or `group` with gcd(32, channels) groups.
        shortcut: Where a block widens: `A` pads with zero channels, `B` projects.
        num_slices: Slices that a group transform expects; None without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ndim: Literal[2, 3] = 3
    in_channels: int = Field(default=1, ge=1)
    width: int = Field(default=64, ge=1)
    stem_kernel: Literal[3, 5, 7] = 7
    norm: Norm = "batch"
    shortcut: Shortcut = "B"
    num_slices: int | None = Field(default=None, ge=1)
