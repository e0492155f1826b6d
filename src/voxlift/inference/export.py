"""Export a model for programs that know nothing of Voxlift: as ONNX, or by torch.export.

What is written is run and compared with the network before the file gets its name.
"""

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from voxlift.core.errors import ConfigError, WeightsError
from voxlift.core.files import write_aside
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.types import Triple
from voxlift.inference.exportable import NamedOutputs, open_exportable
from voxlift.inference.exported_program import (
    INPUT,
    WRITERS,
    Dynamic,
    Format,
    Run,
    Trace,
    check_format,
)
from voxlift.inference.saved_model import SavedModel
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.source import Source

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference from the network that is let pass, relative to an output's largest number."""

NUM_ROUNDINGS, ROUNDING_MARGIN = 8, 4.0
"""Times that the network's own rounding is measured, and how much more of it is let pass."""

Shape = tuple[int | str, ...]
"""Length of each dimension, or the name of one that may have any."""


class ExportReport(BaseModel):
    """What was exported, and how well it agrees with the network.

    Args:
        path: The file.
        format: `onnx` or `torch.export`.
        input_name: What the input is called.
        input_shape: Its dimensions; those with a name may have any length.
        outputs: The outputs by name, each with its dimensions at `input_shape`.
        strides: Of each output that is a map, relative to the input.
        smallest_size: The smallest size in voxels that the program takes.
        largest_difference: From the network, relative to an output's largest number.
        checked_shapes: Shapes of the random volumes that both were compared on.
        num_bytes: Size of the file.
        notes: What was changed about the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: Format
    input_name: str
    input_shape: Shape
    outputs: dict[str, Shape]
    strides: dict[str, tuple[int, ...]] = {}
    smallest_size: tuple[int, ...]
    largest_difference: float
    checked_shapes: tuple[tuple[int, ...], ...]
    num_bytes: int
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Say in a few lines what was written and what it takes and gives."""
        lines = [f"{self.path}: {self.format}, {self.num_bytes / 1e6:.1f} MB"]
        lines.append(f"  input {self.input_name}: {_shape_text(self.input_shape)}")
        if any(isinstance(length, str) for length in self.input_shape[1:]):
            lines.append(f"  smallest size: {_shape_text(self.smallest_size)}")
        for name, shape in self.outputs.items():
            stride = f", stride {_shape_text(self.strides[name])}" if name in self.strides else ""
            lines.append(f"  output {name}: {_shape_text(shape)}{stride}")
        checked = ", ".join(_shape_text(shape) for shape in self.checked_shapes)
        lines.append(f"  differs from the network by {self.largest_difference:.1e} on {checked}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def export_model(
    model: Source | SavedModel | nn.Module,
    path: str | Path,
    *,
    size_voxels: Triple | None = None,
    dynamic: Dynamic = "batch",
    batch_size: int = 1,
    backbone_only: bool = False,
    preprocessing: Preprocessing | None = None,
    head: HeadDescription | None = None,
    header: WeightHeader | None = None,
) -> ExportReport:
    """Write a model as a program that runs without Voxlift.

    A model gives `logits`, a backbone its feature maps `map1`, `map2` ..., the finest first; ONNX
    by these names, torch.export as a dictionary. A detector gives the maps of its pyramid, `p2`,
    `p3` ..., from which its head would make boxes; the head is left out. The input, `volume`, is
    what `Preprocessing` makes of a volume, in float32. Preprocessing, classes and the rest of the
    header of a weight file travel along as JSON under the key `voxlift`: in the metadata of ONNX,
    in the extra files of torch.export.

    The file that was written is run on random volumes and compared with the network; only if they
    agree to `TOLERANCE` does it get its name. Where they do not, the network may be at fault: the
    instance norm of a channel of two voxels can make any error of them a thousand times larger.
    Then the program is compared with the network in float64, and each number may be off by what the
    network in float32 is off there itself, `ROUNDING_MARGIN` times; a note in the report says so.
    If fewer than half of an output's numbers can be held to `TOLERANCE`, nothing is written.

    Args:
        model: A bundled start, a weight file, a run folder, a saved model, or a module in memory:
            a backbone of `create_backbone`, a model of `create_model`, or a `Detector`. It is left
            as it is.
        path: The file to write; its suffix `.onnx` or `.pt2` chooses the format. A file that stands
            there is replaced.
        size_voxels: Depth, height and width of the input; None takes those of the model's
            preprocessing, or of a segmenter's window.
        dynamic: What may differ at run time: `none`, the `batch`, or `all` (the size as well).
        batch_size: Volumes in a batch for `dynamic="none"`.
        backbone_only: Export the backbone without what stands behind it.
        preprocessing: What a module in memory is fed, to travel along.
        head: What its outputs mean, likewise.
        header: Of the weight file that it was made from, likewise: licence, citation and provenance
            travel along, and preprocessing and head where they are not given. Architecture and
            geometry are those of the module itself.

    Raises:
        ConfigError: If the format is unknown, its packages are not installed, the network cannot be
            traced, or no size is known.
        DataError: If the size is too small for the network, or the file cannot be written.
        WeightsError: If the model cannot be read, or what was exported gives other numbers.
    """
    path = Path(path)
    kind = check_format(path)
    if dynamic not in ("none", "batch", "all"):
        raise ConfigError(f"Unknown dynamic {dynamic!r}; known are none, batch and all.")
    if batch_size < 1 or (batch_size > 1 and dynamic != "none"):
        raise ConfigError(
            f"batch_size is {batch_size}; it is 1 or more, and goes with dynamic 'none' only."
        )
    source = open_exportable(
        model, backbone_only=backbone_only, preprocessing=preprocessing, head=head, header=header
    )
    trace = Trace(source, source.size(size_voxels), dynamic, batch_size)
    expected = _outputs(source.network, trace.example())
    with write_aside(path) as aside:
        run = WRITERS[kind](trace, aside)
        difference, notes = _check(run, trace)
        num_bytes = aside.stat().st_size
    free = trace.free_dimensions()
    report = ExportReport(
        path=path,
        format=kind,
        input_name=INPUT,
        input_shape=_named(trace.example().shape, free),
        outputs=_output_shapes(expected, trace),
        strides=source.network.strides,
        smallest_size=trace.smallest_size,
        largest_difference=difference,
        checked_shapes=tuple(
            (batch, source.header.architecture.in_channels, *size)
            for batch, size in trace.shapes_to_check()
        ),
        num_bytes=num_bytes,
        notes=(*source.notes, *notes),
    )
    logger.info("Exported %s", path)
    return report


def _outputs(network: NamedOutputs, volumes: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        outputs: dict[str, Tensor] = network(volumes)
    return outputs


def _check(run: Run, trace: Trace) -> tuple[float, tuple[str, ...]]:
    """Compare a program with its network on all shapes.

    Returns:
        The largest difference, and what has to be said about it.

    Raises:
        WeightsError: If they differ by more than rounding.
    """
    network, largest, notes = trace.source.network, 0.0, {}
    for batch, size in trace.shapes_to_check():
        volumes = trace.volumes(batch, size)
        found, rounding = _run(run, volumes), None
        for name, expected in _outputs(network, volumes).items():
            difference = _difference(found[name], expected)
            if not difference <= TOLERANCE:
                if not math.isfinite(difference):
                    raise _other_numbers(name, volumes, difference)
                rounding = rounding or _Rounding.measure(network, volumes)
                notes[name] = rounding.check(name, found[name], difference)
            largest = max(largest, difference)
    return largest, tuple(notes.values())


@dataclass(frozen=True)
class _Rounding:
    """How far a network in float32 is from itself in float64.

    Args:
        volumes: What it was given.
        exact: Its outputs in float64, by name.
        off: By how much each of their numbers is off in float32.
    """

    volumes: Tensor
    exact: dict[str, Tensor]
    off: dict[str, Tensor]

    @classmethod
    def measure(cls, network: NamedOutputs, volumes: Tensor) -> "_Rounding":
        """Measure on volumes that differ in their last digit: a single error may be small by luck.

        Args:
            network: In float32.
            volumes: What it is given.
        """
        precise = copy.deepcopy(network).double()
        exact = _outputs(precise, volumes.double())
        off = {name: torch.zeros_like(output) for name, output in exact.items()}
        generator = torch.Generator().manual_seed(0)
        step = torch.finfo(volumes.dtype).eps
        for _ in range(NUM_ROUNDINGS):
            signs = torch.randint(-1, 2, volumes.shape, generator=generator)
            near = volumes * (1 + step * signs)
            rounded, expected = _outputs(network, near), _outputs(precise, near.double())
            for name, output in expected.items():
                off[name] = torch.maximum(off[name], (rounded[name] - output).abs())
        return cls(volumes, exact, off)

    def check(self, name: str, found: Tensor, difference: float) -> str:
        """Hold an output of the program to the network in float64.

        Args:
            name: Of the output.
            found: By the program.
            difference: From the network in float32.

        Returns:
            What has to be said about it.

        Raises:
            WeightsError: If it is off by more than rounding, or rounding leaves too little of it.
        """
        largest = self.exact[name].abs().max().clamp(min=1e-12)
        allowed = ROUNDING_MARGIN * self.off[name] / largest
        if not ((found - self.exact[name]).abs() / largest <= allowed.clamp(min=TOLERANCE)).all():
            raise _other_numbers(name, self.volumes, difference)
        loose = int((allowed > TOLERANCE).sum())
        own = float(self.off[name].max() / largest)
        if 2 * loose > allowed.numel():
            raise WeightsError(
                f"The exported program cannot be checked: for volumes of "
                f"{tuple(self.volumes.shape)} the network itself is off by {own:.2g} of the "
                f"largest number of {name} in float32, and {loose} of its {allowed.numel()} "
                f"numbers cannot be held to {TOLERANCE:g}. Nothing was written. Export for a "
                "larger size, so that the last maps have more voxels to normalise."
            )
        return (
            f"{name} is off by up to {own:.1e} of its largest number in the network itself, by the "
            f"rounding of float32; {loose} of {allowed.numel()} numbers were held to that instead"
        )


def _other_numbers(name: str, volumes: Tensor, difference: float) -> WeightsError:
    return WeightsError(
        f"The exported program gives other numbers than the network: for volumes of "
        f"{tuple(volumes.shape)} {name} differs by {difference:.2g} of its largest number, and "
        f"{TOLERANCE:g}, or a little more than the network's own rounding, is let pass. Nothing "
        "was written. Try the other format, or another size."
    )


def _run(run: Run, volumes: Tensor) -> Mapping[str, Tensor]:
    try:
        with torch.no_grad():
            return run(volumes)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(
            f"The exported program cannot be run on volumes of {tuple(volumes.shape)}: "
            f"{type(error).__name__}: {first} Nothing was written."
        ) from error


def _difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest number; infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _named(shape: tuple[int, ...], names: Mapping[int, str]) -> Shape:
    return tuple(names.get(number, length) for number, length in enumerate(shape))


def _output_shapes(outputs: Mapping[str, Tensor], trace: Trace) -> dict[str, Shape]:
    """Dimensions of the outputs; those that follow the input's are named after them."""
    free = trace.free_dimensions()
    strides = trace.source.network.strides
    shapes = {}
    for name, output in outputs.items():
        names = {0: free[0]} if free else {}
        if output.ndim > 2:
            steps = strides.get(name, (1, 1, 1))
            for dimension in free.keys() - {0}:
                step = steps[dimension - output.ndim]
                names[dimension] = free[dimension] if step == 1 else f"{free[dimension]}/{step}"
        shapes[name] = _named(tuple(output.shape), names)
    return shapes


def _shape_text(shape: Shape) -> str:
    return " x ".join(str(length) for length in shape)
