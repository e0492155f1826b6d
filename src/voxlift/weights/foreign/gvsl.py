"""GVSL: a 3D U-Net pre-trained to register pairs of cardiac CT."""

from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import Geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.names import WRAPPERS, strip_prefixes
from voxlift.weights.foreign.shapes import check_shapes, make_architecture
from voxlift.weights.foreign.training_state import training_state
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

WHAT = "GVSL"
FIRST = "unet.inc.double_conv.0.weight"
ENCODER = {
    "unet.inc.double_conv.": "levels.0.",
    "unet.down1.maxpool_conv.1.double_conv.": "levels.1.",
    "unet.down2.maxpool_conv.1.double_conv.": "levels.2.",
    "unet.down3.maxpool_conv.1.double_conv.": "levels.3.",
    "unet.down4.maxpool_conv.1.double_conv.": "levels.4.",
}
"""What the names of each level begin with in the file, and with us."""

DECODER = ("unet.up1.", "unet.up2.", "unet.up3.", "unet.up4.")
HEADS = (
    "f_conv.",
    "sp_conv.",
    "res_conv.",
    "out_flow.",
    "fc_rot.",
    "fc_scl.",
    "fc_trans.",
    "fc_shear.",
    "atn.",
    "stn.",
)
GROUP = 8
CITATION = (
    "He et al., Geometric Visual Similarity Learning in 3D Medical Image Self-supervised "
    "Pre-training, CVPR 2023, arXiv 2303.00874"
)
INPUT = (
    "cardiac CT clipped to 0 to 2048, in the numbers of the files, and divided by 2048; volumes "
    "that 16 does not divide were padded with zeros on both sides"
)


class GvslFormat:
    """The U-Net of geometric visual similarity learning, of which the encoder is used."""

    summary = "GVSL: a 3D U-Net pre-trained on 302 cardiac CT without labels"
    licence: str | None = None

    def recognises(self, container: Container) -> bool:
        """Look for the first layer."""
        tensors, _ = strip_prefixes(container.tensors, WRAPPERS)
        return FIRST in tensors

    def translate(self, container: Container) -> Translation:
        """Number the levels; leave the decoder and the heads that register."""
        tensors, chain = strip_prefixes(container.tensors, WRAPPERS)
        encoder: dict[str, Tensor] = {}
        called: dict[str, str] = {}
        ignored = training_state(container.extras)
        for name, tensor in tensors.items():
            if name.startswith(DECODER):
                ignored[chain + name] = "decoder of the file's U-Net; only its encoder is used"
            elif name.startswith(HEADS):
                ignored[chain + name] = "head that registers pairs of volumes, of no use here"
            else:
                ours = _our_name(name)
                encoder[ours], called[ours] = tensor, chain + name
        architecture = _architecture(container, tensors)
        shapes = gvsl_shapes(architecture)
        called = {name: chain + _file_name(name) for name in shapes} | called
        check_shapes(encoder, shapes, what=WHAT, where=str(container.path), called=called)
        header = WeightHeader(
            architecture=architecture,
            geometry=Geometry(stage_strides=((2, 2, 2),) * 4),
            preprocessing=Preprocessing(
                orientation="stored",
                intensity="window",
                window=(0, 2048),
                in_channels=architecture.in_channels,
            ),
            provenance={"source": WHAT, "input": INPUT},
            licence=self.licence,
            citation=CITATION,
        )
        return Translation(encoder, header, ignored=ignored, notes=(f"{WHAT} was fed {INPUT}",))


def gvsl_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """List the tensors of the encoder by our names."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = architecture.in_channels
    for level in range(len(ENCODER)):
        after = architecture.width * 2**level
        for conv, source in ((0, before), (3, after)):
            shapes[f"levels.{level}.{conv}.weight"] = (after, source, 3, 3, 3)
            for name in (f"{conv}.bias", f"{conv + 1}.weight", f"{conv + 1}.bias"):
                shapes[f"levels.{level}.{name}"] = (after,)
        before = after
    return shapes


def _architecture(container: Container, tensors: dict[str, Tensor]) -> Architecture:
    first = tensors.get(FIRST)
    if first is None or first.dim() != 5 or first.shape[0] % GROUP:
        found = "missing" if first is None else f"of the shape {tuple(first.shape)}"
        raise WeightsError(
            f"{container.path} is not of {WHAT}: {FIRST} is {found}, expected a multiple of "
            f"{GROUP} channels and a 3D kernel, as in (32, 1, 3, 3, 3). Take the file of the 3D "
            "network."
        )
    fields = {
        "name": "gvsl",
        "in_channels": first.shape[1],
        "width": first.shape[0],
        "stem_kernel": 3,
        "norm": "group",
    }
    return make_architecture(fields, where=str(container.path))


def _our_name(name: str) -> str:
    for theirs, ours in ENCODER.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _file_name(name: str) -> str:
    for theirs, ours in ENCODER.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
