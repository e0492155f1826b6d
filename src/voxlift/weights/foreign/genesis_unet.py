"""The U-Net of Models Genesis as files hold it, for the formats that share it."""

from dataclasses import dataclass

from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import Geometry
from voxlift.weights.container import Container
from voxlift.weights.foreign.names import WRAPPERS, split_prefix, strip_prefixes
from voxlift.weights.foreign.shapes import check_shapes, make_architecture
from voxlift.weights.foreign.training_state import training_state

FIRST = "down_tr64.ops.0.conv1.weight"
LEVELS = ("down_tr64", "down_tr128", "down_tr256", "down_tr512")
DECODER = ("up_tr256.", "up_tr128.", "up_tr64.", "out_tr.")
BACKBONE = "backbone."
GEOMETRY = Geometry(stage_strides=((2, 2, 2),) * 3)
ABOUT_NORM = (
    "the file's network normalises by the batch itself, in evaluation too; build the model with "
    "norm='batch' to use its running statistics instead"
)


KERNEL_DIMENSIONS = 5
TURNED = "kernel turned from the axes (x, y, z) to (depth, height, width)"


@dataclass(frozen=True)
class GenesisUNet:
    """The parts of a file that holds this U-Net, as they were found.

    Args:
        network: Tensors of the U-Net, by bare names.
        beside: Names of what stands beside it, as the file has them.
        prefix: What the file's names of the U-Net begin with, such as `module.backbone.`.
    """

    network: dict[str, Tensor]
    beside: tuple[str, ...]
    prefix: str

    @property
    def in_backbone(self) -> bool:
        """Whether the U-Net stands under `backbone.`, beside other parts."""
        return self.prefix.endswith(BACKBONE)


@dataclass(frozen=True)
class GenesisEncoderFile:
    """The encoder of this U-Net.

    Args:
        tensors: By our names, the kernels turned to our order of the axes.
        adapted: Which tensors were turned, and how.
        ignored: Everything else in the U-Net and of its training, by the names of the file, and why
            it is of no use.
        beside: Names of what stands beside the U-Net.
        architecture: As the tensors have it.
    """

    tensors: dict[str, Tensor]
    adapted: dict[str, str]
    ignored: dict[str, str]
    beside: tuple[str, ...]
    architecture: Architecture


def find_genesis(container: Container) -> GenesisUNet | None:
    """Find the U-Net in a file; None if there is none."""
    tensors, chain = strip_prefixes(container.tensors, WRAPPERS)
    below, others = split_prefix(tensors, BACKBONE)
    if FIRST in below:
        return GenesisUNet(below, tuple(chain + name for name in others), chain + BACKBONE)
    return GenesisUNet(tensors, (), chain) if FIRST in tensors else None


def read_genesis(container: Container, *, what: str) -> GenesisEncoderFile:
    """Take the encoder of the U-Net out of a file.

    Args:
        container: The file.
        what: What it was taken for.

    Raises:
        WeightsError: If there is no such U-Net in it, or its encoder is not whole.
    """
    found = find_genesis(container)
    if found is None:
        raise WeightsError(
            f"{container.path} is not of {what}: it has no {FIRST}, with or without module. and "
            "backbone. before it. Declare another format, or none."
        )
    decoder = sorted(name for name in found.network if name.startswith(DECODER))
    encoder = {name: tensor for name, tensor in found.network.items() if name not in decoder}
    architecture = _architecture(container, found, what=what)
    shapes = genesis_shapes(architecture)
    called = {name: found.prefix + name for name in (*encoder, *shapes)}
    check_shapes(encoder, shapes, what=what, where=str(container.path), called=called)
    reason = "decoder of the file's U-Net, of which only the encoder is used"
    turned = {name for name, tensor in encoder.items() if tensor.dim() == KERNEL_DIMENSIONS}
    return GenesisEncoderFile(
        tensors={name: turn(t) if name in turned else t for name, t in encoder.items()},
        adapted=dict.fromkeys(sorted(turned), TURNED),
        ignored={found.prefix + name: reason for name in decoder}
        | training_state(container.extras),
        beside=found.beside,
        architecture=architecture,
    )


def turn(kernel: Tensor) -> Tensor:
    """Turn a kernel that was trained on volumes (x, y, z), so that it fits (z, y, x)."""
    return kernel.permute(0, 1, 4, 3, 2).contiguous()


def _architecture(container: Container, found: GenesisUNet, *, what: str) -> Architecture:
    first = found.network[FIRST]
    if first.dim() != 5:
        raise WeightsError(
            f"{container.path} looks like {what}, but {found.prefix}{FIRST} has the shape "
            f"{tuple(first.shape)}, expected five dimensions: it is of a 2D network. Take the file "
            "of the 3D network."
        )
    fields = {
        "name": "genesis",
        "in_channels": first.shape[1],
        "width": 2 * first.shape[0],
        "stem_kernel": 3,
        "norm": "batch_always",
    }
    return make_architecture(fields, where=str(container.path))


def genesis_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """List the tensors of the encoder but for the counters of batch norm, which may be missing."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = architecture.in_channels
    for i, level in enumerate(LEVELS):
        after = architecture.width * 2**i
        for number, (source, target) in enumerate(((before, after // 2), (after // 2, after))):
            name = f"{level}.ops.{number}"
            shapes[f"{name}.conv1.weight"] = (target, source, 3, 3, 3)
            shapes[f"{name}.conv1.bias"] = (target,)
            for kind in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.bn1.{kind}"] = (target,)
        before = after
    return shapes
