"""The parts of a file that holds a foreign ResNet: its backbone, and what stands beside it."""

from dataclasses import dataclass

from torch import Tensor

from voxlift.weights.container import Container
from voxlift.weights.foreign.names import WRAPPERS, split_prefix, strip_prefixes
from voxlift.weights.foreign.resnet_names import is_resnet
from voxlift.weights.foreign.training_state import training_state

BACKBONE = "backbone."
HEADS = ("fc.", "head.", "conv_seg.")
"""What bare files hold beside the backbone."""

DETECTOR = ("neck.", "rpn_head.", "roi_head.", "bbox_head.", "mask_head.", "bbox_roi_extractor.")
SEGMENTER = ("decode_head.", "auxiliary_head.", "conv_seg.")
PROJECTION_BIAS = "downsample.0.bias"
ACTIVATION = "act"
"""What MONAI alone has: a bias in the projections of shortcuts, and this name of a module."""

BESIDE_BACKBONE = (*DETECTOR, "head.fc.", "decode_head.", "auxiliary_head.")
"""Parts that networks of mmcv's projects have beside their `backbone.`."""


@dataclass(frozen=True)
class ResNetFile:
    """A file that holds a foreign ResNet.

    Args:
        tensors: Of the backbone, by names without prefixes.
        ignored: Everything else by the names of the file, and why it is of no use.
        chain: Prefixes of the wrappers around the whole network, such as `module.`.
        in_backbone: Whether the network stood under `backbone.`, beside other parts.
        has_fc: Whether a classifier `fc` stands beside it.
        modules: Names of the backbone's modules; none if the file does not tell.
    """

    tensors: dict[str, Tensor]
    ignored: dict[str, str]
    chain: str
    in_backbone: bool
    has_fc: bool
    modules: frozenset[str] = frozenset()

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.tensors["conv1.weight"].shape[1]

    @property
    def prefix(self) -> str:
        """What stands before the names of the backbone's tensors in the file."""
        return self.chain + (BACKBONE if self.in_backbone else "")

    @property
    def is_of_monai(self) -> bool | None:
        """Whether the network is one of MONAI's; None if nothing tells."""
        if any(name.endswith(PROJECTION_BIAS) for name in self.tensors):
            return True
        return ACTIVATION in self.modules if self.modules else None

    @property
    def is_parallel(self) -> bool:
        """Whether the network was saved in the wrapper for several GPUs."""
        return "module." in self.chain

    @property
    def is_of_mmcv(self) -> bool:
        """Whether parts stand beside the backbone that are called as in mmcv's projects."""
        parts = tuple(self.chain + part for part in BESIDE_BACKBONE)
        return self.in_backbone and any(name.startswith(parts) for name in self.ignored)

    @property
    def has_group_norm(self) -> bool:
        """Whether the norms are group norms."""
        return "gn1.weight" in self.tensors


def open_resnet(container: Container, *, ndim: int = 3) -> ResNetFile | None:
    """Find the ResNet for volumes (or images) in a file; None if there is none."""
    tensors, chain = strip_prefixes(container.tensors, WRAPPERS)
    below, others = split_prefix(tensors, BACKBONE)
    in_backbone = is_resnet(below, ndim=ndim)
    if in_backbone:
        backbone = below
    else:
        others = {name: t for name, t in tensors.items() if name.startswith(HEADS)}
        backbone = {name: t for name, t in tensors.items() if name not in others}
    if not is_resnet(backbone, ndim=ndim):
        return None
    ignored = {chain + name: _reason(name, tensor) for name, tensor in others.items()}
    ignored |= training_state(container.extras)
    prefix = chain + (BACKBONE if in_backbone else "")
    modules = (name.removeprefix(prefix) for name in container.modules if name.startswith(prefix))
    return ResNetFile(
        backbone,
        ignored,
        chain,
        in_backbone,
        has_fc="fc.weight" in others,
        modules=frozenset(modules),
    )


def _reason(name: str, tensor: Tensor) -> str:
    if name in ("fc.weight", "head.fc.weight", "fc.bias", "head.fc.bias"):
        return f"classifier of the file's {tensor.shape[0]} classes, of no use for others"
    if name.startswith(DETECTOR):
        return "part of the file's detector, of which only the backbone is used"
    if name.startswith(SEGMENTER):
        return "head of the file's segmenter, of which only the backbone is used"
    return "outside the file's backbone, which alone is used"
