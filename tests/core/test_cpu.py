from pathlib import Path

import pytest

from voxlift.core import cpu
from voxlift.core.cpu import SMALLEST_LEVEL2_CACHE, level2_cache_bytes, may_have_amx


def describe(folder: Path, *, shared: str, siblings: str, size: str = "2048K") -> Path:
    """Write what Linux says of a processor with three caches."""
    levels = {"index0": ("1", "48K"), "index2": ("2", size), "index3": ("3", "107520K")}
    for name, (level, bytes_of_level) in levels.items():
        cache = folder / "cache" / name
        cache.mkdir(parents=True)
        (cache / "level").write_text(f"{level}\n")
        (cache / "size").write_text(f"{bytes_of_level}\n")
        (cache / "shared_cpu_list").write_text(f"{shared}\n")
    (folder / "topology").mkdir()
    (folder / "topology/thread_siblings_list").write_text(f"{siblings}\n")
    return folder


@pytest.mark.parametrize(
    ("shared", "siblings", "kilobytes"),
    [
        ("0", "0", 2048),
        ("0-1", "0-1", 2048),  # two threads of one core
        ("0,56", "0,56", 2048),
        ("0-1", "0", 1024),  # two cores, as some virtual machines have it
        ("0-3,8-11", "0-1", 512),
        ("", "", 2048),
    ],
)
def test_level2_cache_is_shared_by_cores(
    tmp_path: Path, shared: str, siblings: str, kilobytes: int
) -> None:
    devices = describe(tmp_path, shared=shared, siblings=siblings)
    assert level2_cache_bytes(devices) == kilobytes * 1024


def test_unknown_cache_is_taken_for_a_small_one(tmp_path: Path) -> None:
    assert level2_cache_bytes(tmp_path) == SMALLEST_LEVEL2_CACHE
    assert level2_cache_bytes(describe(tmp_path, shared="0", siblings="0", size="?")) == 512 * 1024


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ({"avx512f", "amx_bf16"}, "x86_64", True),
        ({"avx512f", "avx512_bf16"}, "x86_64", False),
        (set(), "AMD64", True),
        (set(), "arm64", False),
    ],
)
def test_amx_is_looked_up_and_else_supposed(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], machine: str, expected: bool
) -> None:
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert may_have_amx() == expected
