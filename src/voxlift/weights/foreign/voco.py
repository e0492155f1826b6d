"""VoCo: Swin UNETR V2, pre-trained on 10,000 to 160,000 CT by contrasting parts of a volume."""

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.swin_file import AXES, RAS, SwinFile, no_swin, open_swin, read_swin
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

NUM_CLASSES = 21
"""Outputs of the VoComni networks: 20 organs and tumours, and the background."""

CITATION = (
    "Wu, Zhuang and Chen, VoCo: A Simple-yet-Effective Volume Contrastive Learning Framework for "
    "3D Medical Image Analysis, CVPR 2024, arXiv 2402.17300; Large-Scale 3D Medical Image "
    "Pre-training with Geometric Context Priors, arXiv 2410.09890"
)
INPUT = (
    "CT clipped to -175 to 250 HU (chests, in the larger trainings, to -1000 to 500 HU) and scaled "
    "to 0..1, in crops of 64^3 voxels of volumes that were resampled to 1.5 mm or resized"
)
LOOK_ALIKE = (
    "a Swin UNETR of MONAI with use_v2=True looks the same if it has no decoder or 21 outputs: "
    "if this is such a one, declare it, as in swin_unetr:FILE"
)


class VocoFormat:
    """Files of VoCo, of which the encoder is used.

    `VoCo_10k.pt`, `VoCo_{B,L,H}_SSL_head.pt` and `VoComni_{B,L,H}.pt` have MONAI's names; files of
    the training scripts have them below `backbone.`, or below `student.` and `teacher.`.
    """

    summary = "VoCo: VoCo_10k.pt, VoCo_{B,L,H}_SSL_head.pt, VoComni_{B,L,H}.pt; Swin UNETR V2"
    licence: str | None = "Apache-2.0 (Hugging Face page of the weights)"

    def recognises(self, container: Container) -> bool:
        """Look for a Swin UNETR V2 without a decoder, or with one of 21 classes."""
        file = open_swin(container)
        return file is not None and is_voco(file)

    def translate(self, container: Container) -> Translation:
        """Take the encoder, under MONAI's names, and leave the decoder and the heads."""
        file = open_swin(container)
        if file is None:
            raise no_swin(container, expected="swinViT.patch_embed.proj.weight and the like")
        if not file.is_v2:
            raise WeightsError(
                f"{container.path} is not of VoCo: its Swin UNETR has no convolutions before the "
                "stages (swinViT.layers1c.0.layer.conv1.conv.weight). Leave the format out, so "
                "that the file is recognised by its tensors."
            )
        encoder = read_swin(container, file, beside=_beside(file))
        header = WeightHeader(
            architecture=encoder.architecture,
            geometry=encoder.geometry,
            preprocessing=Preprocessing(
                intensity="window",
                window=(-175, 250),
                unit="HU",
                size_voxels=(64, 64, 64),
                in_channels=encoder.architecture.in_channels,
            ),
            provenance={"source": "VoCo", "input": "; ".join((INPUT, RAS, AXES))},
            licence=self.licence,
            citation=CITATION,
        )
        notes = (*encoder.notes, f"VoCo was fed {INPUT}", RAS, LOOK_ALIKE)
        return Translation(encoder.tensors, header, ignored=encoder.ignored, notes=notes)


def is_voco(file: SwinFile) -> bool:
    """Tell VoCo's networks from others in MONAI's names, as far as that can be told."""
    if not file.is_v2 or file.transformer not in ("swinViT.", "swin_vit."):
        return False
    if file.has("rotation_head.") or file.has("contrastive_head."):
        return False
    outputs = file.tensors.get("out.conv.conv.weight")
    return not file.has_decoder or (outputs is not None and outputs.shape[0] == NUM_CLASSES)


def _beside(file: SwinFile) -> dict[str, str]:
    head = "projection head of the contrastive training"
    beside = {"proj_head.": head}
    if "student." in file.root:
        return {**beside, "teacher.": "running mean of the student, of which the last is used"}
    return {**beside, "student.": head, "teacher.": head}
