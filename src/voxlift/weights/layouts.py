"""Write ResNets under the names of other projects, for their code to read.

Names alone do not carry a function: strides belong to the code that reads them. So each layout says
what has to be built around its tensors, or refuses where nothing computes the same.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.files import write_aside
from voxlift.core.geometry import ALL, ONES, Geometry, geometry_name, named_geometry
from voxlift.weights.container import check_numbers
from voxlift.weights.foreign.monai import OUR_HEADER
from voxlift.weights.foreign.names import split_prefix
from voxlift.weights.foreign.resnet_file import ACTIVATION
from voxlift.weights.foreign.resnet_names import rename_norms
from voxlift.weights.foreign.resnet_shapes import DEPTHS, resnet_shapes
from voxlift.weights.header import HEADER_KEY, WeightHeader
from voxlift.weights.match import BATCH_COUNTER
from voxlift.weights.save import describe_target
from voxlift.weights.target import Target, find_target
from voxlift.weights.unwrap import NOTES

Layout = Literal["torch", "medicalnet", "monai"]
SUFFIXES = (".pt", ".pth")
MONAI_CLASS = "monai.networks.nets.ResNet"
DESCRIBED = ("preprocessing", "head", "provenance", "licence", "citation")
MONAI_STRIDES = (ONES, ALL, ALL, ALL)
FITTING = "'volume', 'unet' and 'small' are such geometries."


def write_layout(
    model: nn.Module,
    path: str | Path,
    *,
    layout: Layout = "torch",
    geometry: str | Geometry | None = None,
    header: WeightHeader | None = None,
) -> str:
    """Write a network as a file of `torch.save`, under its own or other names.

    The file holds plain tensors and is read with `torch.load(path, weights_only=True)`. It appears
    in one step; one that stands there already is replaced. What a file of `torch` or `monai` says
    of itself stands where torch keeps its own notes beside a state dict, in the way of nobody.

    Args:
        model: A backbone, or a model with a `.backbone`.
        path: A name that ends in `.pt` or `.pth`.
        layout: `torch` keeps our names and the head; `medicalnet` and `monai` take the backbone
            under the names of those projects.
        geometry: Of `monai`: the strides under which the network will be used; None takes its own.
        header: Of `torch` and `monai`: what else is known of the network; architecture and geometry
            are the network's own.

    Returns:
        How to read the file, in a few lines.

    Raises:
        WeightsError: If the layout cannot hold this network, the name has another ending, or a
            number is NaN or infinite.
        DataError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"{path} does not end in {' or '.join(SUFFIXES)}, as files of torch.save do. Call it "
            f"{path.with_suffix('.pth').name}."
        )
    if layout not in ("torch", "medicalnet", "monai"):
        raise WeightsError(f"Unknown layout {layout!r}; known are torch, medicalnet, monai.")
    if geometry is not None and layout != "monai":
        raise WeightsError(
            f"The layout {layout!r} holds no strides; give geometry with layout='monai' only."
        )
    if header is not None and layout == "medicalnet":
        raise WeightsError(
            "The layout 'medicalnet' holds tensors alone; give header with other layouts only."
        )
    content: dict[str, Any]
    if layout == "torch":
        target = find_target(model)
        text = _description(target, header)
        content = _with_notes(_plain(target.state), {"": {HEADER_KEY: text}})
        told = f"state = torch.load({path.name!r}, weights_only=True)"
    elif layout == "medicalnet":
        content = to_medicalnet(model)
        told = _medicalnet_advice(find_target(model), path)
    else:
        state, arguments = to_monai(model, geometry)
        steps = None if geometry is None else named_geometry(geometry)
        text = _description(find_target(model), header, geometry=steps)
        # By the name of its activation MONAI's network is told from others.
        content = _with_notes(state, {"": {OUR_HEADER: text}, ACTIVATION: {}})
        told = (
            f"network = {monai_call(arguments)}\n"
            f"network.load_state_dict(torch.load({path.name!r}, weights_only=True))"
        )
    # Into an open file: by a path, torch writes its name into the archive, and so other bytes.
    with write_aside(path) as aside, aside.open("wb") as stream:
        torch.save(content, stream)
    return told


def to_medicalnet(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Lay a ResNet's backbone out as MedicalNet's files are: `module.bn1.weight` and so on.

    Such files hold no strides. MedicalNet's own code builds its dilated geometry around them, with
    a width of 64 channels; see `to_monai` for code that can stride as the network was trained.

    Args:
        model: A backbone, or a model with a `.backbone`.

    Raises:
        WeightsError: If MedicalNet's networks have no place for this one's tensors.
    """
    target = find_target(model)
    _check_resnet(target.architecture, "MedicalNet")
    fixed: dict[str, Any] = {"ndim": 3, "in_channels": 1, "stem_kernel": 7}
    for field, wanted in fixed.items():
        found = getattr(target.architecture, field)
        if found != wanted:
            raise WeightsError(
                f"MedicalNet's networks have {field}={wanted}, this one has {found}; their layout "
                "has no place for it. Write the layout 'torch' or 'monai'."
            )
    state = _foreign_state(target)
    return {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}


def to_monai(
    model: nn.Module, geometry: str | Geometry | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Lay a ResNet's backbone out for MONAI, with the arguments that compute the same function.

    MONAI's network answers the last feature map, averaged over the volume. Its shortcut A lets no
    gradient through, ours does: the outputs agree, and training does not.

    Args:
        model: A backbone, or a model with a `.backbone`.
        geometry: The strides under which it will be used, by name or explicit; None takes its own.

    Returns:
        The tensors, to be loaded strictly, and the arguments of `monai.networks.nets.ResNet`.

    Raises:
        WeightsError: If no arguments compute the same, naming the field and what would work.
    """
    target = find_target(model)
    architecture = target.architecture
    _check_resnet(architecture, "MONAI")
    steps = target.geometry if geometry is None else named_geometry(geometry)
    last = slice(3 - architecture.ndim, None)
    _check_monai_strides(steps, last)
    bottleneck, blocks = DEPTHS[architecture.name]
    arguments: dict[str, Any] = {
        "block": "bottleneck" if bottleneck else "basic",
        "layers": list(blocks),
        "block_inplanes": [architecture.width * 2**stage for stage in range(4)],
        "spatial_dims": architecture.ndim,
        "n_input_channels": architecture.in_channels,
        "conv1_t_size": architecture.stem_kernel,
        "conv1_t_stride": steps.stem_stride[last],
        "no_max_pool": steps.pool_stride is None,
        "shortcut_type": architecture.shortcut,
        "feed_forward": False,
        "bias_downsample": False,
    }
    return _foreign_state(target), arguments


def monai_call(arguments: dict[str, Any]) -> str:
    """Write the line of Python that builds MONAI's network."""
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{MONAI_CLASS}({given})"


def _check_resnet(architecture: Architecture, whose: str) -> None:
    """Refuse what is no plain ResNet with batch norm."""
    if architecture.name not in DEPTHS:
        raise WeightsError(
            f"{whose}'s layout is one of ResNets ({', '.join(DEPTHS)}), not of "
            f"{architecture.name}. Write the layout 'torch'."
        )
    fixed: dict[str, tuple[Any, str]] = {
        "norm": ("batch", "its blocks have batch norm whatever is asked for"),
        "convolution": ("full", "its kernels span all axes"),
        "project_first": (False, "its first stage projects only where channels change"),
    }
    for field, (wanted, why) in fixed.items():
        found = getattr(architecture, field)
        widens = DEPTHS[architecture.name][0] and architecture.shortcut == "B"
        if found != wanted and not (field == "project_first" and widens):
            raise WeightsError(
                f"{whose}'s ResNet has no {field}={found!r}: {why}. Write the layout 'torch', and "
                f"use the tensors in Voxlift's own network; or take one with {field}={wanted!r}."
            )


def _check_monai_strides(geometry: Geometry, last: slice) -> None:
    """Refuse steps that MONAI's ResNet, which halves all axes alike, cannot take."""
    pool = geometry.pool_stride
    if pool is not None and pool[last] != ALL[last]:
        raise WeightsError(
            f"MONAI's ResNet pools with stride {ALL[last]} or not at all; pool_stride is "
            f"{pool[last]}. {FITTING}"
        )
    found = [stride[last] for stride in geometry.stage_strides]
    wanted = [stride[last] for stride in MONAI_STRIDES]
    if found != wanted:
        raise WeightsError(
            f"MONAI's ResNet strides its stages by {wanted}; stage_strides is {found}. {FITTING}"
        )
    if any(dilation[last] != ONES[last] for dilation in geometry.dilations):
        raise WeightsError(
            f"MONAI's ResNet has no dilations; dilations is {list(geometry.dilations)}. {FITTING}"
        )


def _foreign_state(target: Target) -> dict[str, Tensor]:
    """Take the backbone's tensors under the names that those projects share."""
    state, _ = split_prefix(target.state, target.prefix)
    wanted = resnet_shapes(target.architecture)
    found = {n: tuple(t.shape) for n, t in state.items() if not n.endswith(BATCH_COUNTER)}
    if found != wanted:
        odd = next(name for name in {**wanted, **found} if found.get(name) != wanted.get(name))
        raise WeightsError(
            f"The network was changed after it was built: {odd} has the shape {found.get(odd)}, "
            f"expected {wanted.get(odd)}. Write the layout 'torch'."
        )
    return _plain(rename_norms(state, "norm", "bn"))


def _description(
    target: Target, header: WeightHeader | None, *, geometry: Geometry | None = None
) -> str:
    """Write down what a network is, so that its file is read back as what it was."""
    known = {}
    if header is not None:
        known = {name: getattr(header, name) for name in DESCRIBED}
    described = describe_target(target, **known)
    if geometry is not None:
        described = described.model_copy(update={"geometry": geometry})
    return described.to_json()


def _with_notes(
    state: dict[str, Tensor], notes: dict[str, dict[str, str]]
) -> OrderedDict[str, Tensor]:
    """Put notes on modules, by their names, where torch keeps its own."""
    noted = OrderedDict(state)
    vars(noted)[NOTES] = OrderedDict(notes)
    return noted


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to plain ones on the CPU that share no memory."""
    plain = {}
    for name, tensor in state.items():
        check_numbers(name, tensor, where="the model")
        plain[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return plain


def _medicalnet_advice(target: Target, path: Path) -> str:
    read = f"state = torch.load({path.name!r}, weights_only=True)['state_dict']"
    name = geometry_name(target.geometry)
    if name == "medicalnet":
        return read
    return (
        f"{read}\nThe network was used under the geometry {name!r}. MedicalNet's own code strides "
        "and dilates otherwise, and then computes something else."
    )
