"""Read every volume of a data set once, before anything is trained on it.

What cannot be read is found now and not hours later, and a volume that is there twice, under
whatever name and in whatever format, cannot be in two splits.
"""

import hashlib
import logging
import time
from dataclasses import replace
from itertools import compress

import numpy as np

from voxlift.core.errors import DataError
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.splits import SPLITS
from voxlift.data.volume import Volume

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPORTS = 10.0


def check_cases(cases: ClassificationCases, *, skip_bad: bool = False) -> ClassificationCases:
    """Check that all volumes can be read and that none is in two splits.

    Volumes with the same voxels are put into one group, so that splits made later keep them
    together. Volumes of one single value are not compared.

    Args:
        cases: The data set.
        skip_bad: List and skip volumes that cannot be read, and the copies of volumes in other
            splits (that in `test` stays, else that in `val`), instead of raising.

    Returns:
        The data set, without what was skipped.

    Raises:
        DataError: If a volume cannot be read, or the same group, file or voxels are in two splits.
    """
    kept: list[ClassificationCase] = []
    skipped = 0
    contents: list[str | None] = []
    reported = time.monotonic()
    for index, case in enumerate(cases.cases):
        try:
            volume = cases.read_volume(index)
            if case.mask is not None:
                cases.read_mask(index, size_voxels=volume.size_voxels)
        except DataError as error:
            if not skip_bad:
                raise
            _log.warning("skipped: %s", error)
            skipped += 1
            continue
        kept.append(case)
        contents.append(_content(volume))
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            _log.info("checked %d of %d volumes", index + 1, len(cases))
    if skipped:
        _log.warning("%d of %d volumes skipped", skipped, len(cases))
    if skip_bad:
        kept, contents = _without_copies(kept, contents)
    return replace(cases, cases=_without_leakage(cases.origin, kept, contents))


def _content(volume: Volume) -> str | None:
    """Hash the voxels, whatever they are stored as; None if they are all the same."""
    numbers = np.ascontiguousarray(volume.array, dtype=np.float32)
    if numbers.min() == numbers.max():
        return None
    digest = hashlib.blake2b(repr(numbers.shape).encode(), digest_size=16)
    digest.update(numbers.data)
    return digest.hexdigest()


def _without_copies(
    cases: list[ClassificationCase], contents: list[str | None]
) -> tuple[list[ClassificationCase], list[str | None]]:
    """Keep volumes that are in several splits in the last of them only."""
    last: dict[str, int] = {}
    ranks = [SPLITS.index(case.split) if case.split else 0 for case in cases]
    for content, rank in zip(contents, ranks, strict=True):
        if content is not None:
            last[content] = max(rank, last.get(content, 0))
    kept = [
        content is None or last[content] == r for content, r in zip(contents, ranks, strict=True)
    ]
    for case, keep in zip(cases, kept, strict=True):
        if not keep:
            _log.warning("skipped: %s is in another split, too", case.id)
    return list(compress(cases, kept)), list(compress(contents, kept))


def _without_leakage(
    origin: str, cases: list[ClassificationCase], contents: list[str | None]
) -> tuple[ClassificationCase, ...]:
    """Join the groups of equal volumes, and refuse whatever is in two splits."""
    groups = {case.group: case.group for case in cases}

    def root(group: str) -> str:
        while groups[group] != group:
            group = groups[group]
        return group

    first_group: dict[str, ClassificationCase] = {}
    first_content: dict[str, ClassificationCase] = {}
    num_equal = 0
    for case, content in zip(cases, contents, strict=True):
        earlier = first_group.setdefault(case.group, case)
        _refuse_two_splits(origin, earlier, case, "belong to the same group")
        if content is None:
            continue
        earlier = first_content.setdefault(content, case)
        if earlier is case:
            continue
        _refuse_two_splits(origin, earlier, case, "hold the same voxels", " (--skip-bad does)")
        _log.warning(
            "%s: %s and %s hold the same voxels%s",
            origin,
            earlier.id,
            case.id,
            "" if earlier.label == case.label else ", but have different labels",
        )
        num_equal += 1
        groups[root(case.group)] = root(earlier.group)
    if num_equal:
        _log.warning("%s: %d volumes are there more than once", origin, num_equal)
    return tuple(replace(case, group=root(case.group)) for case in cases)


def _refuse_two_splits(
    origin: str, one: ClassificationCase, other: ClassificationCase, reason: str, how: str = ""
) -> None:
    if one.split != other.split:
        # The group is not named: it may be a patient's number.
        raise DataError(
            f"{origin}: {one.id} of split '{one.split}' and {other.id} of split '{other.split}' "
            f"{reason}. What a network has seen in training makes its test worthless: put both "
            f"into one split, or leave one out{how}."
        )
