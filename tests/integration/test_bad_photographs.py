"""Photographs that cannot be trained on: one clear error, and nothing is written over."""

import os
import resource
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from voxlift.training.run import Run

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Snapshot = Callable[[Path], dict[str, bytes]]
Words = tuple[str, ...]

HUGE = 40_000


@pytest.fixture
def photographs(photograph_folder: Path, tmp_path: Path) -> Path:
    """A copy of the good photographs, to be spoilt."""
    return Path(shutil.copytree(photograph_folder, tmp_path / "photographs"))


@pytest.fixture
def run_folder(pretrained: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, to be kept."""
    return Path(shutil.copytree(pretrained.folder, tmp_path / "run"))


def write_jpeg(path: Path) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path.read_bytes()


def truncated_jpeg(folder: Path) -> str:
    path = folder / "plain" / "cut.jpg"
    path.write_bytes(write_jpeg(path)[:-200])
    return "cut.jpg"


def zero_byte_jpeg(folder: Path) -> str:
    (folder / "plain" / "nothing.jpg").touch()
    return "nothing.jpg"


def text_named_png(folder: Path) -> str:
    (folder / "striped" / "notes.png").write_text("not a picture")
    return "notes.png"


def huge_png(folder: Path) -> str:
    """Only the header says so; decoded, it would take 4.8 GB."""
    content = b"\x89PNG\r\n\x1a\n"
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(1000)),
        b"IEND": b"",
    }
    for name, data in chunks.items():
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    (folder / "checked" / "poster.png").write_bytes(content)
    return "poster.png"


def huge_jpeg(folder: Path) -> str:
    path = folder / "checked" / "poster.jpg"
    content = bytearray(write_jpeg(path))
    # The start of the frame: marker, length, precision, then height and width.
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", HUGE, HUGE)
    path.write_bytes(bytes(content))
    return "poster.jpg"


def empty_class(folder: Path) -> str:
    (folder / "dotted").mkdir()
    return "dotted"


def single_class(folder: Path) -> str:
    for name in ("checked", "striped"):
        shutil.rmtree(folder / name)
    return "photographs"


def no_folder(folder: Path) -> str:
    shutil.rmtree(folder)
    return "photographs"


UNREADABLE_FILES: dict[str, tuple[Callable[[Path], str], str]] = {
    "truncated JPEG": (truncated_jpeg, "damaged"),
    "zero-byte JPEG": (zero_byte_jpeg, "is empty"),
    "text named .png": (text_named_png, "is not a JPEG, PNG or WebP image"),
    "huge PNG": (huge_png, "too large to decode safely: 40000 x 40000"),
    "huge JPEG": (huge_jpeg, "too large to decode safely: 40000 x 40000"),
}
UNUSABLE_FOLDERS: dict[str, tuple[Callable[[Path], str], str]] = {
    "empty class folder": (empty_class, "Add images, or remove the folder"),
    "a single class": (single_class, "two or more are needed"),
    "no folder": (no_folder, "is neither a folder nor the name of a data set"),
}


def assert_one_clear_error(capsys: Captured, *words: str) -> None:
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.count("error: ") == 1
    message = printed.err.partition("error: ")[2]
    for word in words:
        assert word in message


@pytest.mark.parametrize("case", [*UNREADABLE_FILES, *UNUSABLE_FOLDERS])
def test_bad_photographs_are_one_clear_error(
    case: str,
    photographs: Path,
    run_folder: Path,
    pretrain_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    spoil, problem = {**UNREADABLE_FILES, **UNUSABLE_FOLDERS}[case]
    name = spoil(photographs)
    remedy = "--skip-bad" if case in UNREADABLE_FILES else problem
    words = ("pretrain", "--data", photographs, *pretrain_words)
    assert command(*words, "--out", tmp_path / "new") == 1
    assert_one_clear_error(capsys, name, problem, remedy)
    assert not (tmp_path / "new").exists()
    # Not even with leave to replace an earlier run.
    before = snapshot(run_folder)
    assert command(*words, "--out", run_folder, "--overwrite") == 1
    assert_one_clear_error(capsys, name, problem, remedy)
    assert snapshot(run_folder) == before


def test_unreadable_photographs_are_listed_and_skipped_on_request(
    photographs: Path,
    pretrain_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    bad = [spoil(photographs) for spoil, _ in UNREADABLE_FILES.values()]
    words = ("--data", photographs, *pretrain_words, "--out", tmp_path / "run", "--skip-bad")
    assert command("pretrain", *words) == 0
    printed = capsys.readouterr().err.replace("\n", "")
    log = (tmp_path / "run" / "log.txt").read_text()
    for name in bad:
        assert name in printed
        assert name in log
    assert "18 of 24 images" in log


def test_an_unreadable_folder_is_one_clear_error(
    photographs: Path,
    pretrain_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Simulated: the rights of a folder mean nothing to an administrator.
    locked = photographs / "plain"
    scan = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    words = ("--data", photographs, *pretrain_words, "--out", tmp_path / "run")
    assert command("pretrain", *words) == 1
    assert_one_clear_error(capsys, str(locked), "Permission denied", "permissions")
    assert not (tmp_path / "run").exists()


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more than so much, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("num_bytes", "file"), [(100, "config.yaml"), (50_000, "best.ckpt")])
def test_no_space_is_one_clear_error(
    num_bytes: int,
    file: str,
    photograph_folder: Path,
    pretrain_words: Words,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
    snapshot: Snapshot,
) -> None:
    out = tmp_path / "run"
    words = ("--data", photograph_folder, *pretrain_words, "--out", out)
    with file_size_limit(num_bytes):
        assert command("pretrain", *words) == 1
    assert_one_clear_error(capsys, file, "could not be written", "Free some space", "--out")
    # Nothing half-written under a final name, nor under another.
    left = snapshot(out)
    assert file not in {Path(name).name for name in left}
    assert not [name for name in left if Path(name).name.startswith(".")]
    assert "model.safetensors" not in left


def test_interrupted_saving_keeps_the_last_good_checkpoint(
    photograph_folder: Path,
    pretrain_words: Words,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("--data", photograph_folder, *pretrain_words, "--out", tmp_path / "run")
    write, written = Path.write_bytes, []

    def write_bytes(path: Path, data: Any) -> int:
        if path.name.endswith(".last.ckpt"):
            written.append(path)
            if len(written) == 2:
                raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert command("pretrain", *words, "--checkpoint-steps", "1") == 1
    monkeypatch.undo()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert command("pretrain", *words, "--checkpoint-steps", "1", "--resume") == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_evaluation_of_bad_photographs_is_one_clear_error(
    pretrained: Run,
    photographs: Path,
    tmp_path: Path,
    command: Command,
    capsys: Captured,
) -> None:
    name = single_class(photographs)
    words = ("--data", photographs, "--out", tmp_path / "out")
    assert command("evaluate", pretrained.folder, *words) == 1
    assert_one_clear_error(capsys, name, "two or more are needed")
    assert not (tmp_path / "out").exists()
