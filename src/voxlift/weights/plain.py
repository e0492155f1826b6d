"""Plain stand-ins for what checkpoints hold beside tensors, and plain copies of it.

Where a pickle asks for one of `HARMLESS`, it is given a stand-in from this file and never the real
thing: NumPy's own classes trust the bytes that they are built from.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np
from torch import Tensor

MAX_ITEMS = 20_000
MAX_DEPTH = 20
MAX_TEXT = 100_000
MAX_LISTED = 256
NUMBERS = re.compile(r"[biuf][1248]")

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


class PlainDtype:
    """Stands in for `numpy.dtype`."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = str(name)
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        """Keep the byte order, the only part of the state that numbers have."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"

    def numbers(self, data: object) -> list[Plain]:
        """Read numbers; none if these are bytes of another kind."""
        if isinstance(data, str):
            data = data.encode("latin1")
        if not isinstance(data, bytes) or not NUMBERS.fullmatch(self.name):
            return []
        dtype = np.dtype(self.order + self.name)
        values: list[Plain] = np.frombuffer(
            data[: len(data) // dtype.itemsize * dtype.itemsize], dtype
        ).tolist()
        return values


class PlainArray:
    """Stands in for `numpy.ndarray`."""

    def __init__(self, *_: object) -> None:
        self.values: list[Plain] = []
        self.text = "an array"

    def __setstate__(self, state: object) -> None:
        """Keep the numbers of a short array, and of others what they are."""
        if not isinstance(state, tuple) or len(state) != 5:
            return
        _, shape, dtype, _, data = state
        if isinstance(dtype, PlainDtype):
            self.text = f"array of {dtype.name}, shape {shape}"
            if isinstance(data, bytes | str) and len(data) <= 8 * MAX_LISTED:
                self.values = dtype.numbers(data)


class PlainObject:
    """Stands in for classes that hold attributes and do nothing."""

    def __init__(self, *_: object) -> None:
        pass


class PlainDict:
    """Stands in for classes of dictionaries; what is made is an ordinary one."""

    def __new__(cls, *args: object) -> dict[object, object]:  # type: ignore[misc]
        """Make an ordinary dictionary."""
        return dict(args[0]) if args and isinstance(args[0], dict) else {}


class PlainType:
    """Stands in for a class that is named and not used, as in `defaultdict(list)`."""


def plain_scalar(dtype: object, data: object = b"") -> Plain:
    """Stand in for the function that rebuilds a NumPy scalar."""
    numbers = dtype.numbers(data) if isinstance(dtype, PlainDtype) else []
    return numbers[0] if len(numbers) == 1 else None


def plain_array(*_: object) -> PlainArray:
    """Stand in for the function that rebuilds a NumPy array."""
    return PlainArray()


def plain_path(*parts: object) -> str:
    """Stand in for the classes of paths."""
    return "/".join(str(part) for part in parts)


def plain_set(items: Iterable[object] = ()) -> list[object]:
    """Stand in for `frozenset`."""
    return list(items)


HARMLESS: tuple[tuple[Callable[..., object], str], ...] = (
    (plain_scalar, "numpy.core.multiarray.scalar"),
    (plain_scalar, "numpy._core.multiarray.scalar"),
    (plain_array, "numpy.core.multiarray._reconstruct"),
    (plain_array, "numpy._core.multiarray._reconstruct"),
    (PlainArray, "numpy.ndarray"),
    (PlainDtype, "numpy.dtype"),
    (PlainObject, "argparse.Namespace"),
    (PlainObject, "types.SimpleNamespace"),
    (PlainDict, "collections.defaultdict"),
    (PlainDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (PlainDict, "lightning.pytorch.utilities.parsing.AttributeDict"),
    (PlainDict, "lightning_fabric.utilities.data.AttributeDict"),
    (PlainDict, "lightning.fabric.utilities.data.AttributeDict"),
    (plain_path, "pathlib.Path"),
    (plain_path, "pathlib.PosixPath"),
    (plain_path, "pathlib.WindowsPath"),
    (plain_path, "pathlib._local.PosixPath"),
    (plain_path, "pathlib._local.WindowsPath"),
    (plain_set, "builtins.frozenset"),
    (PlainType, "builtins.bool"),
    (PlainType, "builtins.dict"),
    (PlainType, "builtins.float"),
    (PlainType, "builtins.int"),
    (PlainType, "builtins.list"),
    (PlainType, "builtins.str"),
    (PlainType, "builtins.tuple"),
)
"""What a pickle may ask for beyond tensors, and what it is given instead."""


class PlainCopy:
    """Makes plain copies of what was unpickled, up to a number of items in all."""

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self.left = max_items

    def of(self, value: object, depth: int = 0) -> Plain:
        """Copy numbers, texts, lists and dictionaries; describe all else in a few words."""
        self.left -= 1
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + " ..."
        if isinstance(value, Tensor):
            return describe_tensor(value)
        if isinstance(value, PlainArray):
            return list(value.values) or value.text
        if isinstance(value, PlainDtype):
            return value.name
        if self.left <= 0 or depth > MAX_DEPTH:
            return "... (left out: too much)"
        if isinstance(value, PlainObject):
            value = vars(value)
        if isinstance(value, dict):
            return self._dict(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, depth)
        return f"{type(value).__name__}: {str(value)[:200]}" if _is_torch(value) else _kind(value)

    def _dict(self, value: dict[object, object], depth: int) -> Plain:
        copy: dict[str, Plain] = {}
        for key, item in value.items():
            if self.left <= 0:
                copy["..."] = "left out: too much"
                break
            copy[str(self.of(key, MAX_DEPTH))] = self.of(item, depth + 1)
        return copy

    def _list(self, value: Iterable[object], depth: int) -> Plain:
        copy: list[Plain] = []
        for item in value:
            if self.left <= 0:
                copy.append("... (left out: too much)")
                break
            copy.append(self.of(item, depth + 1))
        return copy


def describe_tensor(tensor: Tensor) -> str:
    """Name a tensor's precision and shape."""
    shape = " x ".join(str(size) for size in tensor.shape) or "one number"
    return f"tensor of {str(tensor.dtype).removeprefix('torch.')}, {shape}"


def _is_torch(value: object) -> bool:
    return type(value).__module__ == "torch"


def _kind(value: object) -> str:
    return f"(a {type(value).__name__})"
