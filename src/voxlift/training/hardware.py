"""Device, precision and memory format: chosen by what the hardware really does well."""

import logging
import shutil
from functools import cache
from typing import Literal

import torch
from torch import nn

from voxlift.config import MachineConfig
from voxlift.core.cpu import cpu_flags
from voxlift.core.errors import ConfigError

logger = logging.getLogger(__name__)

Device = Literal["cuda", "mps", "cpu"]
LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]


def choose_device(config: MachineConfig) -> Device:
    """Resolve `auto` and check that the device asked for is there.

    Raises:
        ConfigError: If it is not.
    """
    available: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if config.device == "auto":
        return next(device for device, there in available.items() if there)
    if not available[config.device]:
        there = ", ".join(device for device, is_there in available.items() if is_there)
        raise ConfigError(
            f"--device {config.device} is not available here; available: {there}. "
            "Leave --device at 'auto' to take the best one."
        )
    return config.device


def choose_precision(config: MachineConfig, device: Device) -> LightningPrecision:
    """Resolve `auto`: bf16 where the hardware computes in it, else fp32. Says so once.

    Raises:
        ConfigError: If fp16 is asked for without CUDA.
    """
    if config.precision == "fp16":
        if device != "cuda":
            raise ConfigError("--precision fp16 needs CUDA; use bf16 or fp32 on this device.")
        return "16-mixed"
    if config.precision == "fp32":
        return "32-true"
    if config.precision == "bf16" or computes_in_bf16(device):
        _say_once(f"Computing in bf16 (mixed precision) on {device}.")
        return "bf16-mixed"
    _say_once(f"Computing in fp32: {device} has no fast bf16 here.")
    return "32-true"


def autocast(config: MachineConfig, device: Device) -> torch.autocast:
    """Make the context in which a run's forward pass is computed."""
    precision = choose_precision(config, device)
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    return torch.autocast(device, dtype, enabled=precision != "32-true")


@cache
def _say_once(message: str) -> None:
    logger.info(message)


def computes_in_bf16(device: Device) -> bool:
    """Whether bf16 pays: on CUDA from Ampere on, on a CPU with AVX512-BF16 or AMX."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if device == "cpu":
        flags = cpu_flags()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def prepare_memory_format(model: torch.nn.Module, device: Device) -> torch.nn.Module:
    """Lay convolution weights out channels-last, which is faster on CPUs and GPUs alike."""
    if device != "mps":
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        for parameter in model.parameters():
            if parameter.ndim in formats:
                parameter.data = parameter.data.to(memory_format=formats[parameter.ndim])
    return model


def compile_backbone(task: nn.Module) -> None:
    """Compile the backbone of a task in place, where there is a C++ compiler; says so once.

    Raises:
        ConfigError: If the task has no backbone to compile, or one that recomputes activations.
    """
    backbone = getattr(getattr(task, "model", None), "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError("--compile works for models with a backbone only; leave it out.")
    if getattr(backbone, "checkpointing", False):
        # The compiler cannot follow what keeps batch norm from counting a batch twice.
        raise ConfigError(
            "--compile and --checkpointing exclude each other: torch.compile cannot trace the "
            "recomputation of activations. Leave one of them out."
        )
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl")):
        _say_once("torch.compile is off: there is no C++ compiler here.")
        return
    _say_once("Compiling the network: the first steps take a minute longer.")
    backbone.compile()
