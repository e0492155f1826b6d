"""The geometry of a run: as asked for, the backbone's own, or what suits the data."""

from typing import Literal

from voxlift.config import NetworkConfig
from voxlift.core.geometry import ONES, Geometry, named_geometry, suggest_geometry
from voxlift.core.types import Triple
from voxlift.nets.factory import own_geometry


def choose_geometry(
    network: NetworkConfig,
    *,
    size_voxels: Triple,
    spacing_mm: tuple[float, float, float],
    task: Literal["classify", "segment"],
) -> tuple[Geometry, str | None]:
    """Choose the geometry of a run.

    Args:
        network: Backbone, start, and the geometry that was asked for; `auto` leaves it open.
        size_voxels: Size of what the network is fed.
        spacing_mm: Of the same.
        task: What the network shall do.

    Returns:
        The geometry, and why it was chosen; None if it was asked for.

    Raises:
        DataError: If what the network is fed is too small for it.
    """
    reason = None
    if network.geometry != "auto":
        geometry = named_geometry(network.geometry)
    else:
        own = own_geometry(network.backbone, network.weights)
        if own is not None:
            geometry, reason = own
        else:
            geometry, reason = suggest_geometry(
                size_voxels=size_voxels, spacing_mm=spacing_mm, task=task
            )
    geometry.check_size(size_voxels)
    return geometry, reason


def own_strides(network: NetworkConfig) -> Triple:
    """Total strides that a backbone brings along; ones where strides are proposed or asked for.

    Args:
        network: Backbone, start, and the geometry that was asked for.
    """
    own = own_geometry(network.backbone, network.weights) if network.geometry == "auto" else None
    return own[0].strides[-1] if own else ONES
