"""Read every volume of a data set once, before anything is trained on it.

What cannot be read is found now and not hours later, and a volume that is there twice, under
whatever name and in whatever format, cannot be in two splits.
"""

import logging
import time
from dataclasses import replace
from itertools import compress
from operator import not_

from voxlift.core.errors import DataError
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.leakage import Identity, find_earlier_copies, hash_voxels, join_groups

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
    known: list[Identity] = []
    skipped = 0
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
        content = hash_voxels([volume.array])
        known.append(Identity(case.id, case.group, case.split, content, case.label))
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            _log.info("checked %d of %d volumes", index + 1, len(cases))
    if skipped:
        _log.warning("%d of %d volumes skipped", skipped, len(cases))
    if skip_bad:
        wanted = [not is_copy for is_copy in find_earlier_copies(known)]
        for case in compress(kept, map(not_, wanted)):
            _log.warning("skipped: %s is in another split, too", case.id)
        kept, known = list(compress(kept, wanted)), list(compress(known, wanted))
    groups = join_groups(cases.origin, known, answers="labels")
    pairs = zip(kept, groups, strict=True)
    return replace(cases, cases=tuple(replace(case, group=group) for case, group in pairs))
