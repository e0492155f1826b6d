"""Swin UNETR as MONAI trains it: self-supervised in three layouts, and fine-tuned."""

from voxlift.core.architecture import PatchMerging
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.suprem_monai import is_suprem
from voxlift.weights.foreign.swin_file import AXES, RAS, SwinFile, no_swin, open_swin, read_swin
from voxlift.weights.foreign.voco import is_voco
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

BESIDE = dict.fromkeys(
    ("rotation_head.", "contrastive_head.", "conv.", "convTrans3d."),
    "head of the self-supervised training",
)
SSL_CITATION = (
    "Tang et al., Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image Analysis, "
    "CVPR 2022, arXiv 2111.14791"
)
DAE_CITATION = (
    "Valanarasu et al., Disruptive Autoencoders: Leveraging Low-level Features for 3D Medical "
    "Image Pre-training, arXiv 2307.16896"
)
CITATION = (
    "Hatamizadeh et al., Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors "
    "in MRI Images, arXiv 2201.01266"
)
SSL_INPUT = (
    "CT clipped to -1000 to 1000 HU and scaled to 0..1, at the spacing of each file, in crops of "
    "96^3 voxels"
)
FIRST, SCRIPT, AUTOENCODER, WHOLE = "first", "script", "autoencoder", "whole"


class SwinUNETRFormat:
    """Files of MONAI's Swin UNETR, of which the encoder is used.

    - `model_swinvit.pt`: the transformer alone, with no name of its own.
    - Of the pre-training script: the transformer (`swinViT`, once `swin_vit`) and its three heads.
    - `ssl_pretrained_weights.pth`, a disruptive autoencoder: the transformer is called `encoder`.
    - Any state of MONAI's `SwinUNETR`, such as a fine-tuned one, with `use_v2` or without.

    What SuPreM and VoCo have published has formats of its own.
    """

    summary = (
        "MONAI's Swin UNETR: model_swinvit.pt (5,050 CT), ssl_pretrained_weights.pth, files of the "
        "pre-training script, fine-tuned networks"
    )
    licence: str | None = None
    patch_merging: PatchMerging = "repeated"

    def recognises(self, container: Container) -> bool:
        """Look for MONAI's transformer, without the marks of SuPreM and VoCo."""
        file = open_swin(container)
        return file is not None and not is_suprem(container, file) and not is_voco(file)

    def translate(self, container: Container) -> Translation:
        """Take the encoder, under MONAI's names, and leave the decoder and the heads."""
        file = open_swin(container)
        if file is None:
            raise no_swin(container, expected="swinViT.patch_embed.proj.weight and the like")
        encoder = read_swin(container, file, beside=BESIDE, patch_merging=self.patch_merging)
        kind = _kind(file)
        source, citation, about = _facts(kind)
        header = WeightHeader(
            architecture=encoder.architecture,
            geometry=encoder.geometry,
            preprocessing=_preprocessing(encoder.architecture.in_channels, kind),
            provenance={"source": source, "input": "; ".join((*about, AXES))},
            licence=self.licence,
            citation=citation,
        )
        return Translation(
            encoder.tensors, header, ignored=encoder.ignored, notes=(*encoder.notes, *about)
        )


class NewSwinUNETRFormat(SwinUNETRFormat):
    """The same files, trained with MONAI 1.5 or later: never recognised, only declared."""

    summary = "files in MONAI's names that were trained with MONAI 1.5 or later: to be declared"
    patch_merging = "all"

    def recognises(self, container: Container) -> bool:
        """Leave it to the user to say so: no tensor tells."""
        del container
        return False


def _kind(file: SwinFile) -> str:
    if file.transformer == "" and any(".mlp.fc1." in name for name in file.own_names.values()):
        return FIRST
    if file.transformer == "encoder.":
        return AUTOENCODER
    if file.has("rotation_head.") or file.has("contrastive_head."):
        return SCRIPT
    return WHOLE


def _facts(kind: str) -> tuple[str, str, tuple[str, ...]]:
    """Say where a file comes from, what to cite, and what is known of its input."""
    if kind == FIRST:
        return "Swin UNETR, self-supervised on 5,050 CT", SSL_CITATION, (SSL_INPUT, RAS)
    if kind == AUTOENCODER:
        about = "CT and MR, of whose intensities and spacing the file says nothing"
        return "Swin UNETR, disruptive autoencoder", DAE_CITATION, (about,)
    if kind == SCRIPT:
        about = f"unless the script's defaults were changed: {SSL_INPUT}"
        return "Swin UNETR, of the pre-training script", SSL_CITATION, (about, RAS)
    return "Swin UNETR in MONAI's names", CITATION, ("the file says nothing of its input",)


def _preprocessing(in_channels: int, kind: str) -> Preprocessing | None:
    """Describe the input of the one file of which it is known."""
    if kind != FIRST:
        return None
    return Preprocessing(
        intensity="window",
        window=(-1000, 1000),
        unit="HU",
        size_voxels=(96, 96, 96),
        in_channels=in_channels,
    )
