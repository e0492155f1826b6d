"""Find the tensors in what a checkpoint holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.weights.plain import PlainCopy

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


@dataclass(frozen=True)
class Unwrapped:
    """What a checkpoint holds.

    Args:
        tensors: By the names that the file gives them.
        wrapper: The key that they were under, `outer.inner` if nested, empty if there was none.
        extras: Everything else, as plain numbers, texts, lists and dictionaries.
    """

    tensors: dict[str, Tensor]
    wrapper: str
    extras: dict[str, object]


def unwrap(content: object, *, path: Path) -> Unwrapped:
    """Find the tensors in what a checkpoint holds.

    Raises:
        WeightsError: If it is no dictionary, or none of its entries is one of tensors.
    """
    plain = PlainCopy()
    keys: list[str] = []
    extras: dict[str, object] = {}
    level = content
    for _ in range(MAX_NESTED):
        if not isinstance(level, Mapping):
            break
        key = next((key for key in WRAPPERS if _holds_tensors(level.get(key))), None)
        if key is None:
            break
        for other, value in level.items():
            if other != key:
                _add(extras, str(other), _beside(str(other), value, key, plain))
        keys.append(key)
        level = level[key]
    if not isinstance(level, Mapping) or not _is_flat(level):
        raise WeightsError(_not_found(path, content))
    tensors: dict[str, Tensor] = {}
    for name, value in level.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            tensors[name] = value
        else:
            _add(extras, str(name), plain.of(value))
    return Unwrapped(tensors, ".".join(keys), extras)


def _holds_tensors(value: object, depth: int = 0) -> bool:
    if not isinstance(value, Mapping) or depth >= MAX_NESTED:
        return False
    return _is_flat(value) or any(_holds_tensors(value.get(key), depth + 1) for key in WRAPPERS)


def _is_flat(value: Mapping[object, object]) -> bool:
    """Tell whether most entries are tensors."""
    num_tensors = sum(isinstance(item, Tensor) for item in value.values())
    return num_tensors > 0 and 2 * num_tensors >= len(value)


def _beside(name: str, value: object, taken: str, plain: PlainCopy) -> object:
    """Describe an entry that stands beside the chosen one."""
    if name in WRAPPERS and _holds_tensors(value):
        return f"a dictionary of tensors, not read: {taken} is taken"
    if "optim" in name.lower():
        return "state of an optimizer, not read"
    return plain.of(value)


def _add(extras: dict[str, object], name: str, value: object) -> None:
    while name in extras:
        name += "'"
    extras[name] = value


def _not_found(path: Path, content: object) -> str:
    what = f"one {type(content).__name__}"
    if isinstance(content, Mapping):
        keys = [str(key)[:60] for key in list(content)[:10]]
        what = f"a dictionary with the keys {', '.join(keys)}" if keys else "an empty dictionary"
    return (
        f"{path} holds {what}. Expected a dictionary of tensors, by itself or under one of "
        f"{', '.join(WRAPPERS)}. If the tensors are deeper inside, take them out: "
        "torch.save(torch.load(FILE, weights_only=True)[...], NEW)."
    )
