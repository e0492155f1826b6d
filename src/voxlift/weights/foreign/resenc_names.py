"""The residual encoder of nnU-Net as files hold it: one tensor under several names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from voxlift.core.architecture import Architecture, Stage
from voxlift.core.errors import WeightsError
from voxlift.weights.foreign.shapes import make_architecture

STEM = "stem.convs.0.conv.weight"
ALIAS = re.compile(r"(?P<layer>.+)\.all_modules\.(?P<number>\d+)\.(?P<kind>\w+)")
BLOCK = re.compile(
    r"stages\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)\."
    r"(?P<part>conv1|conv2|skip)(?:\.(?P<number>[01]))?\.(?P<layer>conv|norm)\.(?P<kind>\w+)"
)
POOLED_SKIP = re.compile(r"stages\.(\d+)\.blocks\.0\.skip\.1\.conv\.weight")
PLAIN_SKIP = re.compile(r"stages\.(\d+)\.blocks\.0\.skip\.0\.conv\.weight")


def join_aliases(tensors: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Keep of each tensor that a file holds under two names the readable one.

    Each layer is there as `conv` and `norm`, and again as entries of `all_modules`.

    Raises:
        WeightsError: If the two differ, for no one can say which was meant.
    """
    joined = {name: tensor for name, tensor in tensors.items() if not ALIAS.fullmatch(name)}
    for name, tensor in tensors.items():
        alias = ALIAS.fullmatch(name)
        if alias is None:
            continue
        layer = "conv" if alias["number"] == "0" else "norm"
        readable = f"{alias['layer']}.{layer}.{alias['kind']}"
        same_tensor(joined.setdefault(readable, tensor), tensor, (readable, name), where=where)
    return joined


def same_tensor(one: Tensor, other: Tensor, names: tuple[str, str], *, where: str) -> None:
    """Make sure that what is one tensor in the network is one in the file.

    Raises:
        WeightsError: If they differ.
    """
    if one is not other and not torch.equal(one, other):
        raise WeightsError(
            f"{where}: {names[0]} and {names[1]} are one tensor in the network, but differ in the "
            "file. It was edited: change both alike, or fetch the original again."
        )


def read_resenc(
    tensors: Mapping[str, Tensor], *, where: str
) -> tuple[Architecture, dict[str, Tensor], dict[str, str]]:
    """Put the tensors of a residual encoder under our names, and infer its architecture.

    Args:
        tensors: By bare names, without aliases.
        where: The file, for errors.

    Returns:
        The architecture, the tensors by our names, and what the file calls them.

    Raises:
        WeightsError: If it is another kind of encoder.
    """
    renamed, called = {}, {}
    for name, tensor in tensors.items():
        ours = _our_name(name, where=where)
        renamed[ours], called[ours] = tensor, name
    first = renamed["stem.conv.weight"]
    if first.dim() != 5:
        raise WeightsError(
            f"{where}: {STEM} has the shape {tuple(first.shape)}, expected five dimensions: this "
            "is nnU-Net's 2D configuration. Take the file of a 3D configuration."
        )
    stages = _stages(renamed, where=where)
    fields = {
        "name": "resenc",
        "in_channels": first.shape[1],
        "width": stages[0].channels,
        "stem_kernel": 3,
        "norm": "batch" if "stem.norm.running_mean" in renamed else "instance",
        "stages": stages,
    }
    return make_architecture(fields, where=where), renamed, called


def resenc_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """List the tensors by our names, but for counters of batch norm, which may be missing."""
    assert architecture.stages is not None
    kinds = ["weight", "bias"]
    if architecture.norm == "batch":
        kinds += ["running_mean", "running_var"]
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, source: int, target: int, kernel: tuple[int, ...]) -> None:
        shapes[f"{name}.conv.weight"] = (target, source, *kernel)
        if not name.endswith("skip"):
            shapes[f"{name}.conv.bias"] = (target,)
        shapes.update({f"{name}.norm.{kind}": (target,) for kind in kinds})

    before = architecture.width
    add("stem", architecture.in_channels, before, architecture.stages[0].kernel)
    for number, stage in enumerate(architecture.stages):
        after = stage.channels
        for block in range(stage.blocks):
            name = f"stages.{number}.{block}"
            add(f"{name}.conv1", before, after, stage.kernel)
            add(f"{name}.conv2", after, after, stage.kernel)
            if before != after:
                add(f"{name}.skip", before, after, (1, 1, 1))
            before = after
    return shapes


def _our_name(name: str, *, where: str) -> str:
    if name.startswith("stem.convs.0."):
        return "stem." + name.removeprefix("stem.convs.0.")
    block = BLOCK.fullmatch(name)
    if block is None or (block["part"] == "skip") == (block["number"] is None):
        what = "a bottleneck block" if ".conv3." in name else "no part of a basic residual block"
        if "squeeze_excitation" in name:
            what = "squeeze and excitation"
        raise WeightsError(
            f"{where}: {name} is {what}. Only residual encoders of basic blocks are read, as in "
            "nnU-Net's ResEnc presets; load this one in nnU-Net."
        )
    start = f"stages.{block['stage']}.{block['block']}.{block['part']}"
    return f"{start}.{block['layer']}.{block['kind']}"


def _stages(tensors: Mapping[str, Tensor], *, where: str) -> tuple[Stage, ...]:
    """Count stages and blocks; their channels and kernels are those of the first convolution."""
    stages: list[Stage] = []
    while (name := f"stages.{len(stages)}.0.conv1.conv.weight") in tensors:
        start = name.removesuffix("0.conv1.conv.weight")
        blocks = 1
        while f"{start}{blocks}.conv1.conv.weight" in tensors:
            blocks += 1
        shape = tuple(tensors[name].shape)
        if len(shape) != 5 or not shape[0] or any(edge % 2 == 0 for edge in shape[2:]):
            raise WeightsError(
                f"{where}: the kernel of {name} has the shape {shape}; expected a 3D kernel with "
                "odd edges. Load this network in nnU-Net."
            )
        kernel = (shape[2], shape[3], shape[4])
        stages.append(Stage(channels=shape[0], blocks=blocks, kernel=kernel))
    if not stages:
        raise WeightsError(
            f"{where} has a stem but no stages.0.blocks.0.conv1.conv.weight behind it. It is cut "
            "off or was edited: fetch the original again."
        )
    return tuple(stages)
