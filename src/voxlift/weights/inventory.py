"""What a pickle would build, told without building it.

A pickle is a small program. Here its steps are followed with stand-ins for all that it would make,
so that nothing is called, imported or allocated. What comes out is which names it asks for and
which tensors it would lay over which blocks of numbers: enough to refuse a file before it is read.
"""

import pickletools
import warnings
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from voxlift.core.errors import WeightsError
from voxlift.weights.consent import CodeNeededError
from voxlift.weights.pickle_machine import (
    CALLS,
    MAX_STEPS,
    Machine,
    Steps,
    Storage,
    UnsupportedStepError,
)
from voxlift.weights.pickle_names import KNOWN, UNREADABLE


@dataclass(frozen=True)
class Inventory:
    """What a pickle would build.

    Args:
        result: The outermost object, as a stand-in.
        storages: The blocks of numbers that it refers to, by key.
    """

    result: object
    storages: dict[str, Storage]


class BrokenPickleError(Exception):
    """A pickle that is damaged; the text says how."""


def take_inventory(stream: BinaryIO, *, path: Path) -> Inventory:
    """Follow one pickle to its end and leave the stream behind it.

    Raises:
        CodeNeededError: If it asks for anything but tensors and plain values.
        BrokenPickleError: If it is damaged.
    """
    machine = Machine()
    result: object = None
    broken: Exception | None = None
    how = "asks for more than tensors and plain values"
    try:
        with warnings.catch_warnings():
            # Of texts with strange escapes, which only damaged pickles have.
            warnings.simplefilter("ignore")
            steps = pickletools.genops(cast(BinaryIO, Bounded(stream)))
            try:
                result = machine.follow(steps)
            except UnsupportedStepError as error:
                how = f"is damaged, or pickled by protocol {error.opcode.proto}, which is not read"
                machine.unknown |= {f"step {error.opcode.name}", *_rest(steps)}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError) as error:
        broken = error
    kinds = sorted({UNREADABLE[name] for name in machine.unknown if name in UNREADABLE})
    if kinds:
        raise WeightsError(
            f"{path} holds {' and '.join(kinds)} tensors, which are not read. Save it again with "
            "ordinary tensors in main memory."
        )
    # What follows an unknown name cannot be followed; it says nothing about the file.
    if machine.unknown:
        raise CodeNeededError(path, f"{how}: {_list(machine.unknown)}") from broken
    if broken is not None:
        raise BrokenPickleError(str(broken) or type(broken).__name__) from broken
    return Inventory(result, machine.storages)


class Bounded:
    """A stream that never makes room for more than is left of its file."""

    def __init__(self, stream: BinaryIO) -> None:
        here = stream.tell()
        self.num_bytes = stream.seek(0, 2)
        stream.seek(here)
        self.tell = stream.tell
        self.readline = stream.readline
        self._read = stream.read

    def read(self, num_bytes: int) -> bytes:
        """Read some bytes, or those that are left."""
        if num_bytes > 64:
            num_bytes = min(num_bytes, self.num_bytes - self.tell())
        return self._read(num_bytes)


def _rest(steps: Steps) -> set[str]:
    """Name what the steps that are not followed ask for."""
    names: set[str] = set()
    memo: dict[object, str] = {}
    texts: deque[str] = deque(["?", "?"], maxlen=2)
    top = "?"
    for step, value, _ in islice(steps, MAX_STEPS):
        if step.name == "MEMOIZE":
            memo[len(memo)] = top
            continue
        recalled = memo.get(value, "?") if step.name in ("BINGET", "LONG_BINGET") else "?"
        top = value if isinstance(value, str) else recalled
        if step.name == "GLOBAL":
            names.add(top.replace(" ", "."))
        elif step.name == "STACK_GLOBAL":
            names.add(".".join(texts))
        elif top != "?":
            texts.append(top)
    return {name for name in names if name not in KNOWN and name not in CALLS}


def _list(names: Iterable[str]) -> str:
    """List names that may be of any length and hold any signs."""
    listed = sorted(set(names))
    shown = [ascii(name[:80])[1:-1] for name in listed[:8]]
    return ", ".join(shown) + (" ..." if len(listed) > len(shown) else "")
