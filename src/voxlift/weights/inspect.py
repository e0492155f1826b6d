"""Say what a weight file holds, and whether a given model could take it."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from voxlift.core.geometry import geometry_name
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.report import LoadReport
from voxlift.weights.diagnosis import refusal
from voxlift.weights.formats import OWN
from voxlift.weights.header import WeightHeader
from voxlift.weights.load import compare
from voxlift.weights.match import HeadRule
from voxlift.weights.source import Source, read_source
from voxlift.weights.target import BACKBONE_PREFIX, find_target

NOT_LEARNT = ("running_mean", "running_var", "num_batches_tracked")


class WeightDescription(BaseModel):
    """What a weight file holds.

    Args:
        path: The file.
        format: The layout it was recognised as.
        sha256: Of the whole file.
        num_bytes: Size of the file.
        header: Architecture, geometry, preprocessing, head, provenance, licence, citation.
        num_tensors: Tensors in the file.
        num_parameters: Learnt numbers of the backbone (without running statistics).
        num_head_parameters: Learnt numbers behind the backbone.
        precisions: Precision of the numbers with a fraction, such as `float16`.
        report: What loading into the given model would do; None if no model was given.
        refusal: Why that model would not take them; None if it would, or none was given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    format: str
    sha256: str
    num_bytes: int
    header: WeightHeader
    num_tensors: int
    num_parameters: int
    num_head_parameters: int
    precisions: tuple[str, ...]
    report: LoadReport | None = None
    refusal: str | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the given model would take the weights; None if none was given."""
        return None if self.report is None else self.refusal is None

    def summary(self) -> str:
        """Say it in lines that a person can read."""
        lines = [f"{name + ':':<16}{value}" for name, value in self._rows()]
        if self.refusal is not None:
            lines += ["Would not load into this model:", self.refusal]
        elif self.report is not None:
            lines += ["Would load into this model:", self.report.summary()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def _rows(self) -> list[tuple[str, str]]:
        header = self.header
        shape, steps, head = header.architecture, header.geometry, header.head
        rows = [
            ("file", f"{self.path} ({self.num_bytes / 1e6:.1f} MB)"),
            ("sha256", self.sha256),
            ("format", f"{self.format}, header version {header.format_version}, "
             f"written by Voxlift {header.voxlift_version}" if self.format == OWN
             else self.format),
            ("architecture", f"{shape.name}, {shape.ndim}D, width {shape.width}, "
             f"stem kernel {shape.stem_kernel}, shortcut {shape.shortcut}"
             + (f", {shape.num_slices} slices, {shape.slice_transform}" if shape.num_slices else "")
             + (f", patch merging {shape.patch_merging}" if shape.name.startswith("swin") else "")),
            ("norm", shape.norm),
            ("input channels", str(shape.in_channels)),
            ("geometry", f"{geometry_name(steps)}: strides total {steps.strides[-1]} "
             "(depth, height, width)"),
            ("stem stride", str(steps.stem_stride)),
            ("pooling stride", str(steps.pool_stride or "no pooling")),
            ("stage strides", ", ".join(map(str, steps.stage_strides))),
            ("dilations", ", ".join(map(str, steps.dilations))),
            ("preprocessing", header.preprocessing.describe() if header.preprocessing
             else "not stated"),
            ("tensors", f"{self.num_tensors} ({', '.join(self.precisions)})"),
            ("parameters", f"{self.num_parameters:,} in the backbone, "
             f"{self.num_head_parameters:,} behind it"),
        ]  # fmt: skip
        if head is not None:
            names = ", ".join(head.class_names) or "not named"
            rows.append(("head", f"{head.task}, {head.num_classes} classes: {names}"))
            if head.threshold is not None:
                rows.append(("threshold", f"{head.threshold:g}"))
        rows += [(name, str(value)) for name, value in header.provenance.items()]
        rows.append(("licence", header.licence or "not stated"))
        rows.append(("citation", header.citation or "not stated"))
        return rows


def describe_weights(
    source: Source,
    *,
    model: nn.Module | None = None,
    head: HeadRule = "same",
    preprocessing: Preprocessing | None = None,
    min_coverage: float = 0.9,
) -> WeightDescription:
    """Describe a weight file, and say whether a model could take it. Nothing is changed.

    Args:
        source: A bundled name, the path of a weight file, or a file read before.
        model: A backbone, or a model with a `.backbone`, to try the weights on.
        head: As in `load_weights`.
        preprocessing: As in `load_weights`.
        min_coverage: As in `load_weights`.

    Raises:
        WeightsError: If the file cannot be trusted. Weights that do not fit the model are no
            error: see `refusal`.
    """
    file = read_source(source)
    report, error = None, None
    if model is not None:
        _, report = compare(
            find_target(model),
            file,
            name=file.source or str(file.path),
            head=head,
            preprocessing=preprocessing,
        )
        error = refusal(report, min_coverage=min_coverage)
    has_head = any(name.startswith(BACKBONE_PREFIX) for name in file.tensors)
    of_backbone = {
        name: tensor
        for name, tensor in file.tensors.items()
        if not has_head or name.startswith(BACKBONE_PREFIX)
    }
    num_parameters = _count(of_backbone)
    fractions = {t.dtype for t in file.tensors.values() if t.is_floating_point()}
    return WeightDescription(
        path=file.path,
        format=file.format,
        sha256=file.sha256,
        num_bytes=file.path.stat().st_size,
        header=file.header,
        num_tensors=len(file.tensors),
        num_parameters=num_parameters,
        num_head_parameters=_count(file.tensors) - num_parameters,
        precisions=tuple(sorted(_name(dtype) for dtype in fractions)),
        report=report,
        refusal=error,
    )


def _count(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() for name, t in tensors.items() if not name.endswith(NOT_LEARNT))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
