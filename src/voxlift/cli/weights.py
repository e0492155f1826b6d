"""Commands about weights."""

import logging
from collections.abc import Sequence

from rich.table import Table

from voxlift.arguments import (
    ConvertCommand,
    EmbedCommand,
    InspectCommand,
    ProbeCommand,
    PushCommand,
    parse_command,
)
from voxlift.cli.console import count_progress, out
from voxlift.core.errors import ConfigError
from voxlift.embedding import embed
from voxlift.inference.conversion import convert_weights
from voxlift.inference.inspection import try_weights
from voxlift.inference.saved_model import find_models
from voxlift.probing import probe
from voxlift.tables import probe_table
from voxlift.weights.bundled import list_weights
from voxlift.weights.catalogue import list_formats
from voxlift.weights.hub import push_weights
from voxlift.weights.inspect import describe_weights

logger = logging.getLogger("voxlift.cli")


def inspect_command(argv: Sequence[str]) -> int:
    """Say what a weight file holds, or list the starts."""
    command = parse_command(InspectCommand, "inspect", argv)
    if command.file is not None:
        return _describe(command, command.file)
    if command.into is not None:
        raise ConfigError("--into tries the weights of a file; name the file as well.")
    table = Table("name", "what", "architecture", "licence", "size", title="Bundled starts")
    for entry in list_weights():
        shape = f"{entry.architecture.name}, width {entry.architecture.width}"
        table.add_row(
            entry.name,
            entry.summary,
            shape,
            entry.licence or "not stated",
            f"{entry.num_bytes / 1e6:.1f} MB",
        )
    out.print(table)
    formats = Table("format", "files", "licence", title="Formats that are read")
    for known in list_formats():
        formats.add_row(known.name, known.summary, known.licence or "not stated")
    out.print(formats)
    return 0


def convert_command(argv: Sequence[str]) -> int:
    """Convert weights."""
    command = parse_command(ConvertCommand, "convert", argv)
    result = convert_weights(
        command.source,
        command.out,
        to=command.to,
        geometry=command.geometry,
        in_channels=command.in_channels,
        channels=command.channels,
        size_voxels=command.size_voxels,
        half=command.half,
        allow_code=command.allow_code,
        overwrite=command.overwrite,
    )
    out.print(f"Written: {result.path} ({result.target})", soft_wrap=True, highlight=False)
    out.print(result.sentences, soft_wrap=True, highlight=False)
    return 0


def push_command(argv: Sequence[str]) -> int:
    """Publish a weight file."""
    command = parse_command(PushCommand, "push", argv)
    models = find_models(command.model)
    if len(models) != 1:
        raise ConfigError(f"{command.model} holds several folds; give the file of one of them.")
    address = push_weights(
        models[0], command.repository, private=command.private, overwrite=command.overwrite
    )
    out.print(f"Published: {address}", soft_wrap=True, highlight=False)
    return 0


def embed_command(argv: Sequence[str]) -> int:
    """Write the features of volumes."""
    command = parse_command(EmbedCommand, "embed", argv)
    with count_progress("Volumes") as on_volume:
        found = embed(
            command.weights,
            data=command.data,
            inputs=command.inputs,
            out=command.out,
            options=command.features,
            overwrite=command.overwrite,
            on_volume=on_volume,
        )
    out.print(f"{found.features.shape[0]} volumes, {found.features.shape[1]} features each")
    out.print(f"Features: {command.out}", soft_wrap=True, highlight=False)
    return 0


def probe_command(argv: Sequence[str]) -> int:
    """Judge starts by simple classifiers."""
    command = parse_command(ProbeCommand, "probe", argv)
    with count_progress("Volumes") as on_volume:
        result = probe(
            command.data,
            weights=command.weights,
            out=command.out,
            options=command.options,
            overwrite=command.overwrite,
            on_start=lambda name, number, total: logger.info("%s (%d/%d)", name, number + 1, total),
            on_volume=on_volume,
        )
    out.print(probe_table(result))
    for sentence in result.sentences:
        out.print(sentence)
    out.print(f"Results and figure: {result.folder}", soft_wrap=True, highlight=False)
    return 0


def _describe(command: InspectCommand, file: str) -> int:
    if command.into is None:
        description = describe_weights(file)
    else:
        description = try_weights(
            file,
            command.into,
            width=command.width,
            stem=command.stem,
            norm=command.norm,
            in_channels=command.in_channels,
            num_slices=command.num_slices,
            geometry=command.geometry,
        )
    out.print(description.summary(), soft_wrap=True, highlight=False)
    return 0 if description.fits in (True, None) else 1
