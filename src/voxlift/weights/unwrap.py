"""Find the tensors in what a checkpoint holds."""

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.weights.plain_copy import PlainCopy

WRAPPERS = (
    "state_dict",
    "model",
    "net",
    "network_weights",
    "student",
    "teacher",
    "model_state_dict",
)
"""Keys under which checkpoints hold their tensors; the first that is there is taken."""

MAX_NESTED = 4

OTHER_NETWORK = "a dictionary of tensors, not read"
"""How the description of a network begins that stands beside the chosen one."""

NOTES = "_metadata"
"""The attribute of a state dict that torch itself writes and reads."""

Entries = dict[object, object]


@dataclass(frozen=True)
class Unwrapped:
    """What a checkpoint holds.

    Args:
        tensors: By the names that the file gives them.
        wrapper: The key that they were under, `outer.inner` if nested, empty if there was none.
        extras: Everything else, as plain numbers, texts, lists and dictionaries.
        modules: Names of the network's modules, those without tensors too, as torch notes them
            beside a state dict; none if it was copied into another dictionary.
        texts: What else is noted beside the state dict of the whole network.
    """

    tensors: dict[str, Tensor]
    wrapper: str
    extras: dict[str, object]
    modules: frozenset[str] = frozenset()
    texts: dict[str, str] = field(default_factory=dict)


def unwrap(content: object, *, path: Path) -> Unwrapped:
    """Find the tensors in what a checkpoint holds.

    Raises:
        WeightsError: If it is no dictionary, or none of its entries is one of tensors.
    """
    plain = PlainCopy()
    keys: list[str] = []
    extras: dict[str, object] = {}
    value, level = content, entries(content)
    while len(keys) < MAX_NESTED:
        key = next((key for key in WRAPPERS if _holds_tensors(level.get(key))), None)
        if key is None:
            break
        for other, beside in level.items():
            if other != key:
                _add(extras, other, _describe(other, beside, key, plain))
        keys.append(key)
        value = level[key]
        level = entries(value)
    if not _is_flat(level):
        raise WeightsError(_not_found(path, content))
    tensors: dict[str, Tensor] = {}
    for name, item in level.items():
        if isinstance(name, str) and isinstance(item, Tensor):
            tensors[name] = item
        else:
            _add(extras, name, plain.of(item))
    notes = _notes(value)
    modules = frozenset(name for name in notes if isinstance(name, str) and name)
    return Unwrapped(tensors, ".".join(keys), extras, modules, _texts(notes.get("")))


def entries(value: object) -> Entries:
    """Copy a dictionary of any class as an ordinary one; anything else gives an empty one."""
    # A pickle can give a dictionary attributes that hide its methods.
    return dict(dict.items(value)) if isinstance(value, dict) else {}


def _notes(value: object) -> Entries:
    """Take what torch keeps beside a state dict: an entry for each module of the network."""
    return entries(vars(value).get(NOTES)) if isinstance(value, OrderedDict) else {}


def _texts(notes: object) -> dict[str, str]:
    pairs = entries(notes).items()
    return {key: text for key, text in pairs if isinstance(key, str) and isinstance(text, str)}


def _holds_tensors(value: object, depth: int = 1) -> bool:
    level = entries(value)
    if not level or depth > MAX_NESTED:
        return False
    return _is_flat(level) or any(_holds_tensors(level.get(key), depth + 1) for key in WRAPPERS)


def _is_flat(level: Entries) -> bool:
    """Tell whether most entries are tensors."""
    num_tensors = sum(isinstance(item, Tensor) for item in level.values())
    return num_tensors > 0 and 2 * num_tensors >= len(level)


def _describe(name: object, value: object, taken: str, plain: PlainCopy) -> object:
    """Describe an entry that stands beside the chosen one."""
    if isinstance(name, str) and "optim" in name.lower() and isinstance(value, dict | list):
        return "state of an optimizer, not read"
    if isinstance(value, dict) and _holds_tensors(value):
        return f"{OTHER_NETWORK}: {taken} is taken"
    return plain.of(value)


def _add(extras: dict[str, object], name: object, value: object) -> None:
    text = name[:200] if isinstance(name, str) else f"({name!s:.40})"
    while text in extras:
        text += "'"
    extras[text] = value


def _not_found(path: Path, content: object) -> str:
    what = f"one {type(content).__name__}"
    if isinstance(content, dict):
        keys = [key[:60] for key in entries(content) if isinstance(key, str)][:10]
        what = f"a dictionary with the keys {', '.join(keys)}" if keys else "an empty dictionary"
    return (
        f"{path} holds {what}. Expected a dictionary of tensors, by itself or under one of "
        f"{', '.join(WRAPPERS)}. If the tensors are deeper inside, take them out: "
        "torch.save(torch.load(FILE, weights_only=True)[...], NEW)."
    )
