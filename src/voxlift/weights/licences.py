"""Licences that forbid commercial use: told once, before anyone has built on them."""

import re
import warnings

# Creative Commons writes CC BY-NC, CC-BY-NC-SA, by-nc/4.0 ...
_NON_COMMERCIAL = re.compile(r"non[-\s]?commercial|\bby[-_\s]nc\b|\bcc[-_\s]nc\b", re.IGNORECASE)

_warned: set[str] = set()


def is_non_commercial(licence: str | None) -> bool:
    """Tell whether a licence says that commercial use is not allowed."""
    return licence is not None and _NON_COMMERCIAL.search(licence) is not None


def warn_if_non_commercial(name: str, licence: str | None, sha256: str) -> None:
    """Warn of weights that must not be used commercially, once for each file and process.

    Args:
        name: What the user called them.
        licence: Under what terms they may be used; None if nobody said.
        sha256: Of the file.
    """
    if sha256 in _warned or not is_non_commercial(licence):
        return
    _warned.add(sha256)
    warnings.warn(
        f"The weights {name} are not for commercial use. Their licence: {licence}. That forbids "
        "it for the file, and most likely for every network that is trained from it.",
        UserWarning,
        stacklevel=3,
    )
