"""The networks of random weights that the starts of a probe are compared with: each with its like.

What a random network sees depends on its width, depth and strides, so that a start of one
architecture says little beside a random network of another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import Geometry, geometry_name
from voxlift.inference.embedding import scratch_architecture, settle_geometry
from voxlift.inference.probe_report import SCRATCH
from voxlift.weights.file import WeightFile

Shape = tuple[Architecture, Geometry]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that is probed.

    Args:
        name: What it is called in tables and figures.
        file: Its weight file; None for random weights.
        architecture: Of random weights; None takes the file's.
        geometry: Its strides, as in `make_start`.
        proposed: Whether these were proposed for the volumes, as in `make_start`.
        control: Name of the network of random weights that it is compared with, if any.
    """

    name: str
    file: WeightFile | None
    architecture: Architecture | None
    geometry: Geometry
    proposed: bool
    control: str | None = None


def plan_candidates(
    files: Mapping[str, WeightFile | None],
    *,
    geometry: Geometry,
    proposed: bool,
    backbone: str | None = None,
    width: int | None = None,
    stem: int | None = None,
) -> tuple[Candidate, ...]:
    """Say what networks are probed, and give each start a control of its own architecture.

    Where `scratch` was asked for, there is one network of random weights for each architecture and
    geometry among the starts; the starts follow their control if there are several. One that is
    described by its name, width or stem is the control of all.

    Args:
        files: The starts by name; None for `scratch`.
        geometry: Strides for the volumes.
        proposed: Whether they were proposed, not asked for.
        backbone: Backbone of `scratch`; None takes those of the starts.
        width: Its width, likewise.
        stem: Edge of its stem kernel, likewise.

    Raises:
        ConfigError: If there is no such network.
    """
    shapes = {
        name: _shape(file, geometry, proposed=proposed)
        for name, file in files.items()
        if file is not None
    }
    distinct = list(dict.fromkeys(shapes.values()))
    is_described = (backbone, width, stem) != (None, None, None)
    if SCRATCH in files and len(distinct) > 1 and not is_described:
        found: list[Candidate] = []
        for own, shape in zip(_names(distinct, taken=files), distinct, strict=True):
            found.append(Candidate(own, None, *shape, proposed=False))
            found += [
                Candidate(name, file, None, geometry, proposed, own)
                for name, file in files.items()
                if file is not None and shapes[name] == shape
            ]
        return tuple(found)
    if distinct and not is_described:
        random = Candidate(SCRATCH, None, *distinct[0], proposed=False)
    else:
        like = distinct[0][0] if distinct else None
        architecture = scratch_architecture(like, backbone=backbone, width=width, stem=stem)
        random = Candidate(SCRATCH, None, architecture, geometry, proposed)
    control = SCRATCH if SCRATCH in files else None
    return tuple(
        random if file is None else Candidate(name, file, None, geometry, proposed, control)
        for name, file in files.items()
    )


def _shape(file: WeightFile, geometry: Geometry, *, proposed: bool) -> Shape:
    """Say what network a start becomes for volumes of one channel."""
    architecture = file.header.architecture.model_copy(update={"in_channels": 1})
    return architecture, settle_geometry(architecture, file, geometry=geometry, proposed=proposed)[
        0
    ]


def _names(shapes: Sequence[Shape], *, taken: Mapping[str, object]) -> list[str]:
    """Name the controls by no more than tells them apart."""
    details = [
        [architecture.name, f"width {architecture.width}", geometry_name(geometry)]
        for architecture, geometry in shapes
    ]
    for count in (1, 2, 3):
        names = [f"{SCRATCH} {', '.join(each[:count])}" for each in details]
        if len({*names, *taken}) == len(names) + len(taken):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]
