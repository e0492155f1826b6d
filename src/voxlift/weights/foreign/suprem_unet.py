"""SuPreM: the U-Net of Models Genesis, pre-trained to segment organs of the abdomen."""

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.genesis_unet import ABOUT_NORM, GEOMETRY, find_genesis, read_genesis
from voxlift.weights.foreign.models_genesis import is_of_suprem
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

WHAT = "the U-Net of SuPreM"
BESIDE = ("organ_embedding", "text_to_vision", "controller", "GAP", "precls_conv")
"""Parts of the head that segments one organ after the other."""

CITATION = (
    "Li, Yuille and Zhou, How Well Do Supervised 3D Models Transfer to Medical Imaging Tasks?, "
    "ICLR 2024, arXiv 2501.11253"
)
INPUT = (
    "abdominal CT of 1.5 mm, clipped to -175 to 250 HU and scaled to 0..1, in crops of 96^3 voxels "
    "whose axes were (x, y, z) in RAS orientation; the kernels are turned, so that they fit "
    "(depth, height, width)"
)


class SupremUnetFormat:
    """SuPreM's U-Net, of which the encoder is used; CLIP-driven universal models look alike."""

    summary = (
        "SuPreM: supervised_suprem_unet_2100.pth; the U-Net of Models Genesis pre-trained on the "
        "organ masks of 2,100 abdominal CT"
    )
    licence: str | None = "Apache-2.0 (Hugging Face page of the weights; the code is under MIT)"

    def recognises(self, container: Container) -> bool:
        """Look for the first layer of the U-Net under `backbone.`, or under the key `net`."""
        found = find_genesis(container)
        return found is not None and is_of_suprem(found, container)

    def translate(self, container: Container) -> Translation:
        """Take the encoder, whose names stay, and leave the decoder and the head."""
        file = read_genesis(container, what=WHAT)
        ignored = dict(file.ignored)
        for name in file.beside:
            if name.removeprefix("module.").split(".")[0] not in BESIDE:
                raise WeightsError(
                    f"{container.path} looks like {WHAT}, but {name} stands beside the network; "
                    f"known are {', '.join(BESIDE)}. Fetch the published file again."
                )
            ignored[name] = "head that segments the file's organs, of no use for others"
        header = WeightHeader(
            architecture=file.architecture,
            geometry=GEOMETRY,
            preprocessing=Preprocessing(
                spacing_mm=(1.5, 1.5, 1.5),
                intensity="window",
                window=(-175, 250),
                unit="HU",
                in_channels=file.architecture.in_channels,
            ),
            provenance={"source": WHAT, "input": INPUT},
            licence=self.licence,
            citation=CITATION,
        )
        return Translation(
            file.tensors,
            header,
            ignored=ignored,
            adapted=file.adapted,
            notes=(
                f"{WHAT} was fed {INPUT}; its fine-tuning examples clip to -250 to 250 HU",
                ABOUT_NORM,
            ),
        )
