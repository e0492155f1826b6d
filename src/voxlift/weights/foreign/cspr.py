"""Lifted pre-training by its authors: CSPR, in the layout of mmclassification."""

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.preprocessing import PHOTOGRAPH_MEAN, PHOTOGRAPH_STD, Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.resnet_file import ResNetFile, open_resnet
from voxlift.weights.foreign.resnet_names import read_resnet
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

PUBLISHED = ("5ff2ecb7", "64e74d35")
"""How the sha256 of published files begins, as their names say."""

CITATION = (
    "Zhang et al., Advancing 3D Medical Image Analysis with Variable Dimension Transform based "
    "Supervised 3D Pre-training, Neurocomputing 2023, arXiv 2201.01426"
)
PROJECTS_FIRST = (
    "the first block of the first stage projects its shortcut too, as in the authors' older files"
)


class CsprFormat:
    """Files of CSPR: published ones and raw training files; classifiers and detectors.

    Marks of its own are group norm, the `meta` that mmcv writes, and parts of mmcv's networks
    beside a `backbone.`. Without any of them, a bare file of one input channel or a network below
    `backbone.` could be another project's as well, and has to be declared, unless its sha256 is
    known.
    """

    summary = "CSPR: 3D ResNets pre-trained on lifted photographs by the authors of the method"
    licence = None

    def recognises(self, container: Container) -> bool:
        """Look for a 3D ResNet with the marks of mmcv, or one that could be anybody's."""
        file = open_resnet(container)
        if file is None or file.is_of_monai:
            return False
        if is_marked(file, container):
            return True
        if file.in_backbone:
            # Others that know this number of channels answer too, so that the user is asked.
            return file.in_channels in (1, 3)
        return file.in_channels == 1 and not file.is_parallel

    def translate(self, container: Container) -> Translation:
        """Rename the norms; leave heads, detectors and the state of training."""
        file = open_resnet(container)
        if file is None:
            raise WeightsError(
                f"{container.path} holds no 3D ResNet as CSPR saves it: conv1.weight and "
                "layer1.0.conv1.weight, bare or below backbone. Is it the right file?"
            )
        architecture, tensors = read_resnet(file.tensors, where=str(container.path))
        header = WeightHeader(
            architecture=architecture,
            geometry=named_geometry("pretrain"),
            preprocessing=Preprocessing(
                orientation="stored",
                unit="0-255",
                mean=PHOTOGRAPH_MEAN,
                std=PHOTOGRAPH_STD,
                in_channels=architecture.in_channels,
            ),
            provenance={
                "source": "CSPR (mmclassification layout)",
                "input": "photographs whose colour channels are the three slices of a volume",
            },
            licence=self.licence,
            citation=CITATION,
        )
        notes = (PROJECTS_FIRST,) if architecture.project_first else ()
        return Translation(tensors, header, ignored=file.ignored, notes=notes)


def is_marked(file: ResNetFile, container: Container) -> bool:
    """Tell whether a 3D ResNet bears a mark that only files of CSPR have."""
    return (
        file.has_group_norm
        or file.is_of_mmcv
        or "meta" in container.extras
        or container.sha256.startswith(PUBLISHED)
    )
