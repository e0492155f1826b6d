"""What the processor of this machine can do, as the operating system reports it."""

import platform
from functools import cache
from pathlib import Path

SMALLEST_LEVEL2_CACHE = 512 * 1024
"""Bytes of level-2 cache a core is taken to have where the system does not report it."""


@cache
def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of the processor by their Linux names; empty if unknown."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return frozenset()
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            return frozenset(line.split())
    return frozenset()


def may_have_amx() -> bool:
    """Whether the processor has AMX matrix instructions, or could have: unknown counts as yes."""
    flags = cpu_flags()
    return "amx_bf16" in flags if flags else platform.machine().lower() in {"x86_64", "amd64"}


@cache
def level2_cache_bytes(devices: Path = Path("/sys/devices/system/cpu/cpu0")) -> int:
    """Return the level-2 cache of one core in bytes.

    Args:
        devices: Where Linux describes the first processor.
    """
    for folder in sorted(devices.glob("cache/index*")):
        size = _read(folder / "size")
        if _read(folder / "level") != "2" or not size.removesuffix("K").isdigit():
            continue
        threads = _count(_read(devices / "topology/thread_siblings_list"))
        cores = max(_count(_read(folder / "shared_cpu_list")) // threads, 1)
        return int(size.removesuffix("K")) * 1024 // cores
    return SMALLEST_LEVEL2_CACHE


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _count(processors: str) -> int:
    """Count the processors of a list such as `0-3,8`; 1 if there is none."""
    count = 0
    for span in filter(None, processors.split(",")):
        first, _, last = span.partition("-")
        count += int(last or first) - int(first) + 1
    return max(count, 1)
