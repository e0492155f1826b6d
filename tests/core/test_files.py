import errno
import os
from pathlib import Path

import pytest

from voxlift.core.errors import DataError
from voxlift.core.files import is_left_behind, lock, write_aside, write_text


def test_text_is_written_into_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "note.txt"
    write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert list(path.parent.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffixes(tmp_path: Path) -> None:
    with write_aside(tmp_path / "mask.nii.gz") as aside:
        assert aside.name.endswith(".nii.gz")
        assert aside.parent == tmp_path
        aside.write_text("mask")
    assert (tmp_path / "mask.nii.gz").read_text() == "mask"


def test_a_failure_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")

    def write() -> None:
        with write_aside(path) as aside:
            aside.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"

    def write() -> None:
        with write_aside(path) as aside:
            aside.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"model\.bin could not be written: No space left.*--out"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    with pytest.raises(DataError, match=r"note\.txt could not be written"):
        write_text(tmp_path / "blocked" / "note.txt", "text")


@pytest.mark.parametrize(
    "name", ["a" * 248 + ".nii.gz", "\N{MUSICAL SYMBOL G CLEF}" * 62 + ".nii.gz"]
)
def test_longest_names_are_written(tmp_path: Path, name: str) -> None:
    with write_aside(tmp_path / name) as aside:
        assert aside.name.endswith(".nii.gz")
        aside.write_text("mask")
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("path", ["a" * 300, "/".join(["folder"] * 1000)])
def test_path_that_is_too_long_is_refused_in_words(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="could not be written: File name too long"):
        write_text(tmp_path / path, "text")
    assert not list(tmp_path.iterdir()) or path.startswith("folder")


def test_a_temporary_file_is_known_as_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.tar.gz"
    with write_aside(path) as aside:
        aside.write_bytes(b"half")
        assert aside.suffixes[-2:] == [".tar", ".gz"]
        assert [each for each in tmp_path.iterdir() if is_left_behind(each)] == [aside]
    assert not is_left_behind(path)


def test_a_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"

    def is_free() -> bool:
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            with path.open("a") as file:
                os._exit(int(lock(file)))
        return bool(os.WEXITSTATUS(os.waitpid(child, 0)[1]))

    with path.open("a") as file:
        assert is_free()
        assert lock(file)
        assert not is_free()
    assert is_free()
