"""How our side is computed on this machine: what pays here is on, and the rest is off."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from voxlift.config import MachineConfig
from voxlift.core.errors import ConfigError
from voxlift.training.hardware import Device, choose_device, computes_in_bf16

logger = logging.getLogger(__name__)

_COMPILERS = ("g++", "clang++")


@dataclass(frozen=True)
class Setting:
    """What our side may use here.

    Args:
        device: Where both sides compute.
        bf16: Whether our side computes in bf16 (mixed precision).
        compiler: Whether torch.compile can be tried; it is used where it wins.
    """

    device: Device
    bf16: bool
    compiler: bool

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked for."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


def choose_setting() -> Setting:
    """Find out what this machine can do, and say in the log what it cannot."""
    device = choose_device(MachineConfig())
    setting = Setting(device, bf16=computes_in_bf16(device), compiler=_has_compiler())
    logger.info(
        "Ours computes on %s: folded stem, %s, %s, %s.",
        device,
        "contiguous memory" if device == "mps" else "channels-last memory",
        "bf16" if setting.bf16 else "bf16 off (no fast bf16 in this hardware)",
        "torch.compile where it wins"
        if setting.compiler
        else "torch.compile off (no C++ compiler: install g++ or clang++)",
    )
    return setting


def _has_compiler() -> bool:
    own_choice = os.environ.get("CXX")
    return any(shutil.which(name) for name in ([own_choice] if own_choice else _COMPILERS))


@contextmanager
def cpu_threads(threads: int | None) -> Iterator[None]:
    """Compute with so many CPU threads inside the block; None leaves the number as it is.

    Raises:
        ConfigError: If it is not positive.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}; give 1 or more with --threads.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
