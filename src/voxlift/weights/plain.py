"""Plain stand-ins for what checkpoints hold beside tensors.

Where a pickle asks for one of `HARMLESS`, it is given a stand-in from this file and never the real
thing: NumPy's own classes trust the bytes that they are built from.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np

MAX_LISTED = 256
NUMBERS = re.compile(r"[biuf][1248]")

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


class PlainDtype:
    """Stands in for `numpy.dtype`."""

    name = ""
    order = "<"

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = name if isinstance(name, str) else ""

    def __setstate__(self, state: object) -> None:
        """Keep the byte order, the only part of the state that numbers have."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"

    def numbers(self, data: object) -> list[Plain]:
        """Read numbers; none if these are bytes of another kind."""
        if isinstance(data, str):
            data = data.encode("latin1", "replace")
        if not isinstance(data, bytes) or not NUMBERS.fullmatch(self.name):
            return []
        item_bytes = int(self.name[1:])
        if len(data) % item_bytes or self.name in ("b2", "b4", "b8", "f1"):
            return []
        values: list[Plain] = np.frombuffer(data, self.order + self.name).tolist()
        return values


class PlainArray:
    """Stands in for `numpy.ndarray`."""

    values: tuple[Plain, ...] = ()
    text = "an array"

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Keep the numbers of a short array, and of others what they are."""
        if not isinstance(state, tuple) or len(state) != 5:
            return
        _, shape, dtype, _, data = state
        if not isinstance(dtype, PlainDtype):
            return
        if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape[:9]):
            self.text = f"array of {dtype.name}, {times(shape[:9])}"
        if isinstance(data, bytes | str) and len(data) <= 8 * MAX_LISTED:
            self.values = tuple(dtype.numbers(data))


class PlainObject:
    """Stands in for classes that hold attributes and do nothing."""

    state: object = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Keep the attributes, as no attributes."""
        self.state = state


class PlainDict:
    """Stands in for classes of dictionaries; what is made is an ordinary one."""

    def __new__(cls, *args: object) -> dict[object, object]:  # type: ignore[misc]
        """Make an ordinary dictionary."""
        return dict(args[0]) if args and isinstance(args[0], dict) else {}


class PlainType:
    """Stands in for a class that is named and not used, as in `defaultdict(list)`."""


def times(shape: Iterable[int]) -> str:
    """Write a shape."""
    return " x ".join(str(size) for size in shape) or "one number"


def plain_scalar(dtype: object, data: object = b"") -> Plain:
    """Stand in for the function that rebuilds a NumPy scalar."""
    numbers = dtype.numbers(data) if isinstance(dtype, PlainDtype) else []
    return numbers[0] if len(numbers) == 1 else None


def plain_array(*_: object) -> PlainArray:
    """Stand in for the function that rebuilds a NumPy array."""
    return PlainArray()


def plain_path(*parts: object) -> str:
    """Stand in for the classes of paths."""
    texts = [part for part in parts if isinstance(part, str)]
    return "/".join(texts).replace("//", "/", 1)


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
    *(
        (plain_path, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
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
