"""The video networks of torchvision: r3d_18 and mc3_18, pre-trained on Kinetics-400."""

import re
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import IN_PLANE, PLANE_STAGES, VOLUME_STAGES, Geometry
from voxlift.weights.container import Container
from voxlift.weights.foreign.colours import Colour, describe_colours, grey_preprocessing
from voxlift.weights.foreign.names import WRAPPERS, strip_prefixes
from voxlift.weights.foreign.resnet_names import read_resnet
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

CITATION = (
    "Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018, "
    "arXiv 1711.11248"
)
MEAN: Colour = (255 * 0.43216, 255 * 0.394666, 255 * 0.37645)
STD: Colour = (255 * 0.22803, 255 * 0.22145, 255 * 0.216989)
BLOCK_PART = re.compile(r"(layer\d+\.\d+)\.conv(\d)\.([01])\.(\w+)")
STEM_PART = re.compile(r"stem\.([01])\.(\w+)")
KERNEL = re.compile(r"layer(\d+)\.\d+\.conv\d\.weight")
R3D = {1: {3}, 2: {3}, 3: {3}, 4: {3}}
MC3 = {1: {3}, 2: {1}, 3: {1}, 4: {1}}
"""Depth of the kernels in each stage."""


class TorchvisionVideoFormat:
    """Files of torchvision's `r3d_18` and `mc3_18`; `r2plus1d_18` is known and refused.

    Their stem is three slices deep. Laid in the middle of a seven deep one with zeros around it,
    it computes the same; and so do kernels of 1x3x3 in the middle of 3x3x3.
    """

    summary = "torchvision's video networks r3d_18 and mc3_18, pre-trained on Kinetics-400"
    licence = None

    def recognises(self, container: Container) -> bool:
        """Look for a stem and first block of nested modules."""
        names = strip_prefixes(container.tensors, WRAPPERS)[0]
        stem = names.get("stem.0.weight")
        first = ("layer1.0.conv1.0.weight", "layer1.0.conv1.0.0.weight")
        return stem is not None and stem.ndim == 5 and any(name in names for name in first)

    def translate(self, container: Container) -> Translation:
        """Rename everything, and pad what is thinner than our kernels with zeros."""
        where = str(container.path)
        tensors, chain = strip_prefixes(container.tensors, WRAPPERS)
        if "stem.3.weight" in tensors:
            raise WeightsError(
                f"{where} is r2plus1d_18, whose kernels are split into 1x3x3 and 3x1x1 with norms "
                "between: no network of Voxlift computes that. Use r3d_18 or mc3_18."
            )
        heads = {name: t for name, t in tensors.items() if name.startswith("fc.")}
        renamed, called = {}, {}
        for name, tensor in tensors.items():
            if name not in heads:
                ours = _rename(name)
                renamed[ours], called[ours] = tensor, chain + name
        thin = _stages_without_depth(renamed, where=where)
        padded, adapted = _pad(renamed)
        architecture, ours_by_name = read_resnet(padded, where=where, called=called)
        header = WeightHeader(
            architecture=architecture,
            geometry=Geometry(
                stem_stride=IN_PLANE,
                pool_stride=None,
                stage_strides=PLANE_STAGES if thin else VOLUME_STAGES,
            ),
            preprocessing=grey_preprocessing(MEAN, STD, in_channels=architecture.in_channels),
            provenance={
                "source": f"torchvision {'mc3_18' if thin else 'r3d_18'}",
                "input": describe_colours(MEAN, STD),
            },
            licence=self.licence,
            citation=CITATION,
        )
        return Translation(
            ours_by_name,
            header,
            ignored={
                chain + name: f"classifier of the file's {tensor.shape[0]} classes, of no use for "
                "others"
                for name, tensor in heads.items()
            },
            adapted=adapted,
            notes=(f"the network was fed {describe_colours(MEAN, STD)}",),
        )


def _rename(name: str) -> str:
    """Name a tensor as if convolutions and their norms stood side by side in a block."""
    stem = STEM_PART.fullmatch(name)
    if stem:
        return f"{('conv1', 'bn1')[int(stem[1])]}.{stem[2]}"
    part = BLOCK_PART.fullmatch(name)
    if part:
        return f"{part[1]}.{('conv', 'bn')[int(part[3])]}{part[2]}.{part[4]}"
    return name


def _stages_without_depth(tensors: Mapping[str, Tensor], *, where: str) -> bool:
    """Tell mc3_18, whose stages 2 to 4 see one slice at a time, from r3d_18."""
    depths: dict[int, set[int]] = {}
    for name, tensor in tensors.items():
        found = KERNEL.fullmatch(name)
        if found and tensor.shape[3:] == (3, 3):
            depths.setdefault(int(found[1]), set()).add(tensor.shape[2])
    if depths not in (R3D, MC3):
        told = "; ".join(f"stage {s}: {sorted(d)}" for s, d in sorted(depths.items()))
        raise WeightsError(
            f"{where}: the 3x3 kernels are so deep: {told or 'there are none'}. Expected 3 in all "
            "four stages (r3d_18), or 3 in the first and 1 in the others (mc3_18)."
        )
    return depths == MC3


def _pad(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Lay kernels that are thinner than wide in the middle of cubes of zeros."""
    padded, adapted = dict(tensors), {}
    for name, tensor in tensors.items():
        if tensor.ndim != 5:
            continue
        depth, edge = tensor.shape[2], tensor.shape[4]
        missing = edge - depth
        if missing > 0 and missing % 2 == 0:
            padded[name] = functional.pad(tensor, (0, 0, 0, 0, missing // 2, missing // 2))
            adapted[name] = (
                f"{depth}x{edge}x{edge} kernel laid in the middle of {edge}x{edge}x{edge}, with "
                "zeros around it: the same function"
            )
    return padded, adapted
