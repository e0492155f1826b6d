"""What can be read: the formats of weight files, for those who look for one."""

from dataclasses import dataclass

from voxlift.weights.formats import FORMATS


@dataclass(frozen=True)
class FormatEntry:
    """One format of weight files, as `list_formats` shows it.

    Args:
        name: With which a file is declared to have it: `NAME:FILE`.
        summary: Which published files these are, in a few words.
        licence: Under what terms they are published, as far as the format alone tells.
    """

    name: str
    summary: str
    licence: str | None


def list_formats() -> list[FormatEntry]:
    """List the formats of weight files that are understood."""
    return [FormatEntry(name, known.summary, known.licence) for name, known in FORMATS.items()]
