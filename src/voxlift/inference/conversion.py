"""Convert weights: read any start, and write it as a file of ours or of others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from voxlift.core.errors import ConfigError
from voxlift.core.geometry import named_geometry
from voxlift.core.types import Triple
from voxlift.inference.export import export_model
from voxlift.inference.saved_model import build_model
from voxlift.nets.factory import create_backbone
from voxlift.weights.file import WeightFile
from voxlift.weights.formats import OWN
from voxlift.weights.header import WeightHeader
from voxlift.weights.layouts import write_layout
from voxlift.weights.load import load_weights
from voxlift.weights.match import ChannelRule
from voxlift.weights.save import save_model
from voxlift.weights.source import read_source
from voxlift.weights.target import find_target

Target = Literal["voxlift", "torch", "medicalnet", "monai", "onnx", "torch-export"]

TARGETS: dict[str, Target] = {
    ".safetensors": "voxlift",
    ".pth": "torch",
    ".pt": "torch",
    ".onnx": "onnx",
    ".pt2": "torch-export",
}
"""What the ending of a file asks for, where nothing else is said."""


@dataclass(frozen=True)
class Conversion:
    """A file that was written.

    Args:
        path: The file.
        target: What it is.
        sentences: What its reader has to know, in lines.
    """

    path: Path
    target: Target
    sentences: str


def convert_weights(
    source: str,
    out: str | Path,
    *,
    to: Target | None = None,
    geometry: str | None = None,
    in_channels: int | None = None,
    channels: ChannelRule = "sum",
    size_voxels: Triple | None = None,
    half: bool = False,
    allow_code: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Read weights by any of their names and write them as a file.

    They are loaded into the network that they describe, and written from there: what cannot be
    loaded in full is not converted.

    Args:
        source: A start; `i3d:FILE` and the like make a 3D network of a 2D one.
        out: The file to write.
        to: What to write; None goes by the ending of `out`.
        geometry: Strides by name; None keeps the source's.
        in_channels: Channels of the input; None keeps the source's.
        channels: How several input channels become one; see `load_weights`.
        size_voxels: Size that `onnx` and `torch-export` are made for; None takes the model's.
        half: Of `voxlift`: store kernels and matrices as float16.
        allow_code: Run the code that a pickled file holds.
        overwrite: Replace a file that is there.

    Raises:
        ConfigError: If options contradict each other, or a file is there already.
        WeightsError: If the weights cannot be read, or the target cannot hold them.
        DataError: If the file cannot be written.
    """
    out = Path(out)
    target = to or _target_of(out)
    if half and target != "voxlift":
        raise ConfigError("half is an option of .safetensors files; leave it out.")
    if size_voxels is not None and target not in ("onnx", "torch-export"):
        raise ConfigError("size_voxels is an option of .onnx and .pt2 files; leave it out.")
    if in_channels is not None and in_channels < 1:
        raise ConfigError(f"in_channels is {in_channels}; a network has at least one.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} is there already. Choose another name, or give --overwrite.")
    file = read_source(source, allow_code=allow_code, checkpoint=True)
    if out.exists() and out.samefile(file.path):
        raise ConfigError(f"{out} is the source itself, which would be lost. Choose another name.")
    header = _header(file, in_channels)
    model = _load(file, geometry=geometry, in_channels=in_channels, channels=channels)
    if target == "voxlift":
        written = _save(model, header, out, half=half)
    elif target in ("torch", "medicalnet", "monai"):
        licence = f"licence: {header.licence or 'not stated'}"
        noted = header if target != "medicalnet" else None
        written = f"{write_layout(model, out, layout=target, header=noted)}\n{licence}"
    else:
        written = export_model(model, out, size_voxels=size_voxels, header=header).summary()
    return Conversion(out, target, "\n".join((*file.notes, written)))


def _target_of(out: Path) -> Target:
    if out.suffix not in TARGETS:
        raise ConfigError(
            f"{out} ends in {out.suffix or 'nothing'}; known endings are {', '.join(TARGETS)}."
        )
    return TARGETS[out.suffix]


def _load(
    file: WeightFile, *, geometry: str | None, in_channels: int | None, channels: ChannelRule
) -> nn.Module:
    """Make the network that a file describes, with its weights."""
    header = file.header
    if header.head is None:
        return create_backbone(
            weights=file,
            geometry=geometry,
            in_channels=in_channels or header.architecture.in_channels,
            channels=channels,
        ).eval()
    if in_channels not in (None, header.architecture.in_channels):
        raise ConfigError(
            f"{file.source} is a whole model of {header.architecture.in_channels} input channels, "
            "and was judged with them. Leave in_channels out."
        )
    model = build_model(header)
    load_weights(model, file, head="required", min_coverage=1.0)
    if geometry is not None:
        model.backbone.geometry = named_geometry(geometry)  # type: ignore[union-attr]
    return model.eval()


def _header(file: WeightFile, in_channels: int | None) -> WeightHeader:
    """What the new file says of itself: all that the old one said, and where it came from."""
    header = file.header
    changes: dict[str, object] = {}
    if file.format != OWN:
        origin = {"converted_from": file.path.name, "format": file.format, "sha256": file.sha256}
        changes["provenance"] = {**header.provenance, **origin}
    if in_channels is not None and header.preprocessing is not None:
        fed = header.preprocessing.model_copy(update={"in_channels": in_channels})
        changes["preprocessing"] = fed
    return header.model_copy(update=changes)


def _save(model: nn.Module, header: WeightHeader, out: Path, *, half: bool) -> str:
    target = find_target(model)
    changes = {"architecture": target.architecture, "geometry": target.geometry}
    save_model(model, out, header.model_copy(update=changes), half=half)
    return f"backbone = voxlift.create_backbone(weights={str(out)!r})"
