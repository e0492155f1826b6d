"""Every code block of the README and of the documentation is run, page by page.

The blocks of a page share a namespace and an empty working folder. A block whose first line is the
comment `# no-run: REASON` is left out; how many there are is counted below.
"""

import logging
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from voxlift import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN_LANGUAGES = ("python", "bash")
SHOWN_LANGUAGES = ("text", "csv", "json", "yaml", "bibtex")
MARK = "# no-run:"
NUM_NOT_RUN = 13

# Settings by which the commands of the pages take seconds here; they replace what the page says.
SMALL_SETTINGS = {
    "pretrain": {"--steps": "2", "--batch-size": "8"},
    "finetune": {"--steps": "2", "--batch-size": "4"},
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page that it starts on."""

    language: str
    text: str
    line: int

    @property
    def reason_not_to_run(self) -> str | None:
        first = self.text.splitlines()[0] if self.text else ""
        return first.removeprefix(MARK).strip() if first.startswith(MARK) else None


def read_blocks(page: Path) -> list[Block]:
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    fences = [token for token in tokens if token.type == "fence"]
    return [Block(t.info.strip(), t.content, t.map[0] + 2 if t.map else 0) for t in fences]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def _messages_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command does to logging and warnings for its own process."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    loggers = [logging.getLogger(name) for name in ("voxlift", "lightning", "lightning.pytorch")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.usefixtures("_messages_as_before")
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in read_blocks(page):
        if block.language not in RUN_LANGUAGES or block.reason_not_to_run is not None:
            continue
        if block.language == "python":
            # Blank lines in front, so that a traceback has the line number of the page.
            code = "\n" * (block.line - 1) + block.text
            exec(compile(code, str(page), "exec"), namespace)
        else:
            for command in commands_of(block):
                run_command(command)
                capsys.readouterr()


def commands_of(block: Block) -> list[list[str]]:
    lines = block.text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    commands = [line[2:] if line[:2] == ["uv", "run"] else line for line in words if line]
    for command in commands:
        assert command[0] == "voxlift", f"line {block.line}: only voxlift is run, mark {command}"
    return commands


def run_command(command: list[str]) -> None:
    try:
        code = cli.main(with_small_settings(command)[1:])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    assert code == 0, f"exit code {code}: {shlex.join(command)}"


def with_small_settings(command: list[str]) -> list[str]:
    words = list(command)
    for flag, value in SMALL_SETTINGS.get(command[1], {}).items():
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return words


def test_each_block_is_run_or_says_why_not() -> None:
    blocks = [(page, block) for page in PAGES for block in read_blocks(page)]
    for page, block in blocks:
        # A directive of MyST stands in braces.
        known = block.language in RUN_LANGUAGES + SHOWN_LANGUAGES or block.language[:1] == "{"
        assert known, f"{name_of(page)}, line {block.line}: unknown language {block.language!r}"
        assert block.reason_not_to_run != "", f"{name_of(page)}, line {block.line}: no reason given"
    not_run = [(name_of(p), b.line) for p, b in blocks if b.reason_not_to_run]
    assert len(not_run) == NUM_NOT_RUN, not_run
    run = [b for _, b in blocks if b.language in RUN_LANGUAGES and not b.reason_not_to_run]
    assert len(run) > len(not_run)
