"""Files that ask for code: how they are refused, and the one place where they may run it."""

import shlex
import warnings
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from voxlift.core.errors import WeightsError


class CodeNeededError(WeightsError):
    """A file that cannot be read without running what it holds.

    Args:
        path: The file.
        why: The end of a sentence that begins with its name.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} {why}. Voxlift opens nothing that can run code. If you trust whoever made the "
            f"file, convert it once: voxlift convert {shlex.quote(str(path))} --allow-code "
            "--out NEW.safetensors"
        )


def read_with_code(stream: BinaryIO, path: Path) -> object:
    """Read a file of `torch.save` or TorchScript, running whatever it asks for.

    Returns:
        What it holds; networks are replaced by their tensors.

    Raises:
        WeightsError: If that fails.
    """
    warnings.warn(
        f"{path} is opened with the right to run code: it can read, change and send whatever you "
        "can. This is safe only if you trust whoever made it and know that it is unchanged.",
        stacklevel=4,
    )
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            # torch says that it found a TorchScript archive, or that a source file has changed.
            warnings.simplefilter("ignore")
            content = torch.load(stream, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise WeightsError(
            f"{path} needs code that is not installed: {error}. Install the package that wrote it, "
            "or run this where its source files lie."
        ) from error
    except Exception as error:  # The file's own code can fail in any way.
        raise WeightsError(f"{path} could not be read even with code: {error}") from error
    return _tensors(content)


def _tensors(content: object) -> object:
    """Replace networks by their tensors, also one level down."""
    if isinstance(content, nn.Module):
        return content.state_dict()
    if isinstance(content, dict):
        return {
            key: value.state_dict() if isinstance(value, nn.Module) else value
            for key, value in content.items()
        }
    return content
