"""What is wrong with the files of a data set, all of it named at once."""

import logging
from collections.abc import Mapping, Sequence

from voxlift.core.errors import DataError

_log = logging.getLogger(__name__)

_MOST_NAMED = 10


def report_problems(
    origin: str, problems: Mapping[str, Sequence[str]], *, skip_bad: bool, remedy: str
) -> None:
    """Refuse a data set with problems, or list each as skipped.

    Args:
        origin: What messages call the data set.
        problems: For each kind, such as `image without mask`, the names of those concerned.
        skip_bad: List them in the log instead of raising.
        remedy: What to do, as a sentence.

    Raises:
        DataError: If there is a problem; at most ten names of a kind are given.
    """
    found = {kind: names for kind, names in problems.items() if names}
    if not found:
        return
    if not skip_bad:
        parts = [f"{kind} ({len(names)}): {_shortened(names)}" for kind, names in found.items()]
        raise DataError(
            f"{origin}: {'; '.join(parts)}. {remedy} Or go on without them with --skip-bad."
        )
    for kind, names in found.items():
        for name in names:
            _log.warning("skipped: %s: %s", kind, name)


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
