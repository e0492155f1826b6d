"""Models Genesis: a 3D U-Net pre-trained to restore distorted chest CT."""

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.genesis_unet import (
    ABOUT_NORM,
    GEOMETRY,
    GenesisUNet,
    find_genesis,
    read_genesis,
)
from voxlift.weights.foreign.suprem import is_under_net
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

WHAT = "Models Genesis"
CITATION = (
    "Zhou et al., Models Genesis: Generic Autodidactic Models for 3D Medical Image Analysis, "
    "MICCAI 2019, arXiv 1908.06912"
)
INPUT = (
    "chest CT clipped to -1000 to 1000 HU and scaled to 0..1, in crops of 64x64x32 voxels whose "
    "axes were (x, y, z); the kernels are turned, so that they fit (depth, height, width)"
)


class ModelsGenesisFormat:
    """The U-Net of Models Genesis, of which the encoder is used.

    The same U-Net under `backbone.`, or under the key `net`, is SuPreM's.
    """

    summary = (
        "Models Genesis: Genesis_Chest_CT.pt, self_supervised_models_genesis_unet_620.pt; a 3D "
        "U-Net pre-trained on 623 chest CT without labels"
    )
    licence: str | None = (
        "MIT (licence of the project's repository; its authors call the technology patent-pending)"
    )

    def recognises(self, container: Container) -> bool:
        """Look for its first layer, bare or behind `module.`."""
        found = find_genesis(container)
        return found is not None and not is_of_suprem(found, container)

    def translate(self, container: Container) -> Translation:
        """Take the encoder, whose names stay, and leave the decoder."""
        file = read_genesis(container, what=WHAT)
        if file.beside:
            raise WeightsError(
                f"{container.path} looks like {WHAT}, but {file.beside[0]} stands beside the "
                "network, which such a file does not have. If it is of SuPreM, say so, as in "
                f"suprem_unet:{container.path}."
            )
        header = WeightHeader(
            architecture=file.architecture,
            geometry=GEOMETRY,
            preprocessing=Preprocessing(
                orientation="stored",
                intensity="window",
                window=(-1000, 1000),
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
            ignored=file.ignored,
            adapted=file.adapted,
            notes=(f"{WHAT} was fed {INPUT}", ABOUT_NORM),
        )


def is_of_suprem(found: GenesisUNet, container: Container) -> bool:
    """Tell SuPreM's way to store the U-Net: under `backbone.`, or under the key `net`."""
    return found.in_backbone or is_under_net(container)
