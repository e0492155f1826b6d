"""Say whether a network could take weights, before anything is trained."""

from torch import nn

from voxlift.core.architecture import Norm
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import named_geometry
from voxlift.inference.saved_model import load_model
from voxlift.nets.factory import BACKBONES, backbone_class, create_backbone, make_architecture
from voxlift.weights.file import WeightFile
from voxlift.weights.inspect import WeightDescription, describe_weights
from voxlift.weights.parts import take_part
from voxlift.weights.source import Source, read_source


def try_weights(
    source: Source,
    into: str,
    *,
    width: int | None = None,
    stem: int | None = None,
    norm: Norm | None = None,
    in_channels: int = 1,
    num_slices: int | None = None,
    geometry: str | None = None,
) -> WeightDescription:
    """Describe weights, and say what loading them into a network would do. Nothing is changed.

    Args:
        source: The weights.
        into: Name of a backbone, or a model by its file or run folder.
        width: Channels of the first stage of a named backbone; None takes the file's.
        stem: Edge of its stem kernel; None takes the file's.
        norm: Its norm; None takes the file's.
        in_channels: Channels of its input.
        num_slices: Slices that it turns into planes, as `mp3d18` does.
        geometry: Its strides by name; None takes the file's.

    Raises:
        ConfigError: If there is no such backbone, or an option is given along with a file.
        WeightsError: If a file cannot be trusted.
    """
    file = read_source(source)
    given = {"width": width, "stem_kernel": stem, "norm": norm, "num_slices": num_slices}
    if into in BACKBONES:
        file = take_part(file, into)
        changes = {name: value for name, value in given.items() if value is not None}
        network = _named(into, file, {**changes, "in_channels": in_channels}, geometry)
        return describe_weights(file, model=network)
    if (
        any(value is not None for value in given.values())
        or geometry is not None
        or in_channels != 1
    ):
        raise ConfigError(
            f"width, stem, norm, in_channels, num_slices and geometry describe a backbone by name; "
            f"{into!r} is none, and a model's file says them itself. "
            f"Names are {', '.join(BACKBONES)}."
        )
    target = read_source(into)
    model: nn.Module
    if target.header.head is None:
        model = create_backbone(weights=target, in_channels=target.header.architecture.in_channels)
    else:
        model = load_model(into).networks[0]
    return describe_weights(file, model=model, preprocessing=target.header.preprocessing)


def _named(
    name: str, file: WeightFile, changes: dict[str, object], geometry: str | None
) -> nn.Module:
    """Make the named backbone, like the file in all that is left open."""
    stored, family = file.header.architecture, BACKBONES[name]
    same_family = family is BACKBONES[stored.name]
    base = stored.model_dump() if same_family else family.defaults
    architecture = make_architecture({**base, **changes, "name": name})
    if geometry is not None:
        steps = named_geometry(geometry)
    else:
        own = family.default_geometry(architecture)
        steps = file.header.geometry if same_family else own
    return backbone_class(architecture)(architecture, steps)
