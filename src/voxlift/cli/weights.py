"""Commands about weights."""

from collections.abc import Sequence

from rich.table import Table

from voxlift.arguments import InspectCommand
from voxlift.cli.console import out, parse_command
from voxlift.core.errors import ConfigError
from voxlift.inference.inspection import try_weights
from voxlift.weights.bundled import list_weights
from voxlift.weights.inspect import describe_weights


def inspect_command(argv: Sequence[str]) -> int:
    """Say what a weight file holds, or list the starts."""
    command = parse_command(InspectCommand, "inspect", argv)
    if command.file is not None:
        return _describe(command, command.file)
    if command.into is not None:
        raise ConfigError("--into tries the weights of a file; name the file as well.")
    table = Table("name", "what", "architecture", "licence", "size")
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
            geometry=command.geometry,
        )
    out.print(description.summary(), soft_wrap=True, highlight=False)
    return 0 if description.fits in (True, None) else 1
