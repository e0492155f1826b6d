"""Plain copies of what checkpoints hold beside tensors."""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from voxlift.weights.plain import MAX_LISTED, Plain, PlainArray, PlainDtype, PlainObject, times

MAX_ITEMS = 20_000
MAX_DEPTH = 20
MAX_TEXT = 100_000
TOO_MUCH = "... (left out: too much)"


class PlainCopy:
    """Makes plain copies of what was unpickled, up to a number of items in all."""

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self.left = max_items

    def of(self, value: object, depth: int = 0) -> Plain:
        """Copy numbers, texts, lists and dictionaries; describe all else in a few words."""
        self.left -= 1
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + TOO_MUCH
        if self.left <= 0 or depth > MAX_DEPTH:
            return TOO_MUCH
        if isinstance(value, PlainObject):
            value = value.state
        if isinstance(value, Namespace | SimpleNamespace):
            value = vars(value)
        if isinstance(value, dict):
            return self._dict(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, depth)
        return _in_words(value)

    def _dict(self, value: dict[object, object], depth: int) -> Plain:
        copy: dict[str, Plain] = {}
        # A pickle can give a dictionary attributes that hide its methods.
        for key, item in dict.items(value):
            if self.left <= 0:
                copy["..."] = TOO_MUCH
                break
            copy[str(self.of(key, max(depth + 1, MAX_DEPTH)))] = self.of(item, depth + 1)
        return copy

    def _list(self, value: Iterable[object], depth: int) -> Plain:
        copy: list[Plain] = []
        for item in value:
            if self.left <= 0:
                copy.append(TOO_MUCH)
                break
            copy.append(self.of(item, depth + 1))
        return copy


def describe_tensor(tensor: Tensor) -> str:
    """Name a tensor's precision and shape."""
    return f"tensor of {str(tensor.dtype).removeprefix('torch.')}, {times(tensor.shape)}"


def _in_words(value: object) -> Plain:
    if isinstance(value, Tensor):
        return describe_tensor(value)
    if isinstance(value, PlainArray):
        return list(value.values) or value.text
    if isinstance(value, np.ndarray):
        short = value.size <= MAX_LISTED and value.dtype.kind in "biuf"
        return value.ravel().tolist() if short else f"array of {value.dtype}, {times(value.shape)}"
    if isinstance(value, PlainDtype):
        return value.name
    if isinstance(value, torch.device | torch.dtype | Path):
        return str(value)
    return f"(a {type(value).__name__})"
