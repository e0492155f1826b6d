"""Commands about weights."""

from collections.abc import Sequence

from rich.table import Table

from voxlift.arguments import InspectCommand
from voxlift.cli.console import out, parse_command
from voxlift.weights.bundled import list_weights
from voxlift.weights.inspect import describe_weights


def inspect_command(argv: Sequence[str]) -> int:
    """Say what a weight file holds, or list the starts."""
    command = parse_command(InspectCommand, "inspect", argv)
    if command.file is not None:
        out.print(describe_weights(command.file).summary(), soft_wrap=True, highlight=False)
        return 0
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
