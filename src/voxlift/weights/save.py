"""Save a network with everything that is needed to use it again."""

import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.file import write_weight_file
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.target import StartTerms, Target, find_target, start_terms

logger = logging.getLogger(__name__)

OF_THE_START = "not stated; of the start"


def save_weights(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing | None = None,
    head: HeadDescription | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
    licence: str | None = None,
    citation: str | None = None,
    half: bool = False,
) -> Path:
    """Save a backbone, or a model that holds one, with a description of itself.

    The file appears in one step; one that stands there already is replaced.

    Args:
        model: A backbone, or a model with a `.backbone`. Give `model.backbone` to leave its head.
        path: A name that ends in `.safetensors`.
        preprocessing: What was done to the input, to be done again at prediction.
        head: What the part behind the backbone answers.
        provenance: Where the numbers come from: data, recipe, command, seed, accuracy, date. Keep
            patients' names, numbers and dates out of it.
        licence: Under what terms the weights may be used; None tells those of the start that was
            loaded, if any.
        citation: What to cite; likewise.
        half: Store kernels and matrices as float16, at half the size.

    Returns:
        The path.

    Raises:
        WeightsError: If the model holds no backbone, or NaN or infinite numbers.
        DataError: If the file cannot be written.
    """
    header = describe_target(
        find_target(model),
        preprocessing=preprocessing,
        head=head,
        provenance=provenance,
        licence=licence,
        citation=citation,
    )
    return save_model(model, path, header, half=half)


def save_model(
    model: nn.Module, path: str | Path, header: WeightHeader, *, half: bool = False
) -> Path:
    """Save a backbone or a model with a description that was made before; see `save_weights`."""
    path = Path(path)
    tensors = find_target(model).state
    write_weight_file(path, tensors, header, half=half)
    logger.info("Saved %d tensors to %s", len(tensors), path)
    return path


def describe_target(
    target: Target,
    *,
    preprocessing: Preprocessing | None = None,
    head: HeadDescription | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
    licence: str | None = None,
    citation: str | None = None,
) -> WeightHeader:
    """Write down what a file of a network says of it; the arguments are those of `save_weights`."""
    start = start_terms(target.backbone)
    told = dict(provenance or {})
    if start is not None:
        told.setdefault("start_sha256", start.sha256)
        licence = licence or _inherited(start)
        citation = citation or start.citation
    return WeightHeader(
        architecture=target.architecture,
        geometry=target.geometry,
        preprocessing=preprocessing,
        head=head,
        provenance=told,
        licence=licence,
        citation=citation,
    )


def _inherited(start: StartTerms) -> str | None:
    """Say the terms of a start for what was made from it, without saying them twice."""
    if start.licence is None or start.licence.startswith(OF_THE_START):
        return start.licence
    return f"{OF_THE_START} {start.name}: {start.licence}"
