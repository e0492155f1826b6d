"""From what a user calls weights to the file: a name, a path, an address, a declared format.

| what is given | what it is |
|---|---|
| `tiny` | a bundled start |
| `runs/a/model.safetensors` | a path |
| `hf://org/name`, `hf://org/name/file.pth@revision` | of the Hugging Face hub |
| `https://host/file.pth#sha256=...`, `https://host/file-5ff2ecb7.pth` | of the web, checked |
| `torchvision/r3d_18`, `i3d:timm/resnet18` | as a library names them |
| `medicalnet:SOURCE` | any of these, declared to have that format |
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from voxlift.core.errors import WeightsError
from voxlift.weights.bundled import BUNDLED, announce, bundled_path
from voxlift.weights.file import WeightFile, read_weight_file
from voxlift.weights.formats import FORMATS
from voxlift.weights.licences import warn_if_non_commercial
from voxlift.weights.remote import fetch, is_library_name, is_remote

Source = str | Path | WeightFile
"""Weights by any of their names (see above), or a file that was read before."""

_PREFIX = re.compile(r"([A-Za-z0-9_.-]{2,}):(?!//)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Location:
    """Where weights are on this machine.

    Args:
        path: The file.
        declared: The format that it was declared to have; None to go by its fingerprint.
        notes: How it came here, for the load report.
    """

    path: Path
    declared: str | None = None
    notes: tuple[str, ...] = ()


def locate(source: str | Path) -> Location:
    """Find the file of weights, and fetch it if it is not on this machine.

    Args:
        source: As above; a `Path` is always a path.

    Raises:
        WeightsError: If there are none of that name, or they are not what they should be.
    """
    declared, plain = split_format(source) if isinstance(source, str) else (None, str(source))
    notes: tuple[str, ...] = ()
    if isinstance(source, str) and plain in BUNDLED:
        return Location(bundled_path(plain), declared)
    if isinstance(source, str) and is_remote(plain) and not _is_library_file(plain):
        path, notes = fetch(plain, declared=declared)
    else:
        path = _local(plain)
    return Location(path, declared, notes)


def split_format(source: str) -> tuple[str | None, str]:
    """Part the format that weights are declared to have from what they are called.

    Returns:
        The format, or None if none is declared; and the rest.

    Raises:
        WeightsError: If what stands before the colon is no known format.
    """
    found = _PREFIX.fullmatch(source)
    if found is None:
        return None, source
    name, rest = found[1], found[2]
    if name not in FORMATS:
        # A colon may be a part of a file's name.
        if _exists(source):
            return None, source
        raise WeightsError(
            f"{source}: {name!r} is no known format of weights; known are {', '.join(FORMATS)}. "
            "Weights of the hub or the web are named hf://..., https://... or http://..."
        )
    if not rest:
        raise WeightsError(f"{source} names a format, but no weights: expected {name}:SOURCE.")
    if split_format(rest)[0] is not None:
        raise WeightsError(
            f"{source} declares two formats; a file has one. Give the one that it has, as in "
            f"{rest}."
        )
    return name, rest


def read_source(
    source: Source, *, allow_code: bool = False, checkpoint: bool = False
) -> WeightFile:
    """Read weights by whatever name.

    Bundled ones log their licence and origin once; ones that must not be used commercially warn
    once.

    Args:
        source: As above, or a file that was read before.
        allow_code: As in `read_weight_file`.
        checkpoint: As in `read_weight_file`.

    Raises:
        WeightsError: If there are none of that name, or the file cannot be trusted.
    """
    if isinstance(source, WeightFile):
        return source
    location = locate(source)
    file = read_weight_file(
        location.path,
        declared=location.declared,
        allow_code=allow_code,
        checkpoint=checkpoint,
    )
    file = replace(file, source=str(source), notes=(*location.notes, *file.notes))
    if isinstance(source, str) and source in BUNDLED:
        told = file.header.provenance
        origin = ", ".join(str(told[key]) for key in ("data", "command", "metrics") if key in told)
        announce(source, licence=file.header.licence, provenance=origin)
    warn_if_non_commercial(file.source, file.header.licence, file.sha256)
    return file


def _is_library_file(plain: str) -> bool:
    """Tell whether what looks like a name of timm or torchvision is a file that stands there."""
    return is_library_name(plain) and _exists(plain)


def _exists(plain: str) -> bool:
    # Unlike the methods of paths, these do not raise for one that is too long to be there.
    return os.path.lexists(os.path.expanduser(plain))  # noqa: PTH111


def _local(plain: str) -> Path:
    if _exists(plain):
        return Path(plain).expanduser()
    scheme, has_scheme, _ = plain.partition("://")
    if has_scheme:
        raise WeightsError(
            f"{plain}: weights are not fetched by {scheme}://. Give hf://org/name, https://..., "
            "http://..., or fetch the file and give its path."
        )
    raise WeightsError(
        f"There are no weights {plain!r}: no such file, and no bundled start of that "
        f"name. Give the path of a weight file, one of {', '.join(BUNDLED)}, hf://org/name, or "
        "https://...#sha256=...; to start from random weights, give 'scratch'."
    )
