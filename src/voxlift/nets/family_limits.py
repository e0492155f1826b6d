"""What backbones of foreign design do not have: they refuse it rather than ignore it."""

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import torch

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import ONES, Geometry
from voxlift.core.types import Triple

PLAIN: Mapping[str, object] = MappingProxyType(
    {
        "ndim": 3,
        "stem_kernel": 3,
        "shortcut": "B",
        "num_slices": None,
        "project_first": False,
        "convolution": "full",
        "stages": None,
        "patch_merging": "all",
    }
)
"""Fields of the architecture that a family has no choice of, and the value they then have."""


def check_architecture(
    architecture: Architecture, *, norms: Sequence[Norm], chosen: Collection[str] = ()
) -> None:
    """Refuse what a family cannot be built with.

    Args:
        architecture: What is asked for.
        norms: Those that the family can have.
        chosen: Fields among `PLAIN` that the family does have a choice of.

    Raises:
        ConfigError: With the field, its value and the one that works.
    """
    for field, only in PLAIN.items():
        found = getattr(architecture, field)
        if field not in chosen and found != only:
            raise ConfigError(
                f"{architecture.name} has no choice of {field}: it is {only!r}, and {found!r} was "
                f"asked for. Leave it out."
            )
    if architecture.norm not in norms:
        raise ConfigError(
            f"{architecture.name} cannot have the norm {architecture.norm!r}; it can have "
            f"{', '.join(norms)}."
        )


def check_only_stages_step(name: str, geometry: Geometry) -> None:
    """Refuse a geometry in which anything but the stages steps, or that dilates.

    Raises:
        ConfigError: With what is asked for and what works.
    """
    if geometry.stem_stride != ONES or geometry.pool_stride is not None:
        raise ConfigError(
            f"{name} takes the input at full resolution: its first layer has the stride 1 and no "
            f"pooling behind it; found stem_stride={geometry.stem_stride} and "
            f"pool_stride={geometry.pool_stride}. Leave both out, and stride the stages."
        )
    if any(dilation != ONES for dilation in geometry.dilations):
        raise ConfigError(f"{name} has no dilated convolutions; leave dilations out.")


def check_spread(name: str, norm: Norm, shape: Sequence[int], stride: Triple) -> None:
    """Refuse a volume of which the last feature map leaves a norm a single number to work with.

    Args:
        name: Of the backbone.
        norm: Its norm.
        shape: Of the batch of volumes, with batch and channels.
        stride: Of the last feature map.

    Raises:
        DataError: With the size that works.
    """
    if torch.compiler.is_exporting():
        # A check of the traced size would bind the exported program to sizes like it.
        return
    sizes = [-(-length // step) for length, step in zip(shape[2:], stride, strict=True)]
    over = {"instance": 1, "batch_always": shape[0]}.get(norm)
    if over is not None and over * math.prod(sizes) == 1:
        what = norm.removesuffix("_always")
        raise DataError(
            f"{name} cannot take a volume of {tuple(shape[2:])} voxels: its last feature map has a "
            f"single voxel, of which its {what} norm leaves nothing but zeros. Feed more than "
            f"{stride} voxels along some axis, or choose a geometry that strides less."
        )
