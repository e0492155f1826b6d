"""The outer shell of a weight file: is it whole, is it safe to read, what tensors does it hold.

Only safetensors is read: it holds numbers and text and can run nothing. Everything that a damaged
or hostile file could do is checked before its tensors are touched.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.weights.digest import file_sha256
from voxlift.weights.pickled import read_pickled

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"

MAX_HEADER_BYTES = 16 * 1024**2
"""More than any network needs to list its tensors; a longer header is an attack or no header."""

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)

OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, most likely a pickled file of torch.save"),
    (b"\x80\x02", "a pickled file, most likely of an old torch.save"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file, most likely of Keras"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to"),
    (b"<", "a web page or XML, not the file that was asked for"),
)
"""How files begin that people hand over by mistake, and what they are."""


@dataclass(frozen=True)
class Container:
    """The tensors and texts of a weight file, before anyone has said what they mean.

    Args:
        path: The file.
        sha256: Of the whole file, in hexadecimal.
        tensors: By the names that the file gives them.
        metadata: Texts that stand beside the tensors.
        wrapper: Of a pickled file: the key under which it held the tensors; empty if flat.
        extras: Of a pickled file: what else it holds, such as an epoch or a plan.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    wrapper: str = ""
    extras: dict[str, object] = field(default_factory=dict)


def read_container(path: str | Path) -> Container:
    """Read every tensor of a safetensors file, or say why it cannot be trusted.

    Raises:
        WeightsError: If the file is missing, unreadable, cut off, of another format, has an
            oversized header, or holds NaN or infinite numbers.
    """
    pickled = _find_pickled(path)
    if pickled is not None:
        found = read_pickled(pickled)
        for name, tensor in found.tensors.items():
            check_numbers(name, tensor, where=str(pickled))
        return Container(
            pickled,
            file_sha256(pickled),
            found.tensors,
            wrapper=found.wrapper,
            extras=found.extras,
        )
    path = check_container(path)
    try:
        sha256 = file_sha256(path)
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    for name, tensor in tensors.items():
        check_numbers(name, tensor, where=str(path))
    return Container(path, sha256, tensors, metadata)


def _find_pickled(path: str | Path) -> Path | None:
    path = Path(path).expanduser()
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError:
        return None
    if start.startswith((b"PK\x03\x04", LEGACY_MAGIC)):
        return path
    return None


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the texts of a safetensors file, and none of its tensors.

    Raises:
        WeightsError: As `read_container` does, but for the numbers, which are not looked at.
    """
    path = check_container(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def check_container(path: str | Path) -> Path:
    """Check that a file begins and ends as safetensors does, reading eight bytes of it.

    Returns:
        The path, if all is well.

    Raises:
        WeightsError: If the file is missing, unreadable, cut off, of another format, or has an
            oversized header.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        inside = path / "model.safetensors"
        hint = f"did you mean {inside}?" if inside.is_file() else "name the file itself."
        raise WeightsError(f"{path} is a folder, not a weight file; {hint}")
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is no ordinary file. Check the path.")
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise WeightsError(
            f"{path} could not be read: {error.strerror or error}. Check its permissions."
        ) from error
    if num_bytes < 9 or start[8:9] != b"{":
        raise WeightsError(_not_ours(path, start))
    header_bytes = int.from_bytes(start[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise WeightsError(
            f"{path} announces a header of {header_bytes:,} bytes; at most {MAX_HEADER_BYTES:,} "
            "are read. The file is damaged or not what it claims to be: fetch it again from a "
            "source that you trust."
        )
    if 8 + header_bytes > num_bytes:
        raise WeightsError(
            f"{path} is cut off: its header needs {8 + header_bytes:,} bytes and the whole file "
            f"has {num_bytes:,}. Copy or fetch it again."
        )
    return path


def check_numbers(name: str, tensor: Tensor, *, where: str) -> None:
    """Refuse a tensor of an unknown kind or with numbers that are not finite.

    Raises:
        WeightsError: Naming the tensor and how many of its numbers are NaN or infinite.
    """
    if tensor.dtype not in DTYPES:
        raise WeightsError(
            f"{where}: tensor {name} has dtype {tensor.dtype}, which is not read. "
            "Store it as float32, float16 or bfloat16."
        )
    num_bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
    if num_bad:
        raise WeightsError(
            f"{where}: {num_bad:,} of the {tensor.numel():,} numbers in {name} are NaN or "
            "infinite. Such weights come from a training that diverged: take an earlier "
            "checkpoint, or train again with a lower learning rate."
        )


def _not_ours(path: Path, start: bytes) -> str:
    what = next(
        (what for magic, what in OTHER_FILES if start.startswith(magic)),
        "no safetensors file: its header is missing" if start else "an empty file",
    )
    return (
        f"{path} is {what}. Voxlift reads weights from .safetensors files that hold its header "
        "(save_weights writes them). Pickled files (.pt, .pth, .ckpt) can run code when they are "
        "opened and are refused; the layouts of other projects are not read yet."
    )


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} is damaged or cut off: {error}. Expected a whole .safetensors file; copy or "
        "fetch it again."
    )
