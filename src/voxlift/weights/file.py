"""Weight files: read one in whole or not at all, write one in one step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.core.files import write_aside
from voxlift.weights.container import Container, check_numbers, read_container, read_metadata
from voxlift.weights.formats import CHECKPOINT, FORMATS, recognise
from voxlift.weights.header import HEADER_KEY, WeightHeader, parse_header
from voxlift.weights.programs import refuse_program
from voxlift.weights.unwrap import OTHER_NETWORK

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class WeightFile:
    """A weight file in Voxlift's own terms.

    Args:
        path: The file.
        sha256: Of the whole file, in hexadecimal.
        format: Name of the layout it was recognised as.
        tensors: By our names; a model with a head has `backbone.*` and the rest.
        header: What is known about them.
        ignored: Tensors which the format knows and which are of no use here, and why.
        adapted: Tensors, by our names, that the translation changed, and how.
        notes: Whatever else a reader of the load report should know.
        geometry_matters: Whether a load into another geometry is warned of.
        source: What the user called it; empty if it was read by its path.
    """

    path: Path
    sha256: str
    format: str
    tensors: dict[str, Tensor]
    header: WeightHeader
    ignored: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    geometry_matters: bool = False
    source: str = ""


def read_weight_file(
    path: str | Path,
    *,
    declared: str | None = None,
    allow_code: bool = False,
    checkpoint: bool = False,
) -> WeightFile:
    """Read a weight file of any known format.

    Args:
        path: The file.
        declared: The format that the caller declares it to have; None goes by the fingerprint.
        allow_code: Whether a pickled file that cannot be read otherwise may run the code that it
            asks for, after a warning. Only for files whose maker you trust.
        checkpoint: Whether a checkpoint of a run, which is no finished model, may be read.

    Raises:
        WeightsError: If the file is missing, damaged, of an unknown format, a program or a
            checkpoint, or holds NaN or infinite numbers.
    """
    refuse_program(path)
    container = read_container(path, allow_code=allow_code)
    name = declared or recognise(container)
    if name == CHECKPOINT and not checkpoint:
        raise WeightsError(
            f"{path} is a checkpoint of a run, not a model. Make one of it: voxlift convert {path} "
            "--out model.safetensors"
        )
    translation = FORMATS[name].translate(container)
    return WeightFile(
        path=container.path,
        sha256=container.sha256,
        format=name,
        tensors=translation.tensors,
        header=translation.header,
        ignored={**_other_networks(container), **translation.ignored},
        adapted=translation.adapted,
        notes=translation.notes,
        geometry_matters=translation.geometry_matters,
    )


def _other_networks(container: Container) -> dict[str, str]:
    """Name what a pickled file holds beside the chosen network, such as a teacher."""
    return {
        name: value
        for name, value in container.extras.items()
        if isinstance(value, str) and value.startswith(OTHER_NETWORK)
    }


def read_header(path: str | Path) -> WeightHeader:
    """Read what one of our files says about its tensors, without reading them.

    Raises:
        WeightsError: If the file is missing, damaged or without a Voxlift header.
    """
    metadata = read_metadata(path)
    if HEADER_KEY not in metadata:
        raise WeightsError(
            f"{path} has no Voxlift header; expected a file written by voxlift.save_weights(...)."
        )
    return parse_header(metadata[HEADER_KEY], where=str(path))


def write_weight_file(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    header: WeightHeader,
    *,
    half: bool = False,
) -> None:
    """Write tensors and their description as one safetensors file, in one step.

    The same tensors and header give the same bytes. A file that stands at `path` is replaced once
    the new one is whole.

    Args:
        path: A name that ends in `.safetensors`.
        tensors: By our names.
        header: What is known about them.
        half: Store weight matrices and kernels as float16, at half the size. Biases, norms and
            running statistics, which are small and whose range is wide, stay as they are.

    Raises:
        WeightsError: If the name has another ending, a number is NaN or infinite, or one is too
            large for float16.
        DataError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise WeightsError(
            f"{path} does not end in {SUFFIX}, the only format that is written. "
            f"Call it {path.with_suffix(SUFFIX).name}."
        )
    if not tensors:
        raise WeightsError(f"There are no tensors to write to {path}.")
    stored = {name: _stored(name, tensor, half=half) for name, tensor in tensors.items()}
    # A second key would do, but the library writes several keys in random order: the bytes, and
    # with them the sha256, would differ from one saving to the next.
    data = safetensors.torch.save(stored, metadata={HEADER_KEY: header.to_json()})
    with write_aside(path) as aside:
        aside.write_bytes(data)


def _stored(name: str, tensor: Tensor, *, half: bool) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise WeightsError(
            f"{name} is no tensor but {type(tensor).__name__}; only tensors can be saved."
        )
    if tensor.is_meta:
        raise WeightsError(f"{name} is on the meta device and has no numbers to save.")
    # A copy, for safetensors refuses tensors that share memory or are laid out channels-last.
    copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    check_numbers(name, copy, where="the model")
    if not half or copy.dim() < 2 or copy.dtype not in (torch.float32, torch.float64):
        return copy
    largest = float(copy.abs().max()) if copy.numel() else 0.0
    if largest > torch.finfo(torch.float16).max:
        raise WeightsError(
            f"{name} holds {largest:.3g}, more than float16 can. Save without half=True."
        )
    return copy.half()
