"""Whether a weight file can describe the network that its header claims."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from voxlift.core.errors import ConfigError, WeightsError
from voxlift.weights.file import WeightFile

# A head and layers of the caller's own choice are not in the file.
_FREE_NUMBERS = 10_000_000
_TIMES_THE_FILE = 4
_MAKERS = (torch.empty, torch.eye, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros)


class _WithoutMemory(TorchFunctionMode):
    """Make tensors of numbers without memory for them; counting and the like goes on as ever."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do what is asked for, on the device without memory where it makes a tensor."""
        kwargs = dict(kwargs or {})
        if func in _MAKERS:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def check_buildable(build: Callable[[], nn.Module], file: WeightFile) -> None:
    """Refuse a header whose network cannot be made, or is far larger than the tensors beside it.

    The network is made without memory for its numbers.

    Args:
        build: Makes the network that the header describes.
        file: The weight file.

    Raises:
        WeightsError: If it is.
    """
    try:
        with torch.random.fork_rng(devices=[]), _WithoutMemory():
            network = build()
    except (ConfigError, WeightsError):
        raise
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{file.path} describes a network that cannot be made: {reason[:300]}. The file is "
            "damaged or was edited: fetch it again."
        ) from error
    wanted = sum(tensor.numel() for tensor in network.parameters())
    held = sum(tensor.numel() for tensor in file.tensors.values())
    if wanted > _TIMES_THE_FILE * held + _FREE_NUMBERS:
        raise WeightsError(
            f"{file.path} describes a network of {wanted:,} numbers, and holds {held:,}. The file "
            "is damaged or was edited: fetch it again."
        )
