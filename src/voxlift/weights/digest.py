"""The sha256 of a file, and the part of it that a published name carries."""

import hashlib
import re
from pathlib import Path

from voxlift.core.errors import WeightsError

PUBLISHED = re.compile(r"-([0-9a-f]{8}|[0-9a-f]{10}|[0-9a-f]{64})(?:\.[A-Za-z][A-Za-z0-9]*)+$")
"""A name such as `resnet18-5ff2ecb7.pth`: the digits are the first of the file's sha256.

Publishers give 8, 10 or all 64. Other numbers of digits are something else, such as the 40 of a
commit.
"""

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.")


def file_sha256(path: Path) -> str:
    """Compute the sha256 of a whole file, in hexadecimal.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def published_hash(name: str) -> str | None:
    """Find the start of a sha256 that a file's name carries, if it does.

    Digits without any letter from a to f are taken for a date or a number of steps.
    """
    found = PUBLISHED.search(name)
    if found is None or UUID.search(name) or found[1].isdecimal():
        return None
    return found[1]


def check_published_hash(path: Path, sha256: str) -> None:
    """Check a file against the hash in its name, if its name carries one.

    Raises:
        WeightsError: With both hashes, if they differ.
    """
    published = published_hash(path.name)
    if published is None or sha256.startswith(published):
        return
    raise WeightsError(
        f"{path} is not the file that was published: its name says that its sha256 begins with "
        f"{published}, and it begins with {sha256[: len(published)]}. Download it again. If the "
        "digits in the name are no hash, rename the file."
    )
