"""P3D and MP3D, as the public detectors of lesions store them: backbone, pyramid, proposals."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from voxlift.core.architecture import Architecture, Norm, SliceTransform
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.mp3d_heads import ANCHORS_NOTE, translate_heads
from voxlift.weights.foreign.names import WRAPPERS, split_prefix, strip_prefixes
from voxlift.weights.foreign.shapes import Shape, check_shapes, make_architecture
from voxlift.weights.header import WeightHeader
from voxlift.weights.target import BACKBONE_PREFIX
from voxlift.weights.translation import Translation

STEM = "conv1_custom.weight"
FIRST_NORM = "layer1.0.norm_1.weight"
HEADS = ("neck.", "rpn_head.", "roi_head.", "bbox_head.", "mask_head.")
TRANSFORMS: dict[str, SliceTransform] = {"groupconv": "group", "conv3d_all": "conv3d"}
"""Kinds of the slice transform, by what their layers are called in the file."""

MEAN, STD = 123.675, 58.395
"""Of every slice, on the scale of 0 to 255: the red channel's of ImageNet."""

KERNELS = (3, 5, 7)
BACKBONES: dict[tuple[int, tuple[int, ...]], str] = {
    (1, (2, 2, 2, 2)): "p3d18",
    (4, (2, 2, 2, 2)): "p3d18_bottleneck",
    (1, (3, 4, 6, 3)): "p3d34",
    (4, (3, 4, 6, 3)): "p3d63",
    (4, (3, 4, 23, 3)): "p3d131",
}
"""Names by the expansion of the blocks and their numbers in the stages."""

CT_SLICES = 9
"""Slices that the project's P3D for DeepLesion is fed; no tensor shows the number."""

NEVER_POOLS = "modified_P3D"
"""What the configuration in a raw training file calls a network that does not pool slices."""

WITHOUT_TRANSFORM: dict[SliceTransform, str] = {
    "pool": "without a group transform: computed as the project's P3D for DeepLesion, whose 9 "
    "slices are pooled to 5, 3 and 1 between the stages. No tensor shows it: if the file is of a "
    "network that took the middle slice without pooling, give slice_transform='center'",
    "center": f"without a group transform, and the file's configuration names {NEVER_POOLS}: the "
    "middle slice is taken, without pooling",
}

Shapes = Iterator[tuple[str, Shape]]


class MP3DFormat:
    """A detector of the MP3D project, or its backbone alone."""

    summary = "MP3D and P3D, pre-trained on the boxes of COCO or trained on DeepLesion"
    licence = None

    def recognises(self, container: Container) -> bool:
        """Look for the stem and the first norm: other P3D networks call it `bn1`."""
        tensors, _ = _split(container.tensors)
        return STEM in tensors and FIRST_NORM in tensors

    def translate(self, container: Container) -> Translation:
        """Rename the tensors, after a check of all names and shapes.

        Raises:
            WeightsError: If the network is none of `BACKBONES`, or a tensor is missing, unknown or
                of another shape than these have.
        """
        tensors, others = _split(container.tensors)
        where = str(container.path)
        plan = _plan(tensors, where=where)
        check_shapes(tensors, dict(plan.shapes()), what=f"a {plan.name}", where=where)
        notes: list[str] = []
        without: SliceTransform = "pool"
        if plan.num_slices is None:
            without = "center" if _never_pools(container) else "pool"
            notes.append(WITHOUT_TRANSFORM[without])
        header = WeightHeader(
            architecture=plan.architecture(without, where=where),
            geometry=named_geometry("pretrain"),
            preprocessing=Preprocessing(orientation="stored", unit="0-255", mean=MEAN, std=STD),
            provenance={
                "input": "photographs as three slices, or CT slices 2.5 mm apart whose -1024 to "
                "1050 HU are first scaled to 0..255"
            },
            citation="Zhang et al., Revisiting 3D Context Modeling with Supervised Pre-training "
            "for Universal Lesion Detection in CT Slices, MICCAI 2020, arXiv 2012.08770",
        )
        renamed = {_our_name(name): tensor for name, tensor in tensors.items()}
        heads, ignored = translate_heads(others, in_channels=plan.out_channels)
        if heads:
            renamed = {BACKBONE_PREFIX + name: tensor for name, tensor in renamed.items()} | heads
        if any(name.startswith("head.rpn.") for name in heads):
            notes.append(ANCHORS_NOTE)
        return Translation(renamed, header, ignored=ignored, notes=tuple(notes))


@dataclass(frozen=True)
class _Plan:
    """What the tensors tell of their network."""

    name: str
    in_channels: int
    width: int
    kernel: int
    norm: Norm
    expansion: int
    depths: tuple[int, ...]
    transform: str | None
    num_slices: int | None

    def architecture(self, without: SliceTransform, *, where: str) -> Architecture:
        """Describe the network, with `without` as its transform if it has none of weights."""
        fields = {
            "name": f"m{self.name}",
            "in_channels": self.in_channels,
            "width": self.width,
            "stem_kernel": self.kernel,
            "norm": self.norm,
            "num_slices": CT_SLICES if self.num_slices is None else self.num_slices,
            "slice_transform": TRANSFORMS[self.transform] if self.transform else without,
        }
        return make_architecture(fields, where=where)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the stages' maps."""
        return tuple(self.width * 2**stage * self.expansion for stage, _ in enumerate(self.depths))

    def shapes(self) -> Shapes:
        """Every tensor of the network, by the names of the file."""
        yield STEM, (self.width, self.in_channels, 1, self.kernel, self.kernel)
        yield from self._norm("norm1", self.width)
        before, index = self.width, 0
        for stage, (depth, after) in enumerate(zip(self.depths, self.out_channels, strict=True)):
            channels = after // self.expansion
            for block in range(depth):
                prefix = f"layer{stage + 1}.{block}."
                yield from self._block(prefix, before, channels, parallel=index % 3 == 1)
                if before != after:
                    yield f"{prefix}downsample.0.weight", (after, before, 1, 1, 1)
                    yield from self._norm(f"{prefix}downsample.1", after)
                before, index = after, index + 1
            if self.num_slices is not None:
                mixed = (after,) if self.transform == "conv3d_all" else ()
                shape = (after, *mixed, self.num_slices, 1, 1)
                yield f"{self.transform}_{stage + 1}.weight", shape

    def _block(self, prefix: str, before: int, channels: int, *, parallel: bool) -> Shapes:
        within, across = (1, 3, 3), (3, 1, 1)
        if self.expansion == 1:
            kernels = [within, across, within, across]
            outputs = [channels] * 4
            inputs = [before, before if parallel else channels, channels, channels]
        else:
            kernels = [(1, 1, 1), within, across, (1, 1, 1)]
            outputs = [channels, channels, channels, channels * self.expansion]
            inputs = [before, channels, channels, channels]
        for i in range(4):
            yield f"{prefix}conv{i + 1}.weight", (outputs[i], inputs[i], *kernels[i])
            yield from self._norm(f"{prefix}norm_{i + 1}", outputs[i])

    def _norm(self, name: str, channels: int) -> Shapes:
        parts: tuple[str, ...] = ("weight", "bias")
        if self.norm == "batch":
            parts += ("running_mean", "running_var")
        for part in parts:
            yield f"{name}.{part}", (channels,)


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part the backbone's tensors, by their bare names, from the rest of a detector."""
    names, _ = strip_prefixes(tensors, WRAPPERS)
    below, others = split_prefix(names, "backbone.")
    if STEM in below:
        return below, others
    bare = {name: tensor for name, tensor in names.items() if not name.startswith(HEADS)}
    return bare, {name: tensor for name, tensor in names.items() if name not in bare}


def _never_pools(container: Container) -> bool:
    """Look into the configuration that mmcv stores beside the tensors."""
    meta = container.extras.get("meta")
    return isinstance(meta, Mapping) and NEVER_POOLS in str(meta.get("config"))


def _plan(tensors: Mapping[str, Tensor], *, where: str) -> _Plan:
    """Infer the network from a few of its tensors."""
    if STEM not in tensors:
        some = ", ".join(list(tensors)[:5]) or "none at all"
        raise WeightsError(
            f"{where} holds no P3D network: its tensors are {some} ... Expected {STEM}, "
            f"{FIRST_NORM} and the like, bare or below backbone. Leave the format out, so that the "
            "file is recognised by its tensors."
        )
    stem = tuple(tensors[STEM].shape)
    if len(stem) != 5 or stem[2] != 1 or stem[3] != stem[4] or stem[3] not in KERNELS:
        raise WeightsError(
            f"{where}: {STEM} has shape {stem}; expected (width, channels, 1, k, k) with k of 3, 5 "
            "or 7. The file is of another network: load it into that, and save its encoder."
        )
    first = tensors.get("layer1.0.conv1.weight")
    expansion = 4 if first is not None and tuple(first.shape[2:]) == (1, 1, 1) else 1
    depths = tuple(_num_blocks(tensors, stage) for stage in (1, 2, 3, 4))
    name = BACKBONES.get((expansion, depths))
    if name is None:
        kind = "bottleneck" if expansion == 4 else "basic"
        raise WeightsError(
            f"{where} holds {'-'.join(map(str, depths))} {kind} blocks in layer1 to layer4; known "
            f"are {', '.join(BACKBONES.values())}. Take a file of one of these."
        )
    transform = next((t for t in TRANSFORMS if f"{t}_1.weight" in tensors), None)
    num_slices = None
    if transform is not None:
        weight = tensors[f"{transform}_1.weight"]
        axis = 2 if transform == "conv3d_all" else 1
        num_slices = weight.shape[axis] if weight.ndim > axis else 1
    return _Plan(
        name=name,
        in_channels=stem[1],
        width=stem[0],
        kernel=stem[3],
        norm="batch" if "norm1.running_mean" in tensors else "group",
        expansion=expansion,
        depths=depths,
        transform=transform,
        num_slices=num_slices,
    )


def _num_blocks(tensors: Mapping[str, Tensor], stage: int) -> int:
    pattern = re.compile(rf"layer{stage}\.(\d+)\.")
    found = [pattern.match(name) for name in tensors]
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _our_name(name: str) -> str:
    if name == STEM:
        return "conv1.weight"
    transform = re.fullmatch(rf"(?:{'|'.join(TRANSFORMS)})_(\d)\.weight", name)
    if transform:
        return f"group_transform.{transform[1]}.weight"
    return re.sub(r"\.norm_(\d)\.", r".norm\1.", name)
