"""What a start sees in a volume: the feature maps of its backbone, pooled to one vector."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.core.geometry import Geometry, geometry_name
from voxlift.core.randomness import derive_seed
from voxlift.data.prepared_volumes import PreparedVolumes
from voxlift.inference.saved_model import find_models
from voxlift.nets.batch_statistics import gather_statistics
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import (
    BACKBONES,
    SCRATCH,
    backbone_class,
    create_backbone,
    make_architecture,
    own_geometry,
)
from voxlift.weights.file import WeightFile
from voxlift.weights.source import Source, read_source

logger = logging.getLogger(__name__)

Pool = Literal["mean", "max", "all-maps"]
"""The last map averaged; its largest values; or all maps averaged, one after the other."""

DEFAULT_ARCHITECTURE = Architecture(name="resnet18")
Features = Float32[np.ndarray, "volumes features"]
Progress = Callable[[int, int], None]
"""Called with how many volumes are done, and of how many."""


@dataclass(frozen=True, eq=False)
class Start:
    """A backbone with the weights of a start.

    Args:
        name: What the user calls it.
        backbone: In evaluation mode.
        sha256: Of the weight file; None from scratch.
        licence: Of the weights; None if it is not known.
        notes: What was decided about it, in words.
    """

    name: str
    backbone: Encoder
    sha256: str | None = None
    licence: str | None = None
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say what network it is."""
        architecture, geometry = self.backbone.architecture, self.backbone.geometry
        return (
            f"{architecture.name}, width {architecture.width}, geometry {geometry_name(geometry)}"
        )


def read_start(source: Source) -> WeightFile | None:
    """Read the weight file of a start; None for `scratch`.

    Args:
        source: `scratch`, a bundled start, a weight file, or a run folder.

    Raises:
        WeightsError: If there is no such start.
    """
    if isinstance(source, WeightFile):
        return source
    if source == SCRATCH:
        return None
    files = find_models(source)
    if len(files) > 1:
        raise WeightsError(
            f"{source} holds {len(files)} folds, which are as many starts. Give one of them, such "
            f"as {files[0]}."
        )
    return read_source(files[0])


def scratch_architecture(
    like: Architecture | None,
    *,
    backbone: str | None = None,
    width: int | None = None,
    stem: int | None = None,
) -> Architecture:
    """Choose the network of random weights that others are compared with.

    Args:
        like: That of the others; None for a resnet18 of the paper's width.
        backbone: Another one.
        width: Another width.
        stem: Another edge of the stem kernel.

    Raises:
        ConfigError: If there is no such network.
    """
    base = like or DEFAULT_ARCHITECTURE
    if backbone is not None and backbone not in BACKBONES:
        raise ConfigError(f"Unknown backbone {backbone!r}; known are {', '.join(BACKBONES)}.")
    if backbone not in (None, base.name):
        # What else shapes the tensors of one family may mean nothing to another.
        base = Architecture(name=backbone, width=base.width, stem_kernel=base.stem_kernel)
    wanted = {"width": width, "stem_kernel": stem}
    given = {key: value for key, value in wanted.items() if value is not None}
    return make_architecture({**base.model_dump(), **given})


def make_start(
    name: str,
    file: WeightFile | None,
    *,
    geometry: Geometry | None,
    proposed: bool = False,
    architecture: Architecture | None = None,
    in_channels: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> Start:
    """Build the backbone of a start.

    Args:
        name: What to call it.
        file: Its weight file; None for random weights.
        geometry: Strides; None takes the file's, or the family's.
        proposed: Whether they were proposed for the volumes, not asked for: a start that brings its
            own then keeps that, and says so.
        architecture: Of a start from scratch.
        in_channels: Channels of the volumes.
        seed: Of random weights.
        device: Where the network is put.

    Raises:
        ConfigError: If the backbone cannot step so.
        WeightsError: If the weights do not fit.
    """
    shape = file.header.architecture if file else architecture or DEFAULT_ARCHITECTURE
    geometry, notes = settle_geometry(shape, file, geometry=geometry, proposed=proposed)
    for note in notes:
        logger.info("%s: %s", name, note)
    # The process's own random numbers stay as they are.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        backbone = _build(shape, file, geometry, in_channels)
    return Start(
        name=name,
        backbone=backbone.eval().to(device),
        sha256=file.sha256 if file else None,
        licence=file.header.licence if file else None,
        notes=notes,
    )


def settle_geometry(
    architecture: Architecture,
    file: WeightFile | None,
    *,
    geometry: Geometry | None,
    proposed: bool,
) -> tuple[Geometry, tuple[str, ...]]:
    """Choose the strides of a start, and say why they are others than those proposed.

    Args:
        architecture: Of the start.
        file: Its weight file; None for random weights.
        geometry: As in `make_start`.
        proposed: As in `make_start`.
    """
    own = own_geometry(architecture.name, file) if proposed else None
    if own is not None:
        return own[0], (own[1],)
    if geometry is not None:
        return geometry, ()
    if file is not None:
        return file.header.geometry, ()
    return backbone_class(architecture).default_geometry(architecture), ()


def _build(
    architecture: Architecture, file: WeightFile | None, geometry: Geometry, in_channels: int
) -> Encoder:
    name = architecture.name
    if file is not None:
        return create_backbone(name, geometry=geometry, weights=file, in_channels=in_channels)
    fields = architecture.model_copy(update={"in_channels": in_channels})
    return backbone_class(fields)(fields, geometry)


def pool_maps(maps: list[Tensor], pool: Pool) -> Tensor:
    """Pool feature maps to one vector a volume.

    Shape:
        Each map `(batch, channels, *size)` -> `(batch, features)`.

    Raises:
        ConfigError: For an unknown way of pooling.
    """
    if pool not in get_args(Pool):
        raise ConfigError(f"Unknown pool {pool!r}; known are {', '.join(get_args(Pool))}.")
    if pool == "max":
        return maps[-1].flatten(2).amax(2)
    chosen = maps if pool == "all-maps" else maps[-1:]
    return torch.cat([each.flatten(2).mean(2) for each in chosen], dim=1)


def compute_features(
    start: Start,
    volumes: PreparedVolumes,
    *,
    pool: Pool = "mean",
    batch_size: int = 16,
    on_volume: Progress | None = None,
) -> Features:
    """Compute the features of all volumes, in their order.

    Raises:
        DataError: If a volume is too small for the network, or features are not finite.
    """
    backbone = start.backbone
    if backbone.architecture.norm == "batch_always":
        # Or the features of a volume would depend on those beside it.
        batch_size = 1
    parts = []
    done = 0
    for batch in on_device(start, volumes, batch_size):
        with torch.inference_mode():
            parts.append(pool_maps(list(backbone(batch)), pool).float().cpu().numpy())
        done += len(batch)
        if on_volume is not None:
            on_volume(done, len(volumes))
    features: Features = np.concatenate(parts).astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise DataError(
            f"{start.name}: the features of {len(bad)} of {len(features)} volumes are NaN or "
            f"infinite, first those of volume {bad[0]} (counted from 0). The weights do not suit "
            "these volumes; gather the statistics of batch norm on the data, or leave the start "
            "out."
        )
    return features


def gather_on(start: Start, volumes: PreparedVolumes, *, batch_size: int = 16) -> int:
    """Gather the statistics of batch norm on volumes; return how many norms have new ones.

    Raises:
        ConfigError: If there are too few volumes for that.
    """
    return gather_statistics(start.backbone, on_device(start, volumes, batch_size))


def on_device(start: Start, volumes: PreparedVolumes, batch_size: int) -> Iterator[Tensor]:
    """Bring the volumes to where the network is, in batches."""
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it is 1 or more.")
    device = next(start.backbone.parameters()).device
    for batch in volumes.batches(batch_size):
        yield batch.to(device)
