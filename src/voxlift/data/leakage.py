"""The same scan twice, under whatever name: never in two splits, else in one group.

What a network has seen in training makes its test worthless.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.splits import SPLITS

_log = logging.getLogger(__name__)

_PART_VOXELS = 2**20


@dataclass(frozen=True)
class Identity:
    """What tells whether two cases may be apart.

    Attributes:
        id: What messages call the case.
        group: What it must not be separated from. Never shown: it may name the patient.
        split: The split it is in, if any.
        content: The hash of its voxels; None where there is nothing to compare.
        answer: What a network should say of it, its class or the hash of its mask.
    """

    id: str
    group: str
    split: str | None
    content: str | None
    answer: int | str | None


def hash_voxels(arrays: Sequence[npt.NDArray[Any]]) -> str | None:
    """Hash the voxels of all channels, whatever they are stored as; None if all are the same."""
    digest = hashlib.blake2b(digest_size=16)
    is_blank = True
    for array in arrays:
        is_blank = is_blank and bool(array.min() == array.max())
        digest.update(repr(array.shape).encode())
        flat = array.reshape(-1)
        # In parts, for a large scan is not to be there twice.
        for start in range(0, flat.size, _PART_VOXELS):
            part = np.ascontiguousarray(flat[start : start + _PART_VOXELS], dtype=np.float32)
            digest.update(part.data)
    return None if is_blank else digest.hexdigest()


def find_earlier_copies(cases: Sequence[Identity]) -> list[bool]:
    """Mark the copies of cases that are in several splits, but for those in the last of them."""
    last: dict[str, int] = {}
    ranks = [SPLITS.index(case.split) if case.split else 0 for case in cases]
    for case, rank in zip(cases, ranks, strict=True):
        if case.content is not None:
            last[case.content] = max(rank, last.get(case.content, 0))
    return [
        case.content is not None and last[case.content] != rank
        for case, rank in zip(cases, ranks, strict=True)
    ]


def join_groups(origin: str, cases: Sequence[Identity], *, answers: str) -> tuple[str, ...]:
    """Return the group of each case, those of equal scans joined; each pair is logged.

    Args:
        origin: What messages call the data set.
        cases: Its cases.
        answers: What they call the answers, such as `labels`.

    Raises:
        DataError: If the same group or voxels are in two splits.
    """
    groups = {case.group: case.group for case in cases}

    def root(group: str) -> str:
        while groups[group] != group:
            group = groups[group]
        return group

    first_group: dict[str, Identity] = {}
    first_content: dict[str, Identity] = {}
    num_equal = 0
    for case in cases:
        earlier = first_group.setdefault(case.group, case)
        _refuse_two_splits(origin, earlier, case, "belong to the same group")
        if case.content is None:
            continue
        earlier = first_content.setdefault(case.content, case)
        if earlier is case:
            continue
        _refuse_two_splits(origin, earlier, case, "hold the same voxels", " (--skip-bad does)")
        _log.warning(
            "%s: %s and %s hold the same voxels%s",
            origin,
            earlier.id,
            case.id,
            "" if earlier.answer == case.answer else f", but have different {answers}",
        )
        num_equal += 1
        groups[root(case.group)] = root(earlier.group)
    if num_equal:
        _log.warning("%s: %d volumes are there more than once", origin, num_equal)
    return tuple(root(case.group) for case in cases)


def _refuse_two_splits(
    origin: str, one: Identity, other: Identity, reason: str, how: str = ""
) -> None:
    if one.split != other.split:
        # The group is not named: it may be a patient's number.
        raise DataError(
            f"{origin}: {one.id} of split '{one.split}' and {other.id} of split '{other.split}' "
            f"{reason}. What a network has seen in training makes its test worthless: put both "
            f"into one split, or leave one out{how}."
        )
