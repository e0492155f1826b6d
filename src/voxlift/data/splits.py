"""Stratified splits, label fractions and folds that never divide a group.

A group is what must stay together, as a rule the cases of one patient. All functions take arrays,
one entry a case, and depend on nothing but them and the seed; the names of groups decide nothing
but who belongs together.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.randomness import numpy_generator

SPLITS = ("train", "val", "test")

Fractions = tuple[float, float, float]
Labels = npt.NDArray[np.int64]
Groups = Sequence[str]


def split_cases(
    labels: Labels,
    groups: Groups,
    *,
    fractions: Fractions = (0.7, 0.15, 0.15),
    seed: int,
    existing: Sequence[str | None] | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Put every case into `train`, `val` or `test`: stratified, and each group as a whole.

    Splits that exist are kept. A part that they lack is taken from their `train`, in the
    proportion that its fraction has to that of `train`; with a fraction of 0 it stays empty.

    Args:
        labels: Class numbers.
        groups: What must not be divided.
        fractions: Shares of train, val and test.
        seed: The run's seed.
        existing: The splits that the data set came with.
        class_names: What the error messages call the classes.

    Returns:
        One of `SPLITS` a case. Every class is in `train` and in every part made here.

    Raises:
        ConfigError: If the fractions are not shares.
        DataError: If a class has too few groups to be in every part, or the existing splits lack
            `train`, a class in `train`, or divide a group.
    """
    _check_fractions(fractions)
    splits = list(existing) if existing is not None else []
    present = {split for split in splits if split is not None}
    if not present:
        kept, wanted = {}, dict(zip(SPLITS, fractions, strict=True))
        pool = np.arange(len(labels))
    else:
        _check_existing(splits)
        check_groups(splits, groups)
        kept = {row: str(split) for row, split in enumerate(splits) if split != "train"}
        wanted = {
            name: fraction
            for name, fraction in zip(SPLITS, fractions, strict=True)
            if name == "train" or name not in present
        }
        pool = np.array([row for row, split in enumerate(splits) if split == "train"])
        _check_train(labels, pool, class_names)
    wanted = {name: fraction for name, fraction in wanted.items() if fraction > 0}
    shares = np.array(list(wanted.values()))
    parts = _distribute(
        labels[pool],
        [groups[row] for row in pool.tolist()],
        shares=shares / shares.sum(),
        seed=seed,
        purpose="split",
        class_names=class_names,
        remedy="Give a column `split`, add cases, or leave the class out.",
    )
    names = list(wanted)
    chosen = kept | {int(row): names[part] for row, part in zip(pool, parts, strict=True)}
    return tuple(chosen[row] for row in range(len(labels)))


def folds(
    labels: Labels,
    groups: Groups,
    *,
    num_folds: int,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> Int64[np.ndarray, "n"]:
    """Number the cases with the fold that each is tested in: stratified, each group as a whole.

    Raises:
        ConfigError: If there are fewer than two folds.
        DataError: If a class has fewer groups than there are folds.
    """
    if num_folds < 2:
        raise ConfigError(f"num_folds is {num_folds}; give 2 or more with --folds.")
    return _distribute(
        labels,
        groups,
        shares=np.full(num_folds, 1.0 / num_folds),
        seed=seed,
        purpose="folds",
        class_names=class_names,
        remedy="Ask for fewer --folds, add cases, or leave the class out.",
    )


def label_fraction(
    labels: Labels, groups: Groups, *, fraction: float, seed: int
) -> Int64[np.ndarray, "chosen"]:
    """Choose the cases whose labels may be used, for experiments with few labels.

    Groups are put in one order that the seed determines and whose every beginning is stratified;
    a fraction takes the beginning that comes nearest to it. So a smaller fraction is always part of
    a larger one, and the smallest holds at least one case of each class.

    Returns:
        Positions in `labels`, ascending.

    Raises:
        ConfigError: If the fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"The label fraction is {fraction}; it has to be above 0 and at most 1.")
    if not len(labels):
        return np.zeros(0, dtype=np.int64)
    members, counts = _count_groups(labels, groups)
    order = _stratified_order(counts, seed=seed)
    num_classes = np.count_nonzero(counts.sum(0))
    seen = (counts[order].cumsum(0) > 0).sum(1)
    smallest = int(np.argmax(seen == num_classes)) + 1
    sizes = counts[order].sum(1).cumsum()
    nearest = int(np.argmin(np.abs(sizes - fraction * len(labels)))) + 1
    rows = [members[group] for group in order[: max(smallest, nearest)]]
    chosen: npt.NDArray[np.int64] = np.sort(np.concatenate(rows))
    return chosen


def check_groups(splits: Sequence[str | None], groups: Groups) -> None:
    """Check that no group is in two splits.

    Groups are named by the positions of their cases: their own names may be patients' numbers.

    Raises:
        DataError: If one is.
    """
    first: dict[str, int] = {}
    for position, group in enumerate(groups):
        earlier = first.setdefault(group, position)
        if splits[earlier] != splits[position]:
            raise DataError(
                f"A group is in two splits: case {earlier} is in '{splits[earlier]}' and case "
                f"{position} of the same group in '{splits[position]}' (counted from 0). What a "
                "network has seen of a patient in training makes its test worthless. Move the "
                "whole group to one split, or leave the splits out to have them made."
            )


def _check_fractions(fractions: Fractions) -> None:
    if fractions[0] <= 0 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(
            f"The fractions of train, val and test are {fractions}; they have to be shares that "
            "sum up to 1, that of train above 0."
        )


def _check_existing(splits: Sequence[str | None]) -> None:
    unknown = sorted({str(split) for split in splits if split not in SPLITS})
    if unknown:
        raise DataError(
            f"Some cases have the split {', '.join(unknown)}; expected one of {', '.join(SPLITS)} "
            "for every case, or for none."
        )
    if "train" not in splits:
        raise DataError("No case is in the split 'train'. Mark the cases to train on.")


def _check_train(
    labels: Labels, pool: npt.NDArray[np.int64], class_names: Sequence[str] | None
) -> None:
    for c in np.setdiff1d(labels, labels[pool]).tolist():
        raise DataError(
            f"Class {_class_name(class_names, c)} has no case in the split 'train', so that "
            "nothing could learn it. Move cases of it there, or leave the class out."
        )


def _class_name(class_names: Sequence[str] | None, number: int) -> str:
    return f"'{class_names[number]}'" if class_names is not None else f"number {number}"


def _count_groups(
    labels: Labels, groups: Groups
) -> tuple[list[npt.NDArray[np.int64]], Int64[np.ndarray, "groups classes"]]:
    """Collect the rows of each group, and count its cases of each class."""
    if len(labels) != len(groups):
        raise ConfigError(f"There are {len(labels)} labels, but {len(groups)} groups.")
    numbers: dict[str, int] = {}
    of_row = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    counts = np.zeros((len(numbers), int(labels.max(initial=-1)) + 1), dtype=np.int64)
    np.add.at(counts, (of_row, labels), 1)
    order = np.argsort(of_row, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of_row[order])) + 1), counts


def _distribute(
    labels: Labels,
    groups: Groups,
    *,
    shares: Float64[np.ndarray, "parts"],
    seed: int,
    purpose: str,
    class_names: Sequence[str] | None,
    remedy: str,
) -> Int64[np.ndarray, "n"]:
    """Distribute groups over parts so that each part has its share of every class.

    The rarest class is handed out first, its largest groups first, each group to the part that
    lacks most of that class. When the last groups of a class are just enough for the parts that
    have none of it, they go there.

    Source:
        Iterative stratification, Sechidis, Tsoumakas, Vlahavas, ECML PKDD 2011; there for samples
        with several labels, here for groups with several cases.
    """
    members, counts = _count_groups(labels, groups)
    num_parts = len(shares)
    num_groups = (counts > 0).sum(0)
    classes = [int(c) for c in np.argsort(num_groups, kind="stable") if num_groups[c] > 0]
    for c in classes:
        if num_groups[c] < num_parts:
            raise DataError(
                f"Class {_class_name(class_names, c)} has {num_groups[c]} group(s) of cases, but "
                f"{num_parts} parts need at least one each. {remedy}"
            )
    shuffled = numpy_generator(seed, purpose).permutation(len(members))
    desired = _desired_counts(counts.sum(0), shares)
    has_class = np.zeros((num_parts, counts.shape[1]), dtype=bool)
    part_of_group = np.full(len(members), -1)
    for c in classes:
        waiting = [g for g in shuffled if part_of_group[g] < 0 and counts[g, c] > 0]
        waiting.sort(key=lambda g: -counts[g, c])
        for position, group in enumerate(waiting):
            lacking = np.flatnonzero(~has_class[:, c])
            must_serve = len(lacking) > 0 and len(waiting) - position <= len(lacking)
            candidates = lacking if must_serve else np.arange(num_parts)
            needs = [(desired[part, c], desired[part].sum(), -part) for part in candidates]
            part = -max(needs)[2]
            part_of_group[group] = part
            desired[part] -= counts[group]
            has_class[part] |= counts[group] > 0
    for c in classes:
        if not has_class[:, c].all():
            raise DataError(
                f"Class {_class_name(class_names, c)} could not be put into each of the "
                f"{num_parts} parts without dividing a group. {remedy}"
            )
    parts = np.empty(len(labels), dtype=np.int64)
    for rows, part in zip(members, part_of_group, strict=True):
        parts[rows] = part
    return parts


def _desired_counts(
    totals: Int64[np.ndarray, "classes"], shares: Float64[np.ndarray, "parts"]
) -> Float64[np.ndarray, "parts classes"]:
    """Share out the cases of each class, at least one to each part; the largest part pays."""
    desired: npt.NDArray[np.float64] = np.maximum(shares[:, None] * totals[None, :], 1.0)
    largest = int(np.argmax(shares))
    desired[largest] -= desired.sum(0) - totals
    return desired


def _stratified_order(
    counts: Int64[np.ndarray, "groups classes"], *, seed: int
) -> Int64[np.ndarray, "groups"]:
    """Order groups at random so that every beginning has the classes in proportion.

    Each class in turn first gives one group; then always the class that is farthest behind.
    """
    totals = counts.sum(0)
    classes = np.flatnonzero(totals)
    shuffled = numpy_generator(seed, "label fraction").permutation(len(counts))
    queues = {int(c): [g for g in shuffled[::-1] if counts[g, c] > 0] for c in classes}
    taken = np.zeros(len(counts), dtype=bool)
    have = np.zeros_like(totals)
    order: list[int] = []
    while len(order) < len(counts):
        for queue in queues.values():
            while queue and taken[queue[-1]]:
                queue.pop()
        # A class that is not there yet comes first; the rarer of two goes before the other.
        behind = min(
            (c for c in queues if queues[c]),
            key=lambda c: (have[c] > 0, have[c] / totals[c], totals[c], c),
        )
        group = int(queues[behind].pop())
        taken[group] = True
        have += counts[group]
        order.append(group)
    return np.array(order)
