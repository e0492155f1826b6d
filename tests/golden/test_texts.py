"""What the commands print: the help of each, and what `inspect` says of a bundled start."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from voxlift.cli import COMMANDS
from voxlift.cli.console import out

Captured = pytest.CaptureFixture[str]
GoldenText = Callable[[str, str], None]

HELPS = {
    "voxlift": ["--help"],
    **{name: [name, "--help"] for name in COMMANDS},
    "pretrain-detect": ["pretrain", "--task", "detect", "--help"],
    "finetune-segment": ["finetune", "--task", "segment", "--help"],
    "finetune-detect": ["finetune", "--task", "detect", "--help"],
}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain terminal of fixed width, whatever the tests run in."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    # A console that was made while it was set, as pytest-xdist does, keeps its first width.
    monkeypatch.setattr(out, "_width", 100)


@pytest.mark.parametrize("name", HELPS)
def test_help(
    name: str, command: Callable[..., int], capsys: Captured, golden_text: GoldenText
) -> None:
    assert command(*HELPS[name]) == 0
    golden_text(f"help/{name}.txt", capsys.readouterr().out)


def test_every_golden_help_is_of_a_command() -> None:
    assert {path.stem for path in Path(__file__).with_name("help").iterdir()} == set(HELPS)


def test_inspect_tiny(
    command: Callable[..., int], capsys: Captured, golden_text: GoldenText
) -> None:
    assert command("inspect", "tiny") == 0
    shown = capsys.readouterr().out
    golden_text("inspect-tiny.txt", re.sub(r"(?m)^(file: +)\S.*/", r"\1", shown))
