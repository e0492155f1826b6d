"""The outer shell of a weight file: is it whole, is it safe to read, what tensors does it hold.

A safetensors file holds numbers and text and can run nothing; a pickled file of `torch.save` is
read in a way that lets it run nothing. Everything that a damaged or hostile file could do is
checked before its tensors are touched.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.weights.digest import check_published_hash, file_sha256
from voxlift.weights.file_kind import describe_file, is_torch_file
from voxlift.weights.pickled import read_pickled

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

START_BYTES = 512
"""As many as tell what a file is."""


@dataclass(frozen=True)
class Container:
    """The tensors and texts of a weight file, before anyone has said what they mean.

    Args:
        path: The file.
        sha256: Of the whole file, in hexadecimal.
        tensors: By the names that the file gives them.
        metadata: Texts that stand beside the tensors; of a pickled file those that torch keeps
            beside a state dict.
        wrapper: Of a pickled file: the key under which it held the tensors; empty if flat.
        extras: Of a pickled file: what else it holds, such as an epoch or a plan.
        modules: Of a pickled file: names of the network's modules, those without tensors too; none
            if nothing is said of them.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    wrapper: str = ""
    extras: dict[str, object] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()


def read_container(path: str | Path, *, allow_code: bool = False) -> Container:
    """Read every tensor of a safetensors file or one of `torch.save`, or say why not.

    Which of the two it is, its first bytes tell, never its name.

    Args:
        path: The file.
        allow_code: Whether a pickled file that cannot be read otherwise may run the code that it
            asks for, after a warning. Only for files whose maker you trust.

    Raises:
        WeightsError: If the file is missing, unreadable, cut off, of another format, has an
            oversized header, asks for code, is not the one that its name promises by a hash, or
            holds NaN or infinite numbers.
    """
    path, start, _ = _look(path)
    pickled = is_torch_file(start)
    if not pickled:
        check_container(path)
    try:
        sha256 = file_sha256(path)
        check_published_hash(path, sha256)
        if pickled:
            found = read_pickled(path, allow_code=allow_code)
            container = Container(
                path,
                sha256,
                found.tensors,
                metadata=found.texts,
                wrapper=found.wrapper,
                extras=found.extras,
                modules=found.modules,
            )
        else:
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            container = Container(path, sha256, tensors, metadata)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    for name, tensor in container.tensors.items():
        check_numbers(name, tensor, where=str(path))
    return container


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
    path, start, num_bytes = _look(path)
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


def _look(path: str | Path) -> tuple[Path, bytes, int]:
    """Find a file, its first bytes and its size."""
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
            start = stream.read(START_BYTES)
    except OSError as error:
        raise WeightsError(
            f"{path} could not be read: {error.strerror or error}. Check its permissions."
        ) from error
    return path, start, num_bytes


def check_numbers(name: str, tensor: Tensor, *, where: str) -> None:
    """Refuse a tensor of an unknown kind, or with numbers that cannot be.

    Raises:
        WeightsError: Naming the tensor and how many of its numbers are NaN or infinite, or that a
            variance is negative.
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
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise WeightsError(
            f"{where}: {name} holds negative numbers, but variances are none; the network would "
            "answer NaN. The file is damaged or was edited: fetch it again."
        )


def _not_ours(path: Path, start: bytes) -> str:
    return (
        f"{path} is {describe_file(path, start)}. Expected a .safetensors file with a header, such "
        "as save_weights writes, or for other projects' weights a file of torch.save (.pth, .pt, "
        ".ckpt), which is read as far as it can run no code."
    )


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} is damaged or cut off: {error}. Expected a whole .safetensors file; copy or "
        "fetch it again."
    )
