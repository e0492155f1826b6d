"""The card of a model repository: what its weights are, for people and for the hub's search."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from voxlift.core.errors import WeightsError
from voxlift.core.extras import require_extra
from voxlift.core.geometry import geometry_name
from voxlift.weights.file import WeightFile, read_weight_file
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.licences import is_non_commercial
from voxlift.weights.local_paths import clean, without_paths

OWN_FORMAT = "voxlift"
UNKNOWN_LICENCE = "unknown"

LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nd-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "lgpl-3.0",
    "agpl-3.0", "mpl-2.0",
)  # fmt: skip
"""Licences that the hub knows by these names; any other is called `other` there."""

PIPELINES = {
    "classify": "image-classification",
    "segment": "image-segmentation",
    "detect": "object-detection",
}
FEATURES = "image-feature-extraction"

LIMITS = (
    "Research software, not a medical device: not for diagnosis, treatment or any other decision "
    "about a patient. The weights answer for data like those that they were trained on; on other "
    "scanners, protocols, body parts or populations measure first, on cases of your own."
)


def model_card(
    file: WeightFile | str | Path,
    *,
    repository: str,
    summary: str | None = None,
    limits: str | None = None,
) -> str:
    """Write the card of weights for the Hugging Face hub, in Markdown with its metadata.

    Everything in it comes from the header of the file. Paths of this machine are left out, and so
    are lists and tables of the provenance other than metrics, for they may name cases. Names of
    classes are shown as they are.

    Args:
        file: A weight file that Voxlift wrote.
        repository: Where it shall lie, as in `org/name`.
        summary: A sentence on what it is; else one is made from the header.
        limits: What else it is not good for.

    Raises:
        WeightsError: If the file is none of Voxlift's own.
    """
    require_extra("hub", "Model cards")
    from huggingface_hub import ModelCardData

    file = own_file(file)
    header = file.header
    terms = _licence_fields(header.licence, repository)
    data = ModelCardData(
        library_name="voxlift",
        pipeline_tag=PIPELINES.get(header.head.task, FEATURES) if header.head else FEATURES,
        tags=["voxlift", "medical-imaging", "3d", "pytorch", header.architecture.name],
        license=terms["license"],
        license_name=terms.get("license_name"),
        license_link=terms.get("license_link"),
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {repository.partition('/')[2]}",
        summary or _summary(header),
        "## How to load it",
        _usage(header, repository),
        "## What it is",
        _table(_architecture_rows(file)),
        "## Geometry",
        _geometry_text(header),
        "## Input",
        f"{header.preprocessing.describe()}." if header.preprocessing else "Not stated.",
        "## Where it comes from",
        _table(_provenance_rows(header.provenance)) or "Not stated.",
        "## Licence",
        _licence_text(header.licence),
        "## Citation",
        header.citation or "Not stated.",
        "## Limits",
        LIMITS + (f"\n\n{limits}" if limits else ""),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def own_file(file: WeightFile | str | Path) -> WeightFile:
    """Take or read a file that Voxlift wrote.

    Raises:
        WeightsError: If it has another format, or cannot be read.
    """
    if not isinstance(file, WeightFile):
        file = read_weight_file(file)
    if file.format != OWN_FORMAT:
        raise WeightsError(
            f"{file.path} is no weight file of Voxlift's own, but of the format {file.format}. "
            "Load it into a backbone and write that with voxlift.save_weights(...); whether its "
            "licence allows you to pass it on is for you to check."
        )
    return file


def _licence_fields(licence: str | None, repository: str) -> dict[str, str]:
    if licence is None:
        return {"license": UNKNOWN_LICENCE}
    plain = re.sub(r"[\s_]+", "-", licence.strip().lower())
    for known in LICENCES:
        is_it = plain == known or re.match(rf"{re.escape(known)}[,;(]", plain)
        if is_it and ("-nc" in known or not is_non_commercial(licence)):
            return {"license": known}
    page = f"https://huggingface.co/{repository}/blob/main/README.md"
    return {"license": "other", "license_name": "see-model-card", "license_link": page}


def _licence_text(licence: str | None) -> str:
    if licence is None:
        return "Not stated. Ask the authors before you use or pass on these weights."
    forbids = " **Not for commercial use.**" if is_non_commercial(licence) else ""
    return without_paths(licence).rstrip(".") + "." + forbids


def _summary(header: WeightHeader) -> str:
    name = header.architecture.name
    if header.head is None:
        return f"Weights of a 3D `{name}` backbone, written by Voxlift."
    does = {
        "classify": "classifies volumes",
        "segment": "segments volumes",
        "detect": "detects findings in volumes",
        "pretrain": "was pre-trained on labelled photographs lifted to thin volumes",
    }.get(header.head.task, f"was trained to {header.head.task}")
    return f"Weights of a 3D `{name}` network that {does}, written by Voxlift."


def _usage(header: WeightHeader, repository: str) -> str:
    shape = header.architecture
    channels = f", in_channels={shape.in_channels}" if shape.in_channels != 1 else ""
    return (
        "```python\n"
        "import voxlift\n\n"
        "backbone = voxlift.create_backbone(\n"
        f'    "{shape.name}"{channels}, weights="hf://{repository}"\n'
        ")\n"
        "```\n\n"
        "The load is accounted for tensor by tensor, or refused. Other strides than those below "
        "can be asked for with `geometry=`; they change no weight, and the report names them."
    )


def _architecture_rows(file: WeightFile) -> Iterator[tuple[str, str]]:
    shape, head = file.header.architecture, file.header.head
    yield "Backbone", f"`{shape.name}`, {shape.ndim}D"
    yield "Width", f"{shape.width} channels in the first stage"
    yield "Input channels", str(shape.in_channels)
    yield "Stem kernel", str(shape.stem_kernel)
    yield "Norm", shape.norm
    yield "Shortcut", shape.shortcut
    yield "Kernels", shape.convolution
    if shape.num_slices is not None:
        yield "Slices", str(shape.num_slices)
    yield "Numbers in the file", f"{sum(t.numel() for t in file.tensors.values()):,}"
    if head is not None:
        yield "Head", _head_text(head)
        if head.threshold is not None:
            yield "Threshold", f"{head.threshold:g}"
    yield "sha256", f"`{file.sha256}`"


def _head_text(head: HeadDescription) -> str:
    names = ", ".join(head.class_names) or "not named"
    return f"{head.task}, {head.num_classes} classes: {names}"


def _geometry_text(header: WeightHeader) -> str:
    steps = header.geometry
    rows = [
        ("Stem stride", str(steps.stem_stride)),
        ("Pooling stride", str(steps.pool_stride or "no pooling")),
        ("Stage strides", ", ".join(map(str, steps.stage_strides))),
        ("Dilations", ", ".join(map(str, steps.dilations))),
    ]
    name = geometry_name(steps)
    return f"`{name}`; every triple is (depth, height, width).\n\n{_table(rows)}"


def _provenance_rows(provenance: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    for name, value in provenance.items():
        if name == "metrics" and isinstance(value, dict):
            for metric, score in value.items():
                if isinstance(score, (int, float)):
                    yield str(clean(metric)), f"{score:.4g}"
        elif isinstance(value, (str, int, float)):
            yield name.replace("_", " ").capitalize(), str(clean(value))


def _table(rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines]) if lines else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
