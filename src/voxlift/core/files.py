"""Writing files so that a half-written one never bears the final name."""

import errno
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from voxlift.core.errors import DataError

if sys.platform != "win32":
    import fcntl

# Characters of up to 4 bytes; with what comes before, a name may have 255.
_MAX_KEPT = 59
_ASIDE = re.compile(r"\.voxlift-[0-9a-f]{8}\..+")


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it there once the block has succeeded.

    The temporary name keeps the suffixes, for libraries that choose a format by them. If the block
    raises, the temporary file is removed and whatever stood at `path` stays as it was.

    Args:
        path: Where the finished file shall stand. Its folder is made if it is missing.

    Raises:
        DataError: If the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    # Of a long name only the end, or it would be too long for the disk.
    aside = path.with_name(f".voxlift-{uuid.uuid4().hex[:8]}.{path.name[-_MAX_KEPT:]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} could not be written: {error.strerror or error}. "
            "Free some space, or choose another folder with --out."
        ) from error
    finally:
        # Unlike its method, this does not raise for a path that is too long to be there.
        if os.path.lexists(aside):
            aside.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one step: it is whole, or it is not there.

    Raises:
        DataError: If the folder cannot be written to or the disk is full.
    """
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def is_left_behind(path: Path) -> bool:
    """Whether a file is a temporary one of `write_aside`; one of a process that lives, or died."""
    return _ASIDE.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def lock(file: IO[str]) -> bool:
    """Lock an open file against other processes until it is closed, or this process ends.

    Returns:
        False if another process holds the lock. Where the disk or the system has no locks, True.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def check_writable(folder: Path) -> None:
    """See that outputs can be written before hours are spent; the folder is made if it is missing.

    Raises:
        DataError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to: {error.strerror or error}. "
            "Choose another folder with --out."
        ) from error
