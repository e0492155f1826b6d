"""3D ResNets for videos by Hara et al., pre-trained on Kinetics."""

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import ALL, IN_PLANE, VOLUME_STAGES, Geometry
from voxlift.weights.container import Container
from voxlift.weights.foreign.colours import Colour, describe_colours, grey_preprocessing
from voxlift.weights.foreign.cspr import is_marked
from voxlift.weights.foreign.resnet_file import ResNetFile, open_resnet
from voxlift.weights.foreign.resnet_names import read_resnet
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

CITATION = (
    "Hara, Kataoka, Satoh, Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?,"
    " CVPR 2018, arXiv 1711.09577"
)
GEOMETRY = Geometry(stem_stride=IN_PLANE, pool_stride=ALL, stage_strides=VOLUME_STAGES)
OLD_MEAN: Colour = (114.7748, 107.7354, 99.4750)
OLD_STD: Colour = (1.0, 1.0, 1.0)
NEW_MEAN: Colour = (255 * 0.4345, 255 * 0.4051, 255 * 0.3775)
NEW_STD: Colour = (255 * 0.2768, 255 * 0.2713, 255 * 0.2737)


class KineticsFormat:
    """Files of the 3D ResNets for videos: the older (`module.`) and those of 2020.

    Their mark is three input channels, without marks of other projects. A file that someone brought
    to one channel has to be declared.
    """

    summary = "3D ResNets for videos (Hara et al.), pre-trained on Kinetics"
    licence = "MIT"

    def recognises(self, container: Container) -> bool:
        """Look for a 3D ResNet of three channels, or of one with a classifier."""
        file = open_resnet(container)
        if file is None or file.is_of_monai or is_marked(file, container):
            return False
        return file.in_channels == 3 or (file.in_channels == 1 and file.has_fc)

    def translate(self, container: Container) -> Translation:
        """Rename the norms; leave the classifier of actions."""
        file = open_resnet(container)
        if file is None or file.has_group_norm:
            found = "its norms are group norms" if file else "there is no 3D ResNet in it"
            raise WeightsError(
                f"{container.path} is none of the 3D ResNets for videos: {found}. Expected "
                "conv1.weight, bn1.weight, layer1.0.conv1.weight ..."
            )
        architecture, tensors = read_resnet(file.tensors, where=str(container.path))
        mean, std = (OLD_MEAN, OLD_STD) if _is_older(file) else (NEW_MEAN, NEW_STD)
        header = WeightHeader(
            architecture=architecture,
            geometry=GEOMETRY,
            preprocessing=grey_preprocessing(mean, std, in_channels=architecture.in_channels),
            provenance={
                "source": "3D ResNets for videos (Hara et al.)",
                "input": describe_colours(mean, std),
            },
            licence=self.licence,
            citation=CITATION,
        )
        notes = (f"the network was fed {describe_colours(mean, std)}",)
        return Translation(tensors, header, ignored=file.ignored, notes=notes)


def _is_older(file: ResNetFile) -> bool:
    """Tell the files of 2017, whose inputs were not divided by their standard deviation."""
    padded = not any(".downsample." in name for name in file.tensors)
    return file.is_parallel or padded
