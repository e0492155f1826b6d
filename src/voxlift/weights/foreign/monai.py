"""ResNets of MONAI for volumes: `monai.networks.nets.resnet`, with its shortcuts A and B."""

import torch
from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.weights.container import Container
from voxlift.weights.foreign.cspr import is_marked
from voxlift.weights.foreign.resnet_file import PROJECTION_BIAS, ResNetFile, open_resnet
from voxlift.weights.foreign.resnet_names import read_resnet
from voxlift.weights.header import WeightHeader, parse_header
from voxlift.weights.translation import Translation

OUR_HEADER = "voxlift_header"
"""What a file calls the description of the network that Voxlift wrote it from."""

STRIDES = (
    "the file does not say how MONAI's stem strides; taken are its defaults, the geometry 'unet'. "
    "For conv1_t_stride=2, as ResNetFeatures has it, give 'volume'; for no_max_pool, 'small'"
)
AXES = (
    "the kernels are taken as they are: MONAI mostly lays volumes out with the axes x, y, z, "
    "Voxlift with z, y, x"
)
FOLDED = "less the bias of the convolution before it, which computes the same"
CITATION = (
    "Cardoso et al., MONAI: An open-source framework for deep learning in healthcare, "
    "arXiv 2211.02701"
)


class MonaiFormat:
    """State dicts of MONAI's ResNets for volumes, with batch norm.

    Their marks are a bias in the projections of shortcuts, and the name of the activation, which
    torch notes beside a state dict. A bare file without either could be another project's as well,
    and has to be declared. A bias before a batch norm is no more than a shift of its mean, and is
    taken into that.
    """

    summary = "MONAI's ResNets for volumes, resnet10 to resnet200"
    licence = None

    def recognises(self, container: Container) -> bool:
        """Look for a 3D ResNet with the marks of MONAI, or a bare one that could be anybody's."""
        file = open_resnet(container)
        if file is None:
            return False
        if file.is_of_monai is not None:
            return file.is_of_monai
        bare = not file.chain and not file.in_backbone
        return bare and file.in_channels == 1 and not is_marked(file, container)

    def translate(self, container: Container) -> Translation:
        """Rename the norms, and take the biases of shortcuts into the norms behind them."""
        file = open_resnet(container)
        if file is None:
            raise WeightsError(
                f"{container.path} holds no ResNet of MONAI for volumes: expected conv1.weight, "
                "bn1.weight, layer1.0.conv1.weight ... with three spatial axes. Leave the format "
                "out, so that the file is recognised by its tensors."
            )
        folded, adapted, ignored = _fold_biases(file)
        architecture, tensors = read_resnet(folded, where=str(container.path))
        known = OUR_HEADER in container.metadata
        return Translation(
            tensors,
            _header(container, architecture),
            ignored={**file.ignored, **ignored},
            adapted=adapted,
            notes=() if known else (STRIDES, AXES),
        )


def _header(container: Container, architecture: Architecture) -> WeightHeader:
    if OUR_HEADER in container.metadata:
        ours = parse_header(container.metadata[OUR_HEADER], where=str(container.path))
        return ours.model_copy(update={"architecture": architecture, "head": None})
    return WeightHeader(
        architecture=architecture,
        geometry=named_geometry("unet"),
        provenance={
            "source": "ResNet in MONAI's names",
            "input": f"the file says nothing of its input; {AXES}",
        },
        citation=CITATION,
    )


def _fold_biases(
    file: ResNetFile,
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """Take each bias into the running mean of the norm behind it.

    Returns:
        The tensors, how which were changed, and what was left out and why, by the file's names.
    """
    tensors, adapted, ignored = dict(file.tensors), {}, {}
    for name, bias in file.tensors.items():
        mean = f"{name.removesuffix(PROJECTION_BIAS)}downsample.1.running_mean"
        if not name.endswith(PROJECTION_BIAS) or mean not in tensors:
            continue
        if tensors[mean].shape == bias.shape:
            # Not in half precision, which could not hold the difference as exactly.
            precision = torch.promote_types(bias.dtype, torch.float32)
            tensors[mean] = tensors[mean].to(precision) - bias.to(precision)
            del tensors[name]
            adapted[mean] = FOLDED
            ignored[file.prefix + name] = "taken into the running mean of the norm behind it"
    return tensors, adapted, ignored
