"""Which tensors a ResNet for volumes has, and of what shapes."""

from voxlift.core.architecture import Architecture
from voxlift.weights.foreign.shapes import Shape

DEPTHS: dict[str, tuple[bool, tuple[int, int, int, int]]] = {
    "resnet10": (False, (1, 1, 1, 1)),
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
    "resnet152": (True, (3, 8, 36, 3)),
    "resnet200": (True, (3, 24, 36, 3)),
}
"""Whether the blocks are bottlenecks, and how many each stage has. The networks say the same."""


def resnet_shapes(architecture: Architecture, *, norm: str = "norm") -> dict[str, Shape]:
    """List the tensors of a network but for the counters of batch norm, which may be missing.

    Args:
        architecture: Of a ResNet in `DEPTHS`.
        norm: What its norms are called: `norm` in ours, `bn` or `gn` in other projects.
    """
    bottleneck, blocks = DEPTHS[architecture.name]
    width, ndim = architecture.width, architecture.ndim
    shapes: dict[str, Shape] = {}

    def convolve(name: str, in_channels: int, channels: int, edge: int) -> None:
        shapes[f"{name}.weight"] = (channels, in_channels, *(edge,) * ndim)

    def normalize(name: str, channels: int) -> None:
        kinds = ["weight", "bias"]
        if architecture.norm in ("batch", "batch_always"):
            kinds += ["running_mean", "running_var"]
        shapes.update({f"{name}.{kind}": (channels,) for kind in kinds})

    convolve("conv1", architecture.in_channels, width, architecture.stem_kernel)
    normalize(f"{norm}1", width)
    before = width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        after = inner * (4 if bottleneck else 1)
        edges = (1, 3, 1) if bottleneck else (3, 3)
        for block in range(count):
            start = f"layer{stage + 1}.{block}"
            through = [before, inner, *([inner] if bottleneck else []), after]
            for i, edge in enumerate(edges, start=1):
                convolve(f"{start}.conv{i}", through[i - 1], through[i], edge)
                normalize(f"{start}.{norm}{i}", through[i])
            widens = before != after and architecture.shortcut == "B"
            if widens or (stage == block == 0 and architecture.project_first):
                convolve(f"{start}.downsample.0", before, after, 1)
                normalize(f"{start}.downsample.1", after)
            before = after
    return shapes
