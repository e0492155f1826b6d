"""Golden files: what the code did when they were written, to be compared with what it does now.

    uv run pytest tests/golden --update-golden

writes them again, in one process. Do that only for a change of behaviour that is meant, and read
the difference (`git diff tests/golden`) before it is committed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
RENEW = (
    "The behaviour has changed. If that is meant, run `uv run pytest tests/golden --update-golden` "
    "and read `git diff tests/golden` before it is committed."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Write the golden files again.")


@pytest.fixture
def updating(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden", default=False))


def equal(found: Any, expected: Any) -> None:
    assert found == expected


def check(
    path: Path, found: Any, expected: Any, compare: Callable[[Any, Any], None] = equal
) -> None:
    """Compare, and say in the message of a failure how the golden file is renewed."""
    try:
        compare(found, expected)
    except AssertionError as error:
        error.add_note(f"{path.name}: {RENEW}")
        raise


@pytest.fixture
def golden_text(updating: bool) -> Callable[[str, str], None]:
    """Compare a text with a golden file, or write the file."""

    def golden(name: str, text: str) -> None:
        path = HERE / name
        lines = [line.rstrip() for line in text.splitlines()]
        if updating:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        # Lists of lines, for pytest to show which lines differ.
        check(path, lines, path.read_text("utf-8").splitlines() if path.is_file() else None)

    return golden


@pytest.fixture
def golden_entry(updating: bool) -> Callable[..., None]:
    """Compare a value with an entry of a golden JSON file, or write the entry."""

    def golden(name: str, key: str, value: Any, **options: Any) -> None:
        path = HERE / name
        entries = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if updating:
            entries[key] = value
            path.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", "utf-8")
        check(path, key in entries, True)
        check(path, value, entries[key], **options)

    return golden
