"""Files of `torch.save`, read without running anything that they hold."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.weights.plain import HARMLESS
from voxlift.weights.unwrap import Unwrapped, unwrap


def read_pickled(path: Path) -> Unwrapped:
    """Read the tensors of a file of `torch.save` and what stands beside them.

    Raises:
        WeightsError: If the file is damaged, asks for code, or holds no dictionary of tensors.
    """
    try:
        with torch.serialization.safe_globals(list(HARMLESS)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} could not be read safely: {error}") from error
    found = unwrap(content, path=path)
    tensors = {name: _plain_tensor(tensor) for name, tensor in found.tensors.items()}
    return Unwrapped(tensors, found.wrapper, found.extras)


def _plain_tensor(tensor: Tensor) -> Tensor:
    return tensor.detach().as_subclass(Tensor)
