"""Weight files of a network that a smaller one is a part of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from voxlift.core.architecture import Architecture, SliceTransform
from voxlift.core.geometry import ALL, Geometry
from voxlift.weights.file import WeightFile
from voxlift.weights.foreign.mp3d import BACKBONES as P3DS
from voxlift.weights.foreign.swin_file import BLOCKS
from voxlift.weights.target import BACKBONE_PREFIX

TRANSFORM = "group_transform"
PLAIN_NAMES = {f"m{name}": name for name in P3DS.values()}
"""What networks with group transforms are called without; others keep their name."""


@dataclass(frozen=True)
class Part:
    """A network whose tensors are among those of a larger one, and compute the same there.

    Args:
        whole: Name of the larger backbone.
        geometry: Strides of the part.
        left_out: What the names of those tensors begin with that the part does not have.
        reason: What these are.
    """

    whole: str
    geometry: Geometry
    left_out: tuple[str, ...]
    reason: str


def _transformer_of(whole: str) -> Part:
    return Part(
        whole,
        Geometry(stem_stride=ALL, stage_strides=(ALL,) * 4),
        left_out=BLOCKS,
        reason="block behind the transformer, which alone was asked for",
    )


PARTS: Mapping[str, Part] = {
    "swin": _transformer_of("swinunetr"),
    "swin_v2": _transformer_of("swinunetr_v2"),
}
"""By the name of the smaller backbone."""


def take_part(file: WeightFile, name: str | None) -> WeightFile:
    """Take what a named backbone has of a file of the larger network that it is a part of.

    Args:
        file: The weights.
        name: Name of the backbone that shall have them; None for the file's own.

    Returns:
        The part, with everything else among what is ignored; the file itself where it holds the
        named backbone, or none that this would be a part of.
    """
    part = PARTS.get(name or "")
    if part is None or file.header.architecture.name != part.whole:
        return file
    left_out = [
        tensor
        for tensor in file.tensors
        if tensor.removeprefix(BACKBONE_PREFIX).startswith(part.left_out)
    ]
    header = file.header
    return replace(
        file,
        tensors={each: tensor for each, tensor in file.tensors.items() if each not in left_out},
        header=header.model_copy(
            update={
                "architecture": header.architecture.model_copy(update={"name": name}),
                "geometry": part.geometry,
            }
        ),
        ignored={**file.ignored, **dict.fromkeys(left_out, part.reason)},
        notes=(*file.notes, f"{name}, taken out of the {part.whole} of the file"),
    )


def take_volume_part(file: WeightFile) -> WeightFile:
    """Take of a network that turns slices into planes what it has in common with one of volumes.

    Args:
        file: The weights.

    Returns:
        The same without group transforms, which are among what is ignored; the file itself where
        it has none.
    """
    shape = file.header.architecture
    if shape.num_slices is None:
        return file
    name = PLAIN_NAMES.get(shape.name, shape.name)
    return _without_transforms(file, shape.model_copy(update={"name": name, "num_slices": None}))


def take_for_transform(file: WeightFile, kind: SliceTransform | None) -> WeightFile:
    """Take of a network that turns slices into planes what one with another transform has of it.

    Args:
        file: The weights.
        kind: The transform that is wanted; None for the file's.
    """
    shape = file.header.architecture
    if kind is None or shape.num_slices is None or kind == shape.slice_transform:
        return file
    return _without_transforms(file, shape.model_copy(update={"slice_transform": kind}))


def _without_transforms(file: WeightFile, architecture: Architecture) -> WeightFile:
    left_out = [name for name in file.tensors if TRANSFORM in name.split(".")]
    return replace(
        file,
        tensors={each: tensor for each, tensor in file.tensors.items() if each not in left_out},
        header=file.header.model_copy(update={"architecture": architecture}),
        ignored={**file.ignored, **dict.fromkeys(left_out, "turns slices into a plane")},
    )
