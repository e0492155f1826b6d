"""Files of `torch.save`, read without running anything that they hold.

Before `torch.load` sees a file, its pickle is followed without being obeyed (`inventory`), so that
what it asks for, how large its tensors are and whether the numbers are there is known in advance.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.weights.archive import Archive
from voxlift.weights.consent import CodeNeededError, read_with_code
from voxlift.weights.file_kind import ZIP_MAGIC
from voxlift.weights.inventory import (
    BrokenPickleError,
    Inventory,
    take_inventory,
)
from voxlift.weights.pickle_machine import Storage
from voxlift.weights.plain import HARMLESS
from voxlift.weights.unwrap import Unwrapped, unwrap

NUM_LEGACY_HEADERS = 3
_LOCK = threading.Lock()


def read_pickled(path: Path, *, allow_code: bool = False) -> Unwrapped:
    """Read the tensors of a file of `torch.save` and what stands beside them.

    Args:
        path: A file that begins as those of `torch.save` do.
        allow_code: Whether a file that cannot be read otherwise may run code.

    Raises:
        WeightsError: If it is damaged, asks for code that is not allowed, pretends to be larger
            than it is, or holds no dictionary of tensors.
    """
    try:
        with path.open("rb") as stream:
            num_bytes = stream.seek(0, 2)
            try:
                content = _read_safely(stream, path)
            except CodeNeededError:
                if not allow_code:
                    raise
                content = read_with_code(stream, path)
    except OSError as error:
        raise WeightsError(f"{path} could not be read: {error.strerror or error}.") from error
    found = unwrap(content, path=path)
    tensors = {
        name: _plain_tensor(name, tensor, num_bytes, path) for name, tensor in found.tensors.items()
    }
    return replace(found, tensors=tensors)


def _read_safely(stream: BinaryIO, path: Path) -> object:
    stream.seek(0)
    try:
        if stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            _check_zip(stream, path)
        else:
            _check_legacy(stream, path)
    except BrokenPickleError as error:
        raise _damaged(path, str(error)) from error
    stream.seek(0)
    try:
        with _nothing_but_harmless(), warnings.catch_warnings():
            # Of what torch warns here, the user can change nothing: old forms of storage.
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged pickle can fail in any of torch's functions.
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


@contextmanager
def _nothing_but_harmless() -> Iterator[None]:
    """Let unpickled files ask for tensors and `HARMLESS`, whatever others have allowed before."""
    with _LOCK:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            torch.serialization.add_safe_globals(list(HARMLESS))
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)


def _check_zip(stream: BinaryIO, path: Path) -> None:
    """Check that an archive holds every block of numbers that its pickle refers to."""
    archive = Archive(stream, path=path)
    inventory = take_inventory(BytesIO(archive.pickle()), path=path)
    found = archive.storages()
    for key, storage in inventory.storages.items():
        _check_block(storage, found.get(key))


def _check_legacy(stream: BinaryIO, path: Path) -> None:
    """Check that a file without an archive holds every block of numbers, and each once."""
    num_bytes = stream.seek(0, 2)
    stream.seek(0)
    for _ in range(NUM_LEGACY_HEADERS):
        take_inventory(stream, path=path)
    storages = take_inventory(stream, path=path).storages
    keys = _keys(take_inventory(stream, path=path))
    if sorted(keys) != sorted(storages):
        raise BrokenPickleError("the blocks of numbers are not those that its pickle refers to")
    for key in keys:
        num_items = int.from_bytes(stream.read(8), "little", signed=True)
        storage = storages[key]
        _check_block(storage, num_items * storage.item_bytes)
        there = min(num_items * storage.item_bytes, num_bytes - stream.tell())
        _check_block(storage, there)
        stream.seek(there, 1)


def _keys(inventory: Inventory) -> list[str]:
    keys = inventory.result
    if not isinstance(keys, list):
        raise BrokenPickleError("its list of blocks of numbers is missing")
    return [key if isinstance(key, str) else "" for key in keys]


def _check_block(storage: Storage, num_bytes: int | None) -> None:
    wanted = storage.num_items * storage.item_bytes
    if num_bytes != wanted:
        raise BrokenPickleError(
            f"block {storage.key[:40]} should have {wanted:,} bytes and has {num_bytes or 0:,}"
        )


def _plain_tensor(name: str, tensor: Tensor, num_bytes: int, path: Path) -> Tensor:
    """Take a tensor as it is, without its class, its gradient and its attributes."""
    where = f"{path}: tensor {name[:200]}"
    # The functions of the class: a pickle can give a tensor attributes that hide its methods.
    plain = Tensor.detach(tensor)
    if plain.layout is not torch.strided or plain.is_quantized or plain.is_nested:
        raise WeightsError(f"{where} is quantized, sparse or nested, which is not read.")
    if plain.device.type != "cpu":
        raise WeightsError(f"{where} has no numbers: it was saved on the {plain.device} device.")
    held = plain.untyped_storage().nbytes()
    if plain.numel() * plain.itemsize > held or held > num_bytes:
        raise WeightsError(
            f"{where} is stretched over more numbers ({plain.numel():,}) than the file holds for "
            "it. Save it with .contiguous()."
        )
    return plain if type(plain) is Tensor else plain.as_subclass(Tensor)


def _damaged(path: Path, how: str) -> WeightsError:
    return WeightsError(f"{path} is damaged or cut off: {how[:300]}. Copy or fetch it again.")
