"""From the names and shapes of a foreign ResNet to ours, and to what the network is.

Projects that grew out of the same ResNet for videos share its names: `conv1`, `bn1` (or `gn1`),
`layer1.0.conv1`, `layer2.0.downsample.0`. Ours differ in the norms alone: `norm1`.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.weights.foreign.names import Value
from voxlift.weights.foreign.resnet_shapes import DEPTHS, resnet_shapes
from voxlift.weights.foreign.shapes import check_shapes, make_architecture
from voxlift.weights.match import BATCH_COUNTER

BLOCK = re.compile(r"layer(\d+)\.(\d+)\.")


def is_resnet(tensors: Mapping[str, Tensor], *, ndim: int = 3) -> bool:
    """Tell a ResNet for volumes (or, with two dimensions, images) by its stem and first block."""
    kernels = ("conv1.weight", "layer1.0.conv1.weight")
    return all(name in tensors and tensors[name].ndim == ndim + 2 for name in kernels) and any(
        f"{norm}1.weight" in tensors for norm in ("bn", "gn")
    )


def read_resnet(
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    ndim: int = 3,
    called: Mapping[str, str] | None = None,
) -> tuple[Architecture, dict[str, Tensor]]:
    """Infer what the network is, check every shape, and rename the norms.

    Args:
        tensors: Of the backbone alone, by names without prefixes.
        where: The file, for the errors.
        ndim: 3 for volumes, 2 for images.
        called: What the file itself calls tensors that bear other names here.

    Returns:
        The architecture, and the tensors by our names.

    Raises:
        WeightsError: If the tensors are not those of a ResNet that Voxlift has.
    """
    norm = "gn" if "gn1.weight" in tensors else "bn"
    if norm == "bn":
        _check_statistics(tensors, where=where)
    architecture = _architecture(tensors, norm=norm, ndim=ndim, where=where)
    shapes = resnet_shapes(architecture, norm=norm)
    check_shapes(tensors, shapes, what=f"a {ndim}D {architecture.name}", where=where, called=called)
    return architecture, rename_norms(tensors, norm, "norm")


def rename_norms(tensors: Mapping[str, Value], old: str, new: str) -> dict[str, Value]:
    """Call the numbered norms otherwise: `layer1.0.bn2.weight` becomes `layer1.0.norm2.weight`."""
    numbered = re.compile(rf"{old}(\d)")

    def rename(part: str) -> str:
        found = numbered.fullmatch(part)
        return f"{new}{found[1]}" if found else part

    return {".".join(map(rename, name.split("."))): t for name, t in tensors.items()}


def _architecture(
    tensors: Mapping[str, Tensor], *, norm: str, ndim: int, where: str
) -> Architecture:
    if not is_resnet(tensors, ndim=ndim):
        what = {2: "images", 3: "volumes"}[ndim]
        raise WeightsError(
            f"{where} holds no ResNet for {what}: expected conv1.weight and layer1.0.conv1.weight "
            f"with {ndim} spatial axes, found {', '.join(list(tensors)[:5])} ... Is it the right "
            "file, and of the format that was declared?"
        )
    kernel = tensors["conv1.weight"]
    edges = tuple(kernel.shape[2:])
    if edges[0] == 1 and ndim == 3:
        raise WeightsError(
            f"{where}: conv1.weight has a kernel of {edges}, one slice deep. The file does not "
            "show how such a 2.5D network pools slices: CSPR's baseline pools three, Voxlift's "
            "networks none. Take its 2D original as 2.5d:FILE, or another start."
        )
    if len(set(edges)) != 1 or edges[0] not in (3, 5, 7):
        raise WeightsError(
            f"{where}: conv1.weight has a kernel of {edges}; expected the same edge of 3, 5 or 7 "
            "on each axis. Voxlift has no such network."
        )
    name = _depth(tensors, where=where)
    bottleneck = DEPTHS[name][0]
    projected = {s for s in range(1, 5) if f"layer{s}.0.downsample.0.weight" in tensors}
    fields = {
        "name": name,
        "ndim": ndim,
        "in_channels": kernel.shape[1],
        "width": kernel.shape[0],
        "stem_kernel": edges[0],
        "norm": "group" if norm == "gn" else "batch",
        "shortcut": "B" if projected else "A",
        "project_first": not bottleneck and 1 in projected,
    }
    return make_architecture(fields, where=where)


def _depth(tensors: Mapping[str, Tensor], *, where: str) -> str:
    blocks: dict[int, set[int]] = {}
    for name in tensors:
        found = BLOCK.match(name)
        if found:
            blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    counts = tuple(len(blocks[stage]) for stage in sorted(blocks))
    bottleneck = "layer1.0.conv3.weight" in tensors
    for name, depth in DEPTHS.items():
        if depth == (bottleneck, counts):
            return name
    kind = "bottlenecks" if bottleneck else "basic blocks"
    known = "; ".join(
        f"{name} {'bottlenecks' if deep else 'basic blocks'} {known_counts}"
        for name, (deep, known_counts) in DEPTHS.items()
    )
    raise WeightsError(
        f"{where} holds a ResNet of {kind} {counts}, which Voxlift does not have. "
        f"Known are {known}."
    )


def _check_statistics(tensors: Mapping[str, Tensor], *, where: str) -> None:
    for name in tensors:
        start, _, kind = name.rpartition(".")
        is_norm = re.search(r"(^|\.)(bn\d|downsample\.1)$", start) is not None
        if kind == "weight" and is_norm and f"{start}.running_mean" not in tensors:
            raise WeightsError(
                f"{where}: {start} is a batch norm without running_mean and running_var, so that "
                "nobody knows what it computes. Save the network with its running statistics "
                f"({BATCH_COUNTER} may be missing)."
            )
