"""MedicalNet (Med3D): 3D ResNets pre-trained to segment medical volumes of many data sets."""

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.container import Container
from voxlift.weights.foreign.cspr import is_marked
from voxlift.weights.foreign.resnet_file import open_resnet
from voxlift.weights.foreign.resnet_names import read_resnet
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

CITATION = "Chen et al., Med3D: Transfer Learning for 3D Medical Image Analysis, arXiv 1904.00625"
INPUT = (
    "cropped to the body, resized to 56x448x448 (depth, height, width) by nearest neighbours, "
    "z-scored over the voxels above 0, all voxels at 0 replaced by standard normal noise"
)


class MedicalNetFormat:
    """Files of MedicalNet, ResNet 10 to 200, with padded (A) or projected (B) shortcuts.

    Their mark is `module.` before every name and one input channel. A bare file could be another
    project's as well, and has to be declared.
    """

    summary = "MedicalNet (Med3D): 3D ResNets pre-trained to segment CT and MR of 8 or 23 data sets"
    licence = "MIT"

    def recognises(self, container: Container) -> bool:
        """Look for a 3D ResNet of one channel and batch norm, without marks of others."""
        file = open_resnet(container)
        if file is None or file.is_of_monai:
            return False
        return file.in_channels == 1 and not is_marked(file, container)

    def translate(self, container: Container) -> Translation:
        """Rename the norms; leave the head of the segmenter."""
        file = open_resnet(container)
        if file is None or file.has_group_norm:
            found = "its norms are group norms" if file else "there is no 3D ResNet in it"
            raise WeightsError(
                f"{container.path} is not of MedicalNet: {found}. Expected conv1.weight, "
                "bn1.weight, layer1.0.conv1.weight ..., with or without module. before them."
            )
        architecture, tensors = read_resnet(file.tensors, where=str(container.path))
        header = WeightHeader(
            architecture=architecture,
            geometry=named_geometry("medicalnet"),
            preprocessing=Preprocessing(
                orientation="stored", intensity="zscore", in_channels=architecture.in_channels
            ),
            provenance={"source": "MedicalNet (Med3D)", "input": INPUT},
            licence=self.licence,
            citation=CITATION,
        )
        return Translation(
            tensors,
            header,
            ignored=file.ignored,
            notes=(f"MedicalNet was fed volumes {INPUT}",),
            geometry_matters=True,
        )
