"""SuPreM: the U-Net of Models Genesis, pre-trained to segment organs of the abdomen."""

from voxlift.core.errors import WeightsError
from voxlift.weights.container import Container
from voxlift.weights.foreign.genesis_unet import ABOUT_NORM, GEOMETRY, find_genesis, read_genesis
from voxlift.weights.foreign.models_genesis import is_of_suprem
from voxlift.weights.foreign.suprem import ABOUT, BESIDE, HEAD, LICENCE, suprem_header
from voxlift.weights.translation import Translation

WHAT = "the U-Net of SuPreM"
AXES = (
    "trained on volumes with the axes x, y, z; the kernels are turned, so that they fit "
    "(depth, height, width)"
)


class SupremUnetFormat:
    """SuPreM's U-Net, of which the encoder is used; CLIP-driven universal models look alike."""

    summary = (
        "SuPreM: supervised_suprem_unet_2100.pth; the U-Net of Models Genesis pre-trained on the "
        "organ masks of 2,100 abdominal CT"
    )
    licence: str | None = LICENCE

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
            ignored[name] = HEAD
        return Translation(
            file.tensors,
            suprem_header(container, file.architecture, GEOMETRY, axes=AXES),
            ignored=ignored,
            adapted=file.adapted,
            notes=(
                AXES,
                *ABOUT,
                "the U-Net's fine-tuning examples clip to -250 to 250 HU",
                ABOUT_NORM,
            ),
        )
