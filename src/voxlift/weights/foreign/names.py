"""Names of tensors: what stands before them, and which belong together."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

WRAPPERS = ("module.", "_orig_mod.")
"""What stands before every name of a network that was saved in a wrapper: parallel, compiled."""


def strip_prefixes(
    tensors: Mapping[str, Value], prefixes: Iterable[str]
) -> tuple[dict[str, Value], str]:
    """Take away whatever chain of the given prefixes begins every name.

    A prefix that only some names bear says which belong together, and stays: see `split_prefix`.

    Args:
        tensors: By the names of the file.
        prefixes: Such as `module.` and `backbone.`; each may occur again, in any order.

    Returns:
        The tensors by their bare names, and the chain that was taken away, such as
        `module.backbone.`; empty if there was none.
    """
    prefixes, stripped = tuple(prefixes), ""
    kept = dict(tensors)
    while kept:
        shared = next((p for p in prefixes if _begins_all(kept, p)), None)
        if shared is None:
            break
        kept = {name[len(shared) :]: tensor for name, tensor in kept.items()}
        stripped += shared
    return kept, stripped


def split_prefix(
    tensors: Mapping[str, Value], prefix: str
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Part the tensors below a prefix from the others.

    Returns:
        Those below, without the prefix; and the others under their own names.
    """
    below = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    return below, others


def _begins_all(names: Iterable[str], prefix: str) -> bool:
    return bool(prefix) and all(n.startswith(prefix) and len(n) > len(prefix) for n in names)
