"""State dicts of our own ResNets, saved with `torch.save` and no word on what they are of."""

from dataclasses import dataclass

from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.weights.container import Container
from voxlift.weights.foreign.names import WRAPPERS, split_prefix, strip_prefixes
from voxlift.weights.foreign.resnet_names import read_resnet, rename_norms
from voxlift.weights.foreign.training_state import training_state
from voxlift.weights.header import HEADER_KEY, WeightHeader
from voxlift.weights.target import BACKBONE_PREFIX
from voxlift.weights.translation import Translation

KERNELS = ("conv1.weight", "layer1.0.conv1.weight")
NORMS = ("norm1.weight", "layer1.0.norm1.weight")
STRIDES = (
    "the file does not say under which strides it was trained; those of pre-training are taken"
)
REMEDY = (
    "Of files without a description only ResNets are understood. Build the network, load the file "
    "with load_state_dict, and write it with voxlift.save_weights(...)."
)


class StateDictFormat:
    """What `torch.save(backbone.state_dict(), FILE)` writes, or that of a model with a backbone.

    What `voxlift convert --to torch` writes says itself what it is, and is read by that.
    """

    summary = "ResNets of Voxlift, written with torch.save"
    licence = None

    def recognises(self, container: Container) -> bool:
        """Look for a ResNet under our names, without a header."""
        return HEADER_KEY not in container.metadata and _open(container) is not None

    def translate(self, container: Container) -> Translation:
        """Infer what the network is; the tensors are as they shall be.

        Raises:
            WeightsError: If there is a header, which says it better, or no ResNet of ours.
        """
        where = str(container.path)
        if HEADER_KEY in container.metadata:
            raise WeightsError(f"{where} says itself what it is: give it without torch:.")
        file = _open(container)
        if file is None:
            raise WeightsError(
                f"{where} holds no ResNet under Voxlift's names: expected {', '.join(KERNELS)}, "
                f"{', '.join(NORMS)} ... {REMEDY}"
            )
        norm = "bn" if "norm1.running_mean" in file.backbone else "gn"
        theirs = rename_norms(file.backbone, "norm", norm)
        called = dict(zip(theirs, file.backbone, strict=True))
        ndim = file.backbone[KERNELS[0]].ndim - 2
        try:
            architecture, tensors = read_resnet(theirs, where=where, ndim=ndim, called=called)
        except WeightsError as error:
            raise WeightsError(f"{error} {REMEDY}") from error
        header = WeightHeader(
            architecture=architecture,
            geometry=named_geometry("pretrain"),
            provenance={"source": "a state dict under Voxlift's names"},
        )
        if file.is_model:
            tensors = {BACKBONE_PREFIX + name: tensor for name, tensor in tensors.items()}
        return Translation(
            {**tensors, **file.head},
            header,
            ignored=training_state(container.extras),
            notes=(STRIDES,),
        )


@dataclass(frozen=True)
class _StateDict:
    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    is_model: bool


def _open(container: Container) -> _StateDict | None:
    tensors, _ = strip_prefixes(container.tensors, WRAPPERS)
    below, head = split_prefix(tensors, BACKBONE_PREFIX)
    backbone = below or tensors
    known = all(name in backbone and backbone[name].ndim in (4, 5) for name in KERNELS)
    if not known or not all(name in backbone for name in NORMS):
        return None
    return _StateDict(backbone, head if below else {}, bool(below))
