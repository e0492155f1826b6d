"""The machine that was measured, in words and numbers; nothing that names its owner."""

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

Facts = dict[str, str | int | float | list[str] | None]

# What decides whether bf16 pays on a CPU, and how wide its vectors are.
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine_facts() -> Facts:
    """Collect what speed depends on: processor, cores, memory, GPU, versions, and the date."""
    info = _processor_info()
    flags = info.get("flags", "").split()
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cpu_flags": [flag for flag in _TELLING_FLAGS if flag in flags],
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "voxlift": _own_version(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def num_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _own_version() -> str | None:
    """Read the installed version; None where the source tree is run as it is."""
    try:
        return version("voxlift")
    except PackageNotFoundError:
        return None


def _processor_info() -> dict[str, str]:
    """Read what Linux says about its first processor; nothing on other systems."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_gb() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
