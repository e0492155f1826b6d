"""Architecture: everything about a backbone that shapes its tensors, and nothing else."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from voxlift.core.types import Triple

Norm = Literal["batch", "batch_always", "group", "instance"]
"""`batch_always` is batch norm that normalises by the batch itself in evaluation too."""

Shortcut = Literal["A", "B"]

Convolution = Literal["full", "acs", "planar"]
"""Kernels of k^3; those of a 2D network, split over the three planes (ACS); or 1xkxk (2.5D)."""

SliceTransform = Literal["group", "conv3d", "center", "pool"]
"""Weigh the slices of each channel; mix the channels too; take the middle slice as it is; or pool
the slices between the stages and take the middle one of those that are left."""

PatchMerging = Literal["all", "repeated"]
"""Merge each of 2^3 voxels once, or, as MONAI up to 1.4, two of them twice and two not at all."""


class Stage(BaseModel):
    """One stage of an encoder whose stages were planned, not designed.

    Args:
        channels: Channels of its feature map.
        blocks: Residual blocks.
        kernel: Edges of its kernels in voxels, (depth, height, width).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(ge=1)
    blocks: int = Field(ge=1, le=1000)
    kernel: Triple = (3, 3, 3)


class Architecture(BaseModel):
    """What one has to know to rebuild the tensors of a backbone.

    Strides, pooling and dilations are not part of it: see `Geometry`.

    Args:
        name: Name of the backbone, as `list_backbones()` shows it.
        ndim: 3 for volumes, 2 for the planar twin.
        in_channels: Channels of the input.
        width: Channels of the first stage; the paper's networks have 64.
        stem_kernel: Edge of the stem convolution in voxels: 3, 5 or 7.
        norm: `batch`, `group` with gcd(32, channels) groups, or what a foreign encoder has.
        shortcut: Where a block widens: `A` pads with zero channels, `B` projects.
        num_slices: Slices that a group transform expects; None without one.
        slice_transform: How it makes a plane of them; of no account without `num_slices`.
        project_first: Project in the first block of the first stage too, where channels agree.
        convolution: Kernels of all axes, or what was made of the kernels of a 2D network.
        stages: Of encoders whose stages were planned for a data set (nnU-Net); else None.
        patch_merging: Of Swin transformers; it changes the function and no tensor.
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
    slice_transform: SliceTransform = "group"
    project_first: bool = False
    convolution: Convolution = "full"
    stages: tuple[Stage, ...] | None = Field(default=None, max_length=100)
    patch_merging: PatchMerging = "all"
