"""Files of 2D ResNets, declared to be made 3D: `i3d:FILE`, `i3d-center:`, `acs:` and `2.5d:`."""

import re

from pydantic import JsonValue
from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.inflation import MODES, Mode, describe_inflation, inflate
from voxlift.weights.container import Container
from voxlift.weights.foreign.colours import Colour, describe_colours, grey_preprocessing
from voxlift.weights.foreign.names import WRAPPERS, split_prefix, strip_prefixes
from voxlift.weights.foreign.resnet_file import BACKBONE, open_resnet
from voxlift.weights.foreign.resnet_names import read_resnet
from voxlift.weights.foreign.resnet_shapes import DEPTHS, resnet_shapes
from voxlift.weights.foreign.shapes import check_shapes
from voxlift.weights.header import HEADER_KEY, WeightHeader, parse_header
from voxlift.weights.translation import Translation

MEAN: Colour = (123.675, 116.28, 103.53)
STD: Colour = (58.395, 57.12, 57.375)
"""What photographs of ImageNet are normalised with, colour by colour; their averages are ours."""

PHOTOGRAPHS = "RGB photographs on the 0-255 scale, as is common for ImageNet"
CITATION = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385"
METHODS: dict[Mode, str] = {
    "i3d": "made 3D as in Carreira and Zisserman, CVPR 2017, arXiv 1705.07750",
    "i3d-center": "made 3D with each kernel in the middle slice",
    "acs": "made 3D as in Yang et al., JBHI 2021, arXiv 1911.10477",
    "2.5d": "applied slice by slice",
}
TRAINED_WITH_ACS = (
    "if the network was trained with ACS convolutions, as CSPR's baseline, it strode depth too: "
    "give that geometry, such as geometry='unet' for the U-Nets"
)
TELLTALES: dict[str, str] = {
    "conv1.0.weight": "a stem of three convolutions (ResNet-C or -D)",
    "stem.conv.weight": "another family than ResNet",
    "features.0.weight": "another family than ResNet",
}
"""Tensors of 2D networks that are no plain ResNet, and what they mean."""

ANTIALIASED = re.compile(r"resnet(aa|blur)(?=\d)")
"""What timm calls networks that have the tensors of a plain ResNet, but blur before they stride."""

REMEDY = (
    "Build the 2D network with its own library, load the file there, and make it 3D with "
    "voxlift.convert_2d(network, mode=...)."
)


class PlanarFormat:
    """A 2D ResNet under the names of torchvision and timm, or our own planar twin, made 3D.

    Nothing in a file says in which way it shall be made 3D, so it is never recognised, only
    declared. Networks that differ in no tensor (timm's anti-aliased `resnetaa` and `resnetblur`)
    are told by the name of the file or folder alone.

    Args:
        mode: The way.
    """

    licence = None

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.summary = f"2D ResNets of torchvision, timm and Voxlift, {METHODS[mode]}"

    def recognises(self, container: Container) -> bool:
        """Leave it to the user to say so."""
        del container
        return False

    def translate(self, container: Container) -> Translation:
        """Infer the network, and make its kernels 3D."""
        if HEADER_KEY in container.metadata:
            return self._own(container)
        return self._foreign(container)

    def _foreign(self, container: Container) -> Translation:
        where = str(container.path)
        file = open_resnet(container, ndim=2)
        if file is None:
            raise WeightsError(_no_resnet(container, self.mode))
        named = ANTIALIASED.search(where)
        if named is not None:
            raise WeightsError(
                f"{where} is, by its name, of timm's {named[0]} family, which blurs its maps "
                "before it strides (anti-aliasing) and has the tensors of a plain ResNet. Voxlift "
                f"has no such network. {REMEDY}"
            )
        called = {name: file.prefix + name for name in file.tensors}
        try:
            planar, tensors = read_resnet(file.tensors, where=where, ndim=2, called=called)
        except WeightsError as error:
            raise WeightsError(f"{error} {REMEDY}") from error
        colours = describe_colours(MEAN, STD, of=PHOTOGRAPHS)
        header = WeightHeader(
            architecture=self._architecture(planar),
            geometry=named_geometry("pretrain"),
            preprocessing=grey_preprocessing(MEAN, STD, in_channels=planar.in_channels),
            provenance={"source": f"a 2D {planar.name}, {METHODS[self.mode]}", "input": colours},
            licence=self.licence,
            citation=f"{CITATION}; {METHODS[self.mode]}",
        )
        notes = [f"the 2D network is taken to have been fed {colours}"]
        if self.mode == "acs" and file.is_of_mmcv:
            notes.append(TRAINED_WITH_ACS)
        return self._inflate(tensors, header, ignored=file.ignored, notes=tuple(notes))

    def _own(self, container: Container) -> Translation:
        where = str(container.path)
        header = parse_header(container.metadata[HEADER_KEY], where=where)
        planar = header.architecture
        if planar.ndim != 2 or planar.name not in DEPTHS:
            raise WeightsError(
                f"{where} holds a {planar.ndim}D {planar.name}; only 2D ResNets can be made 3D. "
                f"Give it without {self.mode}: to load it as it is."
            )
        below, others = split_prefix(container.tensors, "backbone.")
        tensors = below or container.tensors
        check_shapes(tensors, resnet_shapes(planar), what=f"a 2D {planar.name}", where=where)
        provenance: dict[str, JsonValue] = {
            **header.provenance,
            "converted": f"from 2D, {METHODS[self.mode]}",
        }
        made = header.model_copy(
            update={
                "architecture": self._architecture(planar),
                "head": None,
                "provenance": provenance,
            }
        )
        reason = "head of the file's 2D network, of which only the backbone is used"
        return self._inflate(
            tensors, made, ignored=dict.fromkeys(others if below else (), reason), notes=()
        )

    def _architecture(self, planar: Architecture) -> Architecture:
        return planar.model_copy(update={"ndim": 3, "convolution": MODES[self.mode]})

    def _inflate(
        self,
        tensors: dict[str, Tensor],
        header: WeightHeader,
        *,
        ignored: dict[str, str],
        notes: tuple[str, ...],
    ) -> Translation:
        made, adapted = dict(tensors), {}
        for name, kernel in tensors.items():
            if kernel.ndim != 4:
                continue
            edge = kernel.shape[-1]
            made[name] = inflate(kernel, mode=self.mode, depth=edge)
            if edge > 1:
                adapted[name] = describe_inflation(self.mode, depth=edge)
            elif self.mode != "acs":
                adapted[name] = "2D kernel of a single pixel, made one of a single voxel"
        return Translation(made, header, ignored=ignored, adapted=adapted, notes=notes)


class UndeclaredPlanarFormat:
    """A 2D ResNet of torchvision or timm, without a word on how it shall be made 3D."""

    summary = "2D ResNets: to be declared as i3d:FILE, i3d-center:FILE, acs:FILE or 2.5d:FILE"
    licence = None

    def recognises(self, container: Container) -> bool:
        """Look for a stem with two spatial axes."""
        return HEADER_KEY not in container.metadata and open_resnet(container, ndim=2) is not None

    def translate(self, container: Container) -> Translation:
        """Ask for the way.

        Raises:
            WeightsError: Always.
        """
        path = container.path
        raise WeightsError(
            f"{path} holds a 2D ResNet, which can be made 3D in several ways. Say which: "
            f"i3d:{path} (kernels repeated along depth, their mean), "
            f"i3d-center:{path} (kernels in the middle slice), "
            f"acs:{path} (kernels shared out over the three planes) "
            f"or 2.5d:{path} (slice by slice)."
        )


PLANAR_FORMATS: dict[str, PlanarFormat] = {mode: PlanarFormat(mode) for mode in MODES}
"""By the names with which a file is declared: `i3d:FILE`."""


def _no_resnet(container: Container, mode: Mode) -> str:
    num_axes = [tensor.ndim - 2 for tensor in container.tensors.values()]
    if num_axes.count(3) > num_axes.count(2):
        return (
            f"{container.path} is 3D already: {num_axes.count(3)} of its kernels have three "
            f"spatial axes. Give it without {mode}: to load it as it is."
        )
    bare = strip_prefixes(container.tensors, WRAPPERS)[0]
    names = {*bare, *split_prefix(bare, BACKBONE)[0]}
    found = next(
        (f"{name} means {what}" for name, what in TELLTALES.items() if name in names),
        f"its tensors are {', '.join(list(container.tensors)[:5]) or 'none at all'} ...",
    )
    return (
        f"{container.path} holds no plain 2D ResNet (conv1.weight and layer1.0.conv1.weight with "
        f"two spatial axes): {found}. {REMEDY}"
    )
