"""SuPreM's Swin UNETR, pre-trained to segment organs."""

from voxlift.weights.container import Container
from voxlift.weights.foreign.suprem import ABOUT, HEADS, LICENCE, is_under_net, suprem_header
from voxlift.weights.foreign.swin_file import AXES, SwinFile, no_swin, open_swin, read_swin
from voxlift.weights.translation import Translation


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
        return Translation(
            encoder.tensors,
            suprem_header(container, encoder.architecture, encoder.geometry, axes=AXES),
            ignored=encoder.ignored,
            notes=(*encoder.notes, *ABOUT),
        )


def is_suprem(container: Container, file: SwinFile) -> bool:
    """Tell SuPreM's Swin UNETR from others: it lies under the key `net`."""
    return is_under_net(container) and not file.is_v2
