"""Trace a network, write it as ONNX or as a program of torch.export, and run what was written."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import Dim

from voxlift.core.errors import ConfigError
from voxlift.core.extras import require_extra
from voxlift.inference.exportable import Exportable
from voxlift.lifting.image_to_volume import NUM_SLICES
from voxlift.weights.header import HEADER_KEY

Dynamic = Literal["none", "batch", "all"]
"""What may differ from the exported input: nothing, the batch, or the batch and the size."""

Format = Literal["onnx", "torch.export"]
Run = Callable[[Tensor], dict[str, Tensor]]
"""From a volume to the named outputs of a program."""

SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".pt2": "torch.export"}
INPUT = "volume"
# An ONNX file is one protobuf message, which ends at 2 GiB.
MAX_ONNX_BYTES = 2**31 - 2**20


@dataclass(frozen=True)
class Trace:
    """For what a network is traced.

    Args:
        source: The network.
        size_voxels: The size to export for.
        dynamic: What may differ from it.
        batch_size: Volumes in a batch, if that may not differ.
    """

    source: Exportable
    size_voxels: tuple[int, ...]
    dynamic: Dynamic
    batch_size: int

    @property
    def smallest_size(self) -> tuple[int, ...]:
        """The smallest size that the program takes: every map has two voxels on every axis.

        A map of a single voxel is traced otherwise than larger ones, and so is a volume that is
        thin enough for its stem to be folded.

        Raises:
            ConfigError: If the maps have other axes than the volume.
        """
        if self.dynamic != "all":
            return self.size_voxels
        backbone = self.source.network.backbone
        strides = tuple(backbone.strides[-1])[-len(self.size_voxels) :]
        if len(strides) != len(self.size_voxels):
            raise ConfigError(
                f"The maps of this {backbone.architecture.name} have other axes than its volumes, "
                "so it is exported for one size: take dynamic 'batch'."
            )
        return tuple(max(stride + 1, NUM_SLICES + 1) for stride in strides)

    def example(self) -> Tensor:
        """Make the volumes that the network is traced with."""
        # A batch of one would be taken for granted.
        batch = self.batch_size if self.dynamic == "none" else 2
        pairs = zip(self.size_voxels, self.smallest_size, strict=True)
        return self.volumes(batch, tuple(max(pair) for pair in pairs))

    def volumes(self, batch: int, size_voxels: tuple[int, ...]) -> Tensor:
        """Make random volumes, the same ones for the same size."""
        shape = (batch, self.source.header.architecture.in_channels, *size_voxels)
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))

    def shapes_to_check(self) -> list[tuple[int, tuple[int, ...]]]:
        """Batches and sizes for which the written program is compared with the network."""
        if self.dynamic == "none":
            return [(self.batch_size, self.size_voxels)]
        if self.dynamic == "batch":
            return [(1, self.size_voxels), (3, self.size_voxels)]
        traced = tuple(self.example().shape[2:])
        # Neither the traced size nor a multiple of any stride.
        other = tuple(length + 1 + 2 * axis for axis, length in enumerate(traced))
        return [(1, self.smallest_size), (3, traced), (1, other)]

    def free_dimensions(self) -> dict[int, str]:
        """Names of the dimensions that may differ, by their number."""
        names = {0: "batch"} if self.dynamic != "none" else {}
        if self.dynamic == "all":
            names |= {axis + 2: name for axis, name in enumerate(self.source.axes)}
        return names


def check_format(path: Path) -> Format:
    """Tell the format by the suffix, and see that what writes it is installed.

    Raises:
        ConfigError: If the suffix is unknown or a package is missing.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"{path} ends in {path.suffix!r}; expected .onnx (ONNX) or .pt2 (torch.export)."
        )
    if path.suffix == ".onnx":
        require_extra("onnx", "ONNX files", otherwise="A .pt2 file needs nothing more.")
    return SUFFIXES[path.suffix]


def write_torch_program(trace: Trace, path: Path) -> Run:
    """Trace the network with torch.export, write the program, and read it again to run it."""
    sizes = dict(enumerate(trace.smallest_size, start=2))
    free = {number: Dim.DYNAMIC(min=sizes.get(number, 1)) for number in trace.free_dimensions()}
    with _exporting(trace):
        program = torch.export.export(
            trace.source.network, (trace.example(),), dynamic_shapes=(free,), strict=False
        )
        extra: dict[str, Any] = {HEADER_KEY: trace.source.header.to_json()}
        torch.export.save(program, path, extra_files=extra)
        read = torch.export.load(path).module()
    return lambda volume: dict(read(volume))


def write_onnx(trace: Trace, path: Path) -> Run:
    """Trace the network to ONNX, write it, and open what was written on the CPU to run it."""
    network = trace.source.network
    num_bytes = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    if num_bytes > MAX_ONNX_BYTES:
        raise ConfigError(
            f"The network has {num_bytes / 2**30:.1f} GiB of numbers; an ONNX file holds 2 GiB. "
            "Export to a .pt2 file."
        )
    with _exporting(trace):
        program = torch.onnx.export(
            network,
            (trace.example(),),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(network.names),
            dynamic_shapes=(trace.free_dimensions(),),
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props[HEADER_KEY] = trace.source.header.to_json()
        program.save(path, external_data=False)
        session = import_module("onnxruntime").InferenceSession(
            path, providers=["CPUExecutionProvider"]
        )

    def run(volume: Tensor) -> dict[str, Tensor]:
        outputs = session.run(list(network.names), {INPUT: volume.numpy()})
        return dict(zip(network.names, map(torch.from_numpy, outputs), strict=True))

    return run


WRITERS: dict[Format, Callable[[Trace, Path], Run]] = {
    "onnx": write_onnx,
    "torch.export": write_torch_program,
}


@contextmanager
def _exporting(trace: Trace) -> Iterator[None]:
    """Keep the exporter's own warnings in, and say whose network it could not trace."""
    name = trace.source.header.architecture.name
    chatty = [logging.getLogger(each) for each in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except (ConfigError, OSError):
        raise
    except Exception as error:
        remedy = (
            "Export it for one size (dynamic 'batch')."
            if trace.dynamic == "all"
            else "Voxlift's backbones can be as they are: see whether a layer was changed, or try "
            "the other format."
        )
        first = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(
            f"This {name} cannot be exported: {type(error).__name__}: {first} {remedy}"
        ) from error
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
