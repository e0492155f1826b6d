"""What a pickle would build, told without building it.

A pickle is a small program. Here its steps are followed with stand-ins for all that it would make,
so that nothing is called, imported or allocated. What comes out is which names it asks for and
which tensors it would lay over which blocks of numbers: enough to refuse a file before it is read.
"""

import pickletools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from voxlift.core.errors import WeightsError
from voxlift.weights.consent import CodeNeededError
from voxlift.weights.pickle_names import DTYPES, KNOWN, MOVED, STORAGES, UNREADABLE
from voxlift.weights.plain import HARMLESS

MAX_STEPS = 5_000_000
"""More than any network and its optimizer take; a million are a second or two of work."""

MAX_WEIGHT = 100_000
"""Items of a tuple with all the tuples in it; a short pickle can nest them without end."""


@dataclass(frozen=True)
class Global:
    """A name that a pickle asks for."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A block of numbers, or a part of one."""

    key: str
    start: int
    num_items: int
    item_bytes: int


@dataclass(frozen=True)
class Sequence:
    """A tuple, and how many items it has with all the tuples in it."""

    items: tuple[object, ...]
    weight: int


class Thing:
    """Anything of which nothing needs to be known."""


THING = Thing()
TENSOR = Thing()
MARK = Thing()


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
    reader = _Reader()
    result: object = None
    broken: Exception | None = None
    try:
        result = reader.follow(pickletools.genops(stream))
    except _UnsupportedError as error:
        raise CodeNeededError(path, f"is pickled in a way that is not read: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError) as error:
        broken = error
    kinds = sorted({UNREADABLE[name] for name in reader.unknown if name in UNREADABLE})
    if kinds:
        raise WeightsError(
            f"{path} holds {' and '.join(kinds)} tensors, which are not read. Save it again with "
            "ordinary tensors in main memory."
        )
    # What follows an unknown name cannot be followed; it says nothing about the file.
    if reader.unknown:
        asks = f"asks for more than tensors and plain values: {_list(reader.unknown)}"
        raise CodeNeededError(path, asks) from broken
    if broken is not None:
        raise BrokenPickleError(str(broken) or type(broken).__name__) from broken
    return Inventory(result, reader.storages)


class _UnsupportedError(Exception):
    pass


Steps = Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]


class _Reader:
    """A machine for pickles that makes nothing."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[object, object] = {}
        self.storages: dict[str, Storage] = {}
        self.blocks: dict[str, Storage] = {}
        self.unknown: set[str] = set()

    def follow(self, steps: Steps) -> object:
        for count, (opcode, value, _) in enumerate(steps):
            if count > MAX_STEPS:
                raise ValueError("it has no end")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in LITERALS:
                self.stack.append(value)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in STEPS:
                STEPS[name](self, value)
            else:
                raise _UnsupportedError(_unsupported(opcode, steps))
        raise ValueError("it ends too early")

    def to_mark(self) -> list[object]:
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise ValueError("a list without a beginning")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def pop(self) -> object:
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a list that is not closed")
        return value

    def take(self, num_items: int) -> list[object]:
        items = [self.pop() for _ in range(num_items)]
        return items[::-1]

    def remember(self, index: object) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: object) -> None:
        self.stack.append(self.memo[index])

    def ask(self, value: object) -> None:
        module, _, name = str(value).partition(" ")
        full = f"{MOVED.get(module, module)}.{name}"
        if full not in KNOWN and full not in CALLS:
            self.unknown.add(full)
        self.stack.append(Global(full))

    def new_tuple(self, items: list[object]) -> None:
        weight = 1 + sum(item.weight if isinstance(item, Sequence) else 1 for item in items)
        if weight > MAX_WEIGHT:
            raise ValueError("tuples nested in tuples without end")
        self.stack.append(Sequence(tuple(items), weight))

    def append(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("something appended to what is no list")
        target.extend(items)

    def build(self, _: object) -> None:
        self.pop()
        if self.stack[-1] is TENSOR:
            # It would move the tensor to another place in memory, unchecked.
            raise ValueError("a tensor that is changed once it is made")

    def call(self, _: object) -> None:
        function, arguments = self.take(2)
        if not isinstance(arguments, Sequence):
            raise TypeError("a call without arguments")
        self.stack.append(self._result(function, arguments.items))

    def _result(self, function: object, arguments: tuple[object, ...]) -> object:
        if not isinstance(function, Global):
            raise TypeError("a call of what is no function")
        if function.name in CALLS:
            return CALLS[function.name](self, arguments)
        self.unknown.add(function.name)
        return THING

    def refer(self, _: object) -> None:
        """Take a block of numbers, which `torch.save` keeps outside the pickle."""
        target = self.pop()
        if isinstance(target, Sequence) and target.items[0] == "module":
            self.unknown.add("the code of a network")
            self.stack.append(target.items[1])
            return
        if not isinstance(target, Sequence) or target.items[0] != "storage":
            raise TypeError("a reference to what is no block of numbers")
        kind, key, _, num_items, *view = target.items[1:]
        if not isinstance(kind, Global) or not isinstance(key, str):
            raise TypeError("a block of numbers without a kind or a name")
        if kind.name not in STORAGES:
            self.unknown.add(kind.name)
            self.stack.append(THING)
            return
        storage = Storage(key, 0, _count(num_items), STORAGES[kind.name])
        self.storages[key] = self._same(key, storage)
        if view and view[0] is not None:
            if not isinstance(view[0], Sequence):
                raise TypeError(f"a part of block {key} without a place")
            view_key, start, length = view[0].items
            part = Storage(key, _count(start), _count(length), storage.item_bytes)
            if not isinstance(view_key, str) or part.start + part.num_items > storage.num_items:
                raise ValueError(f"a part of block {key} that lies outside of it")
            storage = self._same(view_key, part)
        self.stack.append(storage)

    def _same(self, name: str, storage: Storage) -> Storage:
        if self.blocks.setdefault(name, storage) != storage:
            raise ValueError(f"block {name} is described in two ways")
        return storage

    def tensor(self, arguments: tuple[object, ...]) -> object:
        storage, start, shape, strides = arguments[:4]
        if not isinstance(storage, Storage):
            return TENSOR
        if not isinstance(shape, Sequence) or not isinstance(strides, Sequence):
            raise TypeError("a tensor without a shape")
        if len(shape.items) != len(strides.items):
            raise ValueError("a tensor whose shape and strides differ in length")
        sizes = [_count(size) for size in shape.items]
        steps = [_count(step) for step in strides.items]
        last = _count(start) + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
        if all(sizes) and last >= storage.num_items:
            raise ValueError(
                f"a tensor of shape {tuple(sizes)} in block {storage.key}, which has "
                f"{storage.num_items:,} numbers"
            )
        return TENSOR

    def typed_tensor(self, arguments: tuple[object, ...]) -> object:
        """Follow a tensor with its own precision, over a block of bytes."""
        storage, start, shape, strides, _, _, dtype = arguments[:7]
        if isinstance(storage, Storage) and isinstance(dtype, Global) and dtype.name in DTYPES:
            item_bytes = DTYPES[dtype.name]
            num_items = storage.num_items * storage.item_bytes // item_bytes
            storage = Storage(storage.key, 0, num_items, item_bytes)
        return self.tensor((storage, start, shape, strides))

    def typed_subclass(self, arguments: tuple[object, ...]) -> object:
        function, kind, inner, _ = arguments
        if not isinstance(kind, Global) or not isinstance(inner, Sequence):
            raise TypeError("a tensor of no class")
        if kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            self.unknown.add(kind.name)
        return self._result(function, inner.items)


def _unsupported(opcode: pickletools.OpcodeInfo, steps: Steps) -> str:
    """Name a step that is not followed, and what the rest of the pickle asks for."""
    names: list[str] = []
    texts: deque[str] = deque(["?", "?"], maxlen=2)
    for _, (step, value, _) in zip(range(MAX_STEPS), steps, strict=False):
        if step.name == "GLOBAL":
            names.append(str(value).replace(" ", "."))
        elif step.name == "STACK_GLOBAL":
            names.append(".".join(texts))
        elif isinstance(value, str):
            texts.append(value)
    asks = f"; it asks for {_list(names)}" if names else ""
    return f"step {opcode.name} of pickle protocol {opcode.proto}{asks}"


def _list(names: Iterable[str]) -> str:
    """List names that may be of any length and hold any signs."""
    listed = sorted(set(names))
    shown = [ascii(name[:80])[1:-1] for name in listed[:8]]
    return ", ".join(shown) + (" ..." if len(listed) > len(shown) else "")


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"{str(value)[:40]} where a size was expected")
    return value


def _thing(_: _Reader, arguments: tuple[object, ...]) -> object:
    del arguments
    return THING


def _parameter(_: _Reader, arguments: tuple[object, ...]) -> object:
    return arguments[0]


def _size(_: _Reader, arguments: tuple[object, ...]) -> object:
    return arguments[0]


def _encode(_: _Reader, arguments: tuple[object, ...]) -> object:
    text, encoding = arguments
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes in an unknown form")
    return text.encode("latin1")


def _bytearray(_: _Reader, arguments: tuple[object, ...]) -> object:
    # A number would be a length, and as many bytes be taken.
    if arguments and not isinstance(arguments[0], bytes | str):
        raise ValueError("bytes in an unknown form")
    return THING


Call = Callable[[_Reader, tuple[object, ...]], object]

CALLS: dict[str, Call] = {
    "torch._utils._rebuild_tensor": _Reader.tensor,
    "torch._utils._rebuild_tensor_v2": _Reader.tensor,
    "torch._utils._rebuild_tensor_v3": _Reader.typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _Reader.typed_subclass,
    "torch.Size": _size,
    "torch.device": _thing,
    "collections.OrderedDict": _thing,
    "collections.Counter": _thing,
    "builtins.set": _thing,
    "builtins.complex": _thing,
    "builtins.bytearray": _bytearray,
    "_codecs.encode": _encode,
    **{name: _thing for _, name in HARMLESS},
}
"""What a pickle may call, and what is done instead."""

LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING"),
}

CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "MARK": MARK,
    "EMPTY_DICT": THING,
    "EMPTY_SET": THING,
}

STEPS: dict[str, Callable[[_Reader, object], object]] = {
    "PROTO": lambda reader, _: None,
    "GLOBAL": _Reader.ask,
    "BINPERSID": _Reader.refer,
    "REDUCE": _Reader.call,
    "NEWOBJ": _Reader.call,
    "BUILD": _Reader.build,
    "EMPTY_LIST": lambda reader, _: reader.stack.append([]),
    "APPEND": lambda reader, _: reader.append(reader.take(1)),
    "APPENDS": lambda reader, _: reader.append(reader.to_mark()),
    "SETITEM": lambda reader, _: reader.take(2),
    "SETITEMS": lambda reader, _: reader.to_mark(),
    "EMPTY_TUPLE": lambda reader, _: reader.new_tuple([]),
    "TUPLE": lambda reader, _: reader.new_tuple(reader.to_mark()),
    "TUPLE1": lambda reader, _: reader.new_tuple(reader.take(1)),
    "TUPLE2": lambda reader, _: reader.new_tuple(reader.take(2)),
    "TUPLE3": lambda reader, _: reader.new_tuple(reader.take(3)),
    "BINGET": _Reader.recall,
    "LONG_BINGET": _Reader.recall,
    "BINPUT": _Reader.remember,
    "LONG_BINPUT": _Reader.remember,
}
"""Every step that `torch.load(weights_only=True)` follows; it refuses all others too."""
