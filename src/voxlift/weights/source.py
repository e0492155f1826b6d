"""From what a user calls weights to the file: a bundled name, a path, or a file read before."""

from pathlib import Path

from voxlift.core.errors import WeightsError
from voxlift.weights.bundled import BUNDLED, announce, bundled_path
from voxlift.weights.file import WeightFile, read_weight_file

Source = str | Path | WeightFile
"""A bundled name such as `tiny`, a path, or a file that was read before."""


def locate(source: str | Path) -> Path:
    """Find the file of a bundled name or a path.

    Raises:
        WeightsError: If it is neither.
    """
    if isinstance(source, str) and source in BUNDLED:
        return bundled_path(source)
    path = Path(source).expanduser()
    if not path.exists():
        raise WeightsError(
            f"There are no weights {str(source)!r}: no such file, and no bundled start of that "
            f"name. Give the path of a .safetensors file or one of {', '.join(BUNDLED)}; "
            "to start from scratch, give no weights."
        )
    return path


def read_source(source: Source) -> WeightFile:
    """Read weights by whatever name; bundled ones log their licence and origin once.

    Raises:
        WeightsError: If there are none of that name, or the file cannot be trusted.
    """
    if isinstance(source, WeightFile):
        return source
    file = read_weight_file(locate(source))
    if isinstance(source, str) and source in BUNDLED:
        told = file.header.provenance
        origin = ", ".join(str(told[key]) for key in ("data", "command", "metrics") if key in told)
        announce(source, licence=file.header.licence, provenance=origin)
    return file
