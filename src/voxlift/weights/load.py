"""Load weights so that it can be proved what was loaded."""

import logging
import warnings
from collections.abc import Iterable

import torch
from torch import nn

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.report import LoadReport
from voxlift.weights.diagnosis import field_differences, refusal
from voxlift.weights.file import WeightFile
from voxlift.weights.match import ChannelRule, HeadRule, Match, match_tensors
from voxlift.weights.source import Source, read_source
from voxlift.weights.target import StartTerms, Target, find_target

logger = logging.getLogger(__name__)


def load_weights(
    model: nn.Module,
    source: Source,
    *,
    skip: Iterable[str] = (),
    min_coverage: float = 0.9,
    head: HeadRule = "same",
    preprocessing: Preprocessing | None = None,
    channels: ChannelRule = "sum",
) -> LoadReport:
    """Load weights into a backbone, or into a model that holds one, and account for every tensor.

    Either everything fits, but for what the caller names in `skip`, or nothing is changed. The
    model keeps its own geometry: strides change no tensor, and their differences are reported.

    Args:
        model: A backbone, or a model with a `.backbone`.
        source: Weights by any of their names (see `voxlift.weights.source`), or a file read before.
        skip: Tensors or modules to leave as they are, such as `("conv1", "layer4")`.
        min_coverage: Share of the backbone's parameters that has to be loaded, 0 to 1.
        head: What becomes of the part behind the backbone: `same` takes the file's if names and
            shapes agree and leaves the model's as it is otherwise, `required` raises then, `none`
            leaves it always. Of a detector's parts `same` takes those up to the first that differs:
            of one for other classes, all but the last layers.
        preprocessing: What the model will be fed, if known, to be compared with the file's.
        channels: How a first layer of several input channels becomes one of a single channel: `sum`
            keeps the response to grey input, `mean` is the paper's and divides it by their number.

    Returns:
        What became of each tensor; it is logged as well.

    Raises:
        WeightsError: If the file cannot be trusted or does not fit, with the nearest names and the
            likely cause. The model is then unchanged.
    """
    target = find_target(model)
    file = read_source(source)
    match, report = compare(
        target,
        file,
        name=file.source or str(file.path),
        skip=skip,
        head=head,
        preprocessing=preprocessing,
        channels=channels,
    )
    if not 0 <= min_coverage <= 1:
        raise WeightsError(f"min_coverage is a share from 0 to 1; found {min_coverage}.")
    error = refusal(report, min_coverage=min_coverage)
    if error is not None:
        raise WeightsError(error)
    state = dict(model.state_dict())
    state.update({target.own_names[name]: tensor for name, tensor in match.tensors.items()})
    model.load_state_dict(state)
    # No tensor and no module, so that it is in nobody's state dict.
    vars(target.backbone)["start_terms"] = StartTerms(
        file.path.name, file.sha256, file.header.licence, file.header.citation
    )
    logger.info("Loaded %s", report.summary())
    if file.geometry_matters and report.geometry:
        differences = "; ".join(f"{name} is {how}" for name, how in report.geometry.items())
        warnings.warn(
            f"{report.source} was trained under another geometry, which matters for {file.format} "
            f"weights: {differences}. To use the file's own, give none.",
            stacklevel=2,
        )
    return report


def compare(
    target: Target,
    file: WeightFile,
    *,
    name: str,
    skip: Iterable[str] = (),
    head: HeadRule = "same",
    preprocessing: Preprocessing | None = None,
    channels: ChannelRule = "sum",
) -> tuple[Match, LoadReport]:
    """Find out what loading would do, and do nothing.

    Args:
        target: The model.
        file: The weights.
        name: What to call them in the report.
        skip: As in `load_weights`.
        head: As in `load_weights`.
        preprocessing: As in `load_weights`.
        channels: As in `load_weights`.

    Raises:
        WeightsError: If an entry of `skip` names nothing.
    """
    header = file.header
    match = match_tensors(
        file.tensors,
        target.state,
        prefix=target.prefix,
        head=head,
        head_groups=target.head_groups,
        skip=skip,
        channels=channels,
        input_layers=target.input_layers,
        adapted=file.adapted,
        adapter=target.adapter,
    )
    differs = {}
    if preprocessing is not None and header.preprocessing is not None:
        differs = field_differences(header.preprocessing, preprocessing)
    report = LoadReport(
        source=name,
        sha256=file.sha256,
        exact=tuple(match.exact),
        adapted=match.adapted,
        skipped=match.skipped,
        ignored={**file.ignored, **match.ignored},
        missing=match.missing,
        unused=match.unused,
        coverage=match.coverage(target.state, target.parameters),
        num_parameters=sum(target.state[name].numel() for name in target.parameters),
        architecture=field_differences(header.architecture, target.architecture),
        geometry=field_differences(header.geometry, target.geometry),
        preprocessing=differs,
        licence=header.licence,
        notes=_notes(file, match),
    )
    return match, report


def _notes(file: WeightFile, match: Match) -> tuple[str, ...]:
    notes = list(file.notes)
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in file.tensors.values()):
        notes.append("stored in half precision; computed in the model's precision")
    head = file.header.head
    if head is not None:
        classes = ", ".join(head.class_names[:10]) or f"{head.num_classes} classes"
        notes.append(f"the file's head was trained to {head.task}: {classes}")
    if match.head_parts:
        notes.append(f"taken from behind the backbone: {', '.join(match.head_parts)}")
    return tuple(notes)
