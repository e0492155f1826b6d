"""Read every volume and mask of a data set once, before anything is trained on it.

What cannot be used is found now and not hours later: another grid, unknown classes, values that
are no whole numbers, NaN, another number of channels, the same scan in two splits. The same reading
finds what the data set does not say itself, its classes and channels, and measures each case.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from operator import not_

import numpy as np

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.core.mask_values import count_values, replace_values
from voxlift.data.case_facts import CaseFacts, measure_case
from voxlift.data.leakage import Identity, find_earlier_copies, hash_voxels, join_groups
from voxlift.data.segmentation_cases import (
    SegmentationCase,
    SegmentationCases,
    check_channels,
    located,
)
from voxlift.data.segmentation_classes import (
    adapt_classes,
    check_unnamed_values,
    find_classes,
)
from voxlift.data.segmentation_listing import SegmentationListing

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPORTS = 10.0


@dataclass(frozen=True, eq=False)
class _Reading:
    """One case, read. `counts` are of the values in the file."""

    case: SegmentationCase
    identity: Identity
    counts: dict[int, int]
    facts: CaseFacts


def check_segmentation(
    listing: SegmentationListing | SegmentationCases,
    *,
    skip_bad: bool = False,
    ignore_value: int | None = None,
    class_names: Sequence[str] = (),
    regions: Mapping[str, Sequence[int]] | None = None,
) -> SegmentationCases:
    """Check that all volumes and masks can be read and belong together, and none is in two splits.

    Where the data set does not name its classes, every value in its masks is one, 0 the background.
    A mask of background only is counted in a warning. Volumes with the same voxels are put into one
    group, so that splits made later keep them together.

    Args:
        listing: The data set.
        skip_bad: List and skip cases that cannot be used, and the copies of volumes in other splits
            (that in `test` stays, else that in `val`), instead of raising.
        ignore_value: What stands in the masks where nobody labelled.
        class_names: Names of the classes in the order of their values, without the background.
        regions: Overlapping regions to be found instead of the classes, by name, as the values of
            their classes in the masks, the larger ones first; see `LabelScheme.with_regions`.

    Returns:
        The data set, without what was skipped, with the `facts` of each case.

    Raises:
        DataError: If a case cannot be used, all masks are empty, there are no classes or others
            than named, or the same group or voxels are in two splits.
    """
    if isinstance(listing, SegmentationCases):
        listing = SegmentationListing.of(listing)
    origin = listing.origin
    try:
        stated = adapt_classes(
            listing.labels, ignore_value=ignore_value, class_names=class_names, regions=regions
        )
        readings = _read_all(listing, stated, ignore_value=ignore_value, skip_bad=skip_bad)
        if skip_bad:
            readings = _without_copies(readings)
        _check_structures(origin, readings)
        labels = stated or _find_classes(
            readings, ignore_value=ignore_value, class_names=class_names, regions=regions
        )
    except DataError as error:
        raise located(error, origin) from error
    groups = join_groups(origin, [reading.identity for reading in readings], answers="masks")
    cases = SegmentationCases(
        cases=tuple(
            replace(reading.case, group=group)
            for reading, group in zip(readings, groups, strict=True)
        ),
        labels=labels,
        channel_names=listing.channel_names or _name_channels(readings),
        origin=origin,
        facts=tuple(
            replace(
                reading.facts,
                class_voxels=tuple(reading.counts.get(value, 0) for value in labels.values),
            )
            for reading in readings
        ),
    )
    _warn_of_absent_classes(cases)
    return cases


def _read_all(
    listing: SegmentationListing,
    labels: LabelScheme | None,
    *,
    ignore_value: int | None,
    skip_bad: bool,
) -> list[_Reading]:
    """Read each case, and skip or refuse those that cannot be used."""
    readings: list[_Reading] = []
    names = listing.channel_names
    reported = time.monotonic()
    for number, case in enumerate(listing.cases, start=1):
        try:
            reading = _read(case, names, labels, ignore_value=ignore_value)
        except DataError as error:
            if not skip_bad:
                raise
            _log.warning("skipped: %s", located(error, listing.origin))
            continue
        readings.append(reading)
        names = names or _name_channels(readings)
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            _log.info("checked %d of %d cases", number, len(listing.cases))
    num_skipped = len(listing.cases) - len(readings)
    if not readings:
        raise DataError(f"None of the {num_skipped} cases can be used; see the log.")
    if num_skipped:
        _log.warning("%d of %d cases skipped", num_skipped, len(listing.cases))
    return readings


def _read(
    case: SegmentationCase,
    channel_names: Sequence[str] | None,
    labels: LabelScheme | None,
    *,
    ignore_value: int | None,
) -> _Reading:
    channels = case.read_image()
    if channel_names is not None:
        check_channels(case.id, len(channels), channel_names)
    mask = case.read_mask(like=channels[0])
    try:
        counts = count_values(mask.array)
        if labels is None:
            check_unnamed_values(counts, ignore_value=ignore_value)
        else:
            labels.check_values(counts)
    except DataError as error:
        raise DataError(f"case {case.id}: {error}") from error
    background = 0 if labels is None else labels.values[0]
    ignored = ignore_value if labels is None else labels.ignore_value
    structures = replace_values(
        mask.array, {value: value not in (background, ignored) for value in counts}
    ).astype(bool)
    num_ignored = 0 if ignored is None else counts.get(ignored, 0)
    identity = Identity(
        case.id,
        case.group,
        case.split,
        content=hash_voxels([channel.array for channel in channels]),
        answer=hash_voxels([mask.array]),
    )
    facts = measure_case(channels, structures, ignored_voxels=num_ignored)
    return _Reading(case, identity, counts, facts)


def _without_copies(readings: list[_Reading]) -> list[_Reading]:
    are_copies = find_earlier_copies([reading.identity for reading in readings])
    for reading in compress(readings, are_copies):
        _log.warning("skipped: %s is in another split, too", reading.case.id)
    return list(compress(readings, map(not_, are_copies)))


def _check_structures(origin: str, readings: list[_Reading]) -> None:
    """Count empty masks; a data set of nothing else cannot be learnt from."""
    empty = [reading.case.id for reading in readings if reading.facts.is_empty]
    if len(empty) == len(readings):
        raise DataError(
            "No mask holds anything but background. Check that these are the masks, and "
            "that their values are those of the classes."
        )
    if empty:
        _log.warning(
            "%s: the masks of %d of %d cases hold background only, such as that of %s; the cases "
            "are used as they are",
            origin,
            len(empty),
            len(readings),
            empty[0],
        )


def _find_classes(
    readings: Sequence[_Reading],
    *,
    ignore_value: int | None,
    class_names: Sequence[str],
    regions: Mapping[str, Sequence[int]] | None,
) -> LabelScheme:
    """Make classes of the values in all masks; where they do not fit, say which mask is odd."""
    holders: dict[int, list[str]] = {}
    for reading in readings:
        for value in reading.counts:
            holders.setdefault(value, []).append(reading.case.id)
    try:
        return find_classes(
            holders, ignore_value=ignore_value, class_names=class_names, regions=regions
        )
    except DataError as error:
        alone = [(value, cases[0]) for value, cases in holders.items() if len(cases) == 1]
        if len(readings) == 1 or not alone:
            raise
        value, case = alone[0]
        raise DataError(f"{error} The value {value} stands in the mask of {case} alone.") from error


def _name_channels(readings: Sequence[_Reading]) -> tuple[str, ...]:
    count = len(readings[0].facts.lowest)
    return ("image",) if count == 1 else tuple(f"channel {number}" for number in range(count))


def _warn_of_absent_classes(cases: SegmentationCases) -> None:
    absent = absent_classes(cases)
    if absent:
        _log.warning(
            "%s: no %smask holds %s; a network cannot learn it",
            cases.origin,
            "training " if any(cases.splits) else "",
            ", ".join(absent),
        )


def absent_classes(cases: SegmentationCases) -> tuple[str, ...]:
    """Name the structures that no mask of the split `train` holds; without splits, no mask."""
    seen = np.zeros(len(cases.labels.names), dtype=np.int64)
    for case, facts in zip(cases.cases, cases.facts, strict=True):
        if case.split in (None, "train"):
            seen += np.array(facts.class_voxels)
    counts = zip(cases.labels.names[1:], seen[1:], strict=True)
    return tuple(name for name, count in counts if count == 0)
