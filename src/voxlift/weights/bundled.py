"""The starts that come with the package: small networks, pre-trained on lifted photographs."""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import Geometry
from voxlift.weights.file import read_header

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "bundled"

BUNDLED: dict[str, str] = {
    "tiny": "a narrow ResNet3D-18 from lifted CIFAR-10 photographs",
    "tiny-axes": "as tiny, but with the photographs laid along every axis in turn (axis shuffle)",
}
"""Every bundled start and what it is. Its file and its card stand in `weights/bundled`."""


@dataclass(frozen=True)
class WeightEntry:
    """One bundled start, as `list_weights` shows it.

    Args:
        name: What to give as `weights=`.
        summary: What it is, in a few words.
        architecture: Of the network.
        geometry: That it was trained in.
        licence: Under what terms it may be used.
        provenance: Data, recipe, command, accuracy.
        card: The whole story, in Markdown.
        num_bytes: Size of the file.
    """

    name: str
    summary: str
    architecture: Architecture
    geometry: Geometry
    licence: str | None
    provenance: dict[str, JsonValue]
    card: str
    num_bytes: int


def list_weights() -> list[WeightEntry]:
    """List the starts that come with the package.

    Raises:
        WeightsError: If the installed package lacks one of its files.
    """
    return [_entry(name, summary) for name, summary in BUNDLED.items()]


def bundled_path(name: str) -> Path:
    """Find the file of a bundled start.

    Raises:
        WeightsError: If the name is unknown, or the installed package lacks the file.
    """
    if name not in BUNDLED:
        raise WeightsError(f"No bundled start is called {name!r}; known are {', '.join(BUNDLED)}.")
    return _present(FOLDER / f"{name}.safetensors", name)


@functools.cache
def announce(name: str, *, licence: str | None, provenance: str) -> None:
    """Log the licence and the origin of a bundled start, the first time it is loaded."""
    logger.info(
        "Bundled start %r: %s. Licence: %s. Origin: %s.",
        name,
        BUNDLED[name],
        licence or "not stated",
        provenance,
    )


def _entry(name: str, summary: str) -> WeightEntry:
    path = bundled_path(name)
    header = read_header(path)
    return WeightEntry(
        name=name,
        summary=summary,
        architecture=header.architecture,
        geometry=header.geometry,
        licence=header.licence,
        provenance=header.provenance,
        card=_present(FOLDER / f"{name}.md", name).read_text(encoding="utf-8"),
        num_bytes=path.stat().st_size,
    )


def _present(path: Path, name: str) -> Path:
    if not path.is_file():
        raise WeightsError(
            f"The bundled start {name!r} is not in this installation: {path} is missing. "
            "Install Voxlift again, or give the path of a weight file."
        )
    return path
