"""A machine that follows the steps of a pickle and makes nothing.

Where a real one would call, import or allocate, this one puts a stand-in on its stack and checks
what it was asked for.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from voxlift.weights.pickle_names import DTYPES, KNOWN, MOVED, STORAGES
from voxlift.weights.plain import HARMLESS, PlainType

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


class UnsupportedStepError(Exception):
    """A step that is not followed; `torch.load(weights_only=True)` does not follow it either."""

    def __init__(self, opcode: pickletools.OpcodeInfo) -> None:
        super().__init__(opcode.name)
        self.opcode = opcode


Steps = Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]


class Machine:
    """Follows one pickle; see above."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[object, object] = {}
        self.storages: dict[str, Storage] = {}
        self.blocks: dict[str, Storage] = {}
        self.unknown: set[str] = set()

    def follow(self, steps: Steps) -> object:
        """Follow all steps and hand back the stand-in of what would be made.

        Raises:
            UnsupportedStepError: At a step of another kind.
            ValueError: Or another error of its kind, if the pickle is damaged.
        """
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
                raise UnsupportedStepError(opcode)
        raise ValueError("it ends too early")

    def to_mark(self) -> list[object]:
        """Take what was put on the stack since the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise ValueError("a list without a beginning")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def pop(self) -> object:
        """Take the last thing."""
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a list that is not closed")
        return value

    def take(self, num_items: int) -> list[object]:
        """Take the last things, in the order in which they came."""
        items = [self.pop() for _ in range(num_items)]
        return items[::-1]

    def remember(self, index: object) -> None:
        """Note the last thing for later."""
        self.memo[index] = self.stack[-1]

    def recall(self, index: object) -> None:
        """Put on the stack what was noted."""
        self.stack.append(self.memo[index])

    def ask(self, value: object) -> None:
        """Look up a name, and note it if it is none of those that are known."""
        module, _, name = str(value).partition(" ")
        full = f"{MOVED.get(module, module)}.{name}"
        if full not in KNOWN and full not in CALLS:
            self.unknown.add(full)
        self.stack.append(Global(full))

    def new_tuple(self, items: list[object]) -> None:
        """Make a tuple."""
        weight = 1 + sum(item.weight if isinstance(item, Sequence) else 1 for item in items)
        if weight > MAX_WEIGHT:
            raise ValueError("tuples nested in tuples without end")
        self.stack.append(Sequence(tuple(items), weight))

    def append(self, items: list[object]) -> None:
        """Append to a list."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("something appended to what is no list")
        target.extend(items)

    def build(self, _: object) -> None:
        """Pass over what would be set on the last thing."""
        self.pop()
        if self.stack[-1] is TENSOR:
            # It would move the tensor to another place in memory, unchecked.
            raise ValueError("a tensor that is changed once it is made")

    def call(self, _: object) -> None:
        """Check a call, and put a stand-in for its result on the stack."""
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
        """Check that a tensor lies within its block of numbers."""
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
        """Follow a tensor with a class or attributes."""
        function, kind, inner, _ = arguments
        if not isinstance(kind, Global) or not isinstance(inner, Sequence):
            raise TypeError("a tensor of no class")
        if kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            self.unknown.add(kind.name)
        return self._result(function, inner.items)


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"{str(value)[:40]} where a size was expected")
    return value


def _thing(_: Machine, arguments: tuple[object, ...]) -> object:
    del arguments
    return THING


def _parameter(_: Machine, arguments: tuple[object, ...]) -> object:
    return arguments[0]


def _size(_: Machine, arguments: tuple[object, ...]) -> object:
    return arguments[0]


def _encode(_: Machine, arguments: tuple[object, ...]) -> object:
    text, encoding = arguments
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes in an unknown form")
    return text.encode("latin1")


def _bytearray(_: Machine, arguments: tuple[object, ...]) -> object:
    # A number would be a length, and as many bytes be taken.
    if arguments and not isinstance(arguments[0], bytes | str):
        raise ValueError("bytes in an unknown form")
    return THING


Call = Callable[[Machine, tuple[object, ...]], object]

CALLS: dict[str, Call] = {
    "torch._utils._rebuild_tensor": Machine.tensor,
    "torch._utils._rebuild_tensor_v2": Machine.tensor,
    "torch._utils._rebuild_tensor_v3": Machine.typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": Machine.typed_subclass,
    "torch.Size": _size,
    "torch.device": _thing,
    "collections.OrderedDict": _thing,
    "collections.Counter": _thing,
    "builtins.set": _thing,
    "builtins.complex": _thing,
    "builtins.bytearray": _bytearray,
    "_codecs.encode": _encode,
    **{name: _thing for stand_in, name in HARMLESS if stand_in is not PlainType},
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

STEPS: dict[str, Callable[[Machine, object], object]] = {
    "PROTO": lambda reader, _: None,
    "GLOBAL": Machine.ask,
    "BINPERSID": Machine.refer,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.call,
    "BUILD": Machine.build,
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
    "BINGET": Machine.recall,
    "LONG_BINGET": Machine.recall,
    "BINPUT": Machine.remember,
    "LONG_BINPUT": Machine.remember,
}
"""Every step that `torch.load(weights_only=True)` follows; it refuses all others too."""
