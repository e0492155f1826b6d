"""Damaged files of every kind, a few of each; `scripts/fuzz.py` tries them by the thousand."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import fuzz
from fuzz_readers import READERS, Reader
from fuzz_report import describe_robustness
from fuzz_volume_seeds import Files
from voxlift.core.errors import DataError

CASES = 15


@pytest.fixture(scope="module", params=list(READERS))
def reader(request: pytest.FixtureRequest) -> tuple[str, list[Files]]:
    return request.param, READERS[request.param].seeds()


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused(reader: tuple[str, list[Files]], tmp_path: Path) -> None:
    name, seeds = reader
    for case in range(CASES):
        files, damaged = fuzz.make_case(name, seeds, seed=0, case=case)
        folder = tmp_path / str(case)
        fuzz.write_case(folder, files)
        assert fuzz.read_case(name, folder, damaged) in (fuzz.ACCEPTED, fuzz.REFUSED), case


@pytest.mark.filterwarnings("ignore")
def test_sound_files_are_read(reader: tuple[str, list[Files]], tmp_path: Path) -> None:
    name, seeds = reader
    # These are sound, but no weights of a network that is known.
    is_refused = name in ("exported programs", "pickled weights")
    for number, files in enumerate(seeds):
        folder = tmp_path / str(number)
        fuzz.write_case(folder, files)
        ends = READERS[name].damaged
        for one in files:
            if not ends or one.endswith(ends):
                expected = fuzz.REFUSED if is_refused else fuzz.ACCEPTED
                assert fuzz.read_case(name, folder, one) == expected, one


def test_a_case_depends_on_its_number_and_seed_alone() -> None:
    seeds = READERS["NRRD"].seeds()
    cases = [fuzz.make_case("NRRD", seeds, seed=1, case=case) for case in range(20)]
    assert cases == [fuzz.make_case("NRRD", seeds, seed=1, case=case) for case in range(20)]
    others = [fuzz.make_case("NRRD", seeds, seed=2, case=case) for case in range(20)]
    assert len({str(one) for one in (*cases, *others)}) > 35


def _misbehave(folder: Path, name: str) -> object:
    """Do what the file says."""
    match (folder / name).read_text():
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "run":
            while True:
                pass
        case "wait":
            time.sleep(60)
        case "fill":
            return bytearray(2**33)
        case "fail":
            raise KeyError
        case "refuse":
            raise DataError("no")
    return None


def _fuzz(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, int]:
    """Try what the words say, and count what came of it."""
    kinds = {"x": Reader(seeds=list, open=_misbehave)}
    monkeypatch.setattr(fuzz, "READERS", kinds)
    monkeypatch.setattr(fuzz, "MAX_SECONDS", 0.5)
    monkeypatch.setattr(
        fuzz, "make_case", lambda *_, case, **__: ({"a": words[case].encode()}, "a")
    )
    counts, found = fuzz.fuzz("x", [], seed=0, cases=range(len(words)))
    assert [words[one.case] for one in found] == [
        word for word in words if word not in ("accept", "refuse")
    ]
    return dict(counts)


# A fork is what is tested here.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_death_is_that_of_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("accept", "die", "refuse", "run", "fill", "fail", "accept")
    assert _fuzz(monkeypatch, *words) == {
        fuzz.ACCEPTED: 2,
        fuzz.REFUSED: 1,
        "died of SIGKILL": 1,
        "took over 0.5 s": 1,
        "MemoryError": 1,
        "KeyError": 1,
    }


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_hanging_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "MAX_WAIT_SECONDS", 0.3)
    assert _fuzz(monkeypatch, "wait") == {"hung for 0.3 s": 1}


def test_the_report_is_a_table() -> None:
    row = {"cases": 4, "accepted": 1, "refused": 2, "other": {"died": 1}}
    content: dict[str, Any] = {
        "command": "scripts/fuzz.py --cases 4",
        "seed": 0,
        "date": "2026-01-01",
        "limits": {"processor_seconds": 10, "seconds": 120, "gib_above_start": 2},
        "machine": {"processor": "CPU", "cores": 2, "python": "3", "packages": {"numpy": "2"}},
        "readers": [
            row | {"reader": "NRRD", "commit": "abc"},
            row | {"reader": "MHA", "commit": "abc"},
            row | {"reader": "COCO", "commit": "def"},
        ],
    }
    text = describe_robustness(content)
    assert "| NRRD | 4 | 1 | 2 | died: 1 |" in text
    assert "| all | 12 | 3 | 6 | 3 |" in text
    assert "`scripts/fuzz.py --cases 12 --seed 0`" in text
    assert "on commit abc; def for COCO, 2026" in text
