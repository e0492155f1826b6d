"""Make a network for volumes out of one for images: our own planar twin, or any other."""

import copy
from typing import get_args

from torch import Tensor, nn

from voxlift.core.errors import ConfigError
from voxlift.core.inflation import MODES, Mode, inflate
from voxlift.lifting import convert_layers
from voxlift.nets.classifier import Classifier
from voxlift.nets.norm import FrozenBatchNorm2d, apply_norm_mode
from voxlift.nets.resnet import ResNet


def convert_2d(
    model: nn.Module,
    *,
    mode: Mode,
    stride_depth: bool = False,
    check: bool = True,
    image: Tensor | None = None,
) -> nn.Module:
    """Make a copy of a 2D network that takes volumes, with the 2D network's weights.

    A ResNet of Voxlift with `ndim=2` becomes one with `ndim=3`, a backbone like any other: it keeps
    its geometry, which can be set anew. Any other network of convolutions, norms and pooling is
    converted layer by layer (see `voxlift.lifting.convert_layers`).

    Args:
        model: A 2D network, such as `timm.create_model("resnet18", pretrained=True)`, a planar
            twin, or a classifier on one. It is not changed.
        mode: `i3d` (kernels repeated along depth, their mean), `i3d-center` (kernels in the middle
            slice), `acs` (kernels shared out over the three planes) or `2.5d` (kernels one slice
            deep).
        stride_depth: Of other networks than ours: stride, pool and pad depth as height. By default
            depth keeps its length.
        check: Of other networks: prove on a small volume that they compute what they did in 2D.
        image: Of other networks: an image that they take, for the check.

    Raises:
        ConfigError: For an unknown mode, a network that is 3D already, an option of other networks,
            or naming the module that cannot be converted.
    """
    if mode not in MODES:
        raise ConfigError(f"Unknown mode {mode!r}; known are {', '.join(get_args(Mode))}.")
    twin = model.get_submodule("backbone") if isinstance(model, Classifier) else model
    if not isinstance(twin, ResNet):
        return convert_layers(model, mode=mode, stride_depth=stride_depth, check=check, image=image)
    if stride_depth or image is not None:
        raise ConfigError(
            "stride_depth and image are for networks of other libraries; leave them out, and give "
            "the converted backbone the geometry that you want: backbone.geometry = ..."
        )
    converted = convert_resnet(twin, mode=mode)
    if model is twin:
        return converted
    classifier = copy.deepcopy(model)
    classifier.add_module("backbone", converted)
    return classifier


def convert_resnet(twin: ResNet, *, mode: Mode) -> ResNet:
    """Make a ResNet for volumes out of its planar twin.

    Raises:
        ConfigError: If it is no planar twin.
    """
    if twin.architecture.ndim != 2:
        raise ConfigError(
            f"This {twin.architecture.name} takes volumes already; only a planar twin (ndim=2) can "
            "be converted."
        )
    converted = ResNet(
        twin.architecture.model_copy(update={"ndim": 3, "convolution": MODES[mode]}),
        twin.geometry,
        checkpointing=twin.checkpointing,
    )
    if any(isinstance(module, FrozenBatchNorm2d) for module in twin.modules()):
        apply_norm_mode(converted, "frozen")
    state = {
        name: inflate(tensor, mode=mode, depth=tensor.shape[-1]) if tensor.ndim == 4 else tensor
        for name, tensor in twin.state_dict().items()
    }
    like = next(twin.parameters())
    converted.to(device=like.device, dtype=like.dtype).load_state_dict(state)
    for ours, theirs in zip(converted.parameters(), twin.parameters(), strict=True):
        ours.requires_grad_(theirs.requires_grad)
    return converted.train(twin.training)
