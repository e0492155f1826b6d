"""What SuPreM's three networks have in common: data, licence, head and where they lie in a file."""

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import Geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.swin_file import RAS
from voxlift.weights.header import WeightHeader

WRAPPER = "net"
BESIDE = ("organ_embedding", "text_to_vision", "controller", "GAP", "precls_conv")
"""Parts of the head that segments one organ after the other."""

HEAD = "head that segments the file's organs, of no use for others"
HEADS = dict.fromkeys(BESIDE, HEAD)
LICENCE = "Apache-2.0 (Hugging Face page of the weights; the code is under MIT)"
UNIVERSAL_LICENCE = "CC BY-NC-ND 4.0, non-commercial (of the CLIP-driven universal model's code)"
UNIVERSAL_NAME = "clip_driven"
INPUT = (
    "abdominal CT of 1.5 mm, clipped to -175 to 250 HU and scaled to 0..1, in crops of 96^3 voxels"
)
ABOUT = (
    f"SuPreM was fed {INPUT}",
    RAS,
    "files of the CLIP-driven universal model look the same, and have the licence "
    f"{UNIVERSAL_LICENCE}; only the name of a file tells them apart",
)
CITATION = (
    "Li, Yuille and Zhou, How Well Do Supervised 3D Models Transfer to Medical Imaging Tasks?, "
    "ICLR 2024, arXiv 2501.11253"
)


def is_under_net(container: Container) -> bool:
    """Tell whether a file held its tensors where SuPreM's do."""
    return container.wrapper.split(".")[-1] == WRAPPER


def suprem_header(
    container: Container, architecture: Architecture, geometry: Geometry, *, axes: str
) -> WeightHeader:
    """Write down what is known of SuPreM's networks.

    Args:
        container: The file, whose name alone tells the CLIP-driven universal model.
        architecture: As the tensors have it.
        geometry: The network's own.
        axes: What is done about the order of the axes that the network was trained on.
    """
    universal = UNIVERSAL_NAME in container.path.name.lower()
    return WeightHeader(
        architecture=architecture,
        geometry=geometry,
        preprocessing=Preprocessing(
            spacing_mm=(1.5, 1.5, 1.5),
            intensity="window",
            window=(-175, 250),
            unit="HU",
            size_voxels=(96, 96, 96),
            in_channels=architecture.in_channels,
        ),
        provenance={
            "source": "CLIP-driven universal model" if universal else "SuPreM",
            "input": "; ".join((INPUT, RAS, axes)),
        },
        licence=UNIVERSAL_LICENCE if universal else LICENCE,
        citation=CITATION,
    )
