"""SuPreM's Swin UNETR, pre-trained to segment organs; and what its networks have in common."""

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import Geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.suprem_unet import BESIDE, CITATION
from voxlift.weights.foreign.swin_file import AXES, RAS, SwinFile, no_swin, open_swin, read_swin
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

WRAPPER = "net"
HEADS = dict.fromkeys(BESIDE, "head that segments the file's organs, of no use for others")
LICENCE = "Apache-2.0 (Hugging Face page of the weights; the code is under MIT)"
INPUT = (
    "abdominal CT of 1.5 mm, clipped to -175 to 250 HU and scaled to 0..1, in crops of 96^3 voxels"
)
UNIVERSAL_LICENCE = "CC BY-NC-ND 4.0, non-commercial (of the CLIP-driven universal model's code)"
UNIVERSAL_NAME = "clip_driven"
ABOUT = (
    f"SuPreM was fed {INPUT}",
    RAS,
    "files of the CLIP-driven universal model look the same, and have the licence "
    f"{UNIVERSAL_LICENCE}; only the name of a file tells them apart",
)


class SupremSwinUNETRFormat:
    """SuPreM's Swin UNETR, under the key `net`, of which the encoder is used."""

    summary = "SuPreM: supervised_suprem_swinunetr_2100.pth; Swin UNETR trained on organ masks"
    licence: str | None = LICENCE

    def recognises(self, container: Container) -> bool:
        """Look for a Swin UNETR, not V2, under the key `net`."""
        file = open_swin(container)
        return file is not None and is_suprem(container, file)

    def translate(self, container: Container) -> Translation:
        """Take the encoder, under MONAI's names, and leave the decoder and the head."""
        file = open_swin(container)
        if file is None:
            raise no_swin(container, expected="module.backbone.swinViT.patch_embed.proj.weight")
        encoder = read_swin(container, file, beside=HEADS)
        architecture = encoder.architecture
        return Translation(
            encoder.tensors,
            suprem_header(container, architecture, encoder.geometry),
            ignored=encoder.ignored,
            notes=(*encoder.notes, *ABOUT),
        )


def is_suprem(container: Container, file: SwinFile) -> bool:
    """Tell SuPreM's Swin UNETR from others: it lies under the key `net`."""
    return is_under_net(container) and not file.is_v2


def is_under_net(container: Container) -> bool:
    """Tell whether a file held its tensors where SuPreM's do."""
    return container.wrapper.split(".")[-1] == WRAPPER


def suprem_header(
    container: Container, architecture: Architecture, geometry: Geometry
) -> WeightHeader:
    """Write down what is known of SuPreM's networks."""
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
            "input": "; ".join((INPUT, RAS, AXES)),
        },
        licence=UNIVERSAL_LICENCE if universal else LICENCE,
        citation=CITATION,
    )
