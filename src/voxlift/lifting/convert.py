"""Make a 2D network one for volumes, by the types of its layers: I3D, ACS or 2.5D."""

import copy
from typing import get_args

import torch
from torch import Tensor, nn

from voxlift.core.errors import ConfigError
from voxlift.core.inflation import Mode
from voxlift.lifting.layer_conversion import (
    CONVERTERS,
    DIMENSION_FREE,
    PLANAR_ONLY,
    Plan,
    base_type,
    has_hooks,
    is_plain,
)
from voxlift.lifting.timm_layers import timm_converter
from voxlift.lifting.trial import check_runs, check_same_function, describe

TRIAL_IMAGE = (64, 96)
TRIAL_DEPTH = 8
TRIAL_DEPTH_STRIDED = 32

REMEDY = (
    "Replace it in the 2D network by layers that can be converted (convolutions, norms, pooling, "
    "activations, linear layers), or convert only the part of the network without it."
)


def convert_layers(
    module: nn.Module,
    *,
    mode: Mode,
    stride_depth: bool = False,
    check: bool = True,
    image: Tensor | None = None,
) -> nn.Module:
    """Make a copy of a 2D network that takes volumes, with the 2D network's weights.

    Every layer is replaced by what its type asks for; modules that hold layers keep their own
    `forward`. Any network of convolutions, norms and pooling will do, such as
    `timm.create_model("resnet18", pretrained=True)`. Global pooling pools over depth too, so that
    a classifier still gives one answer a volume.

    Args:
        module: The 2D network. It is not changed.
        mode: `i3d` repeats each kernel along depth and divides by the number of slices: on equal
            slices, away from the ends of depth, the network computes what it did in 2D.
            `i3d-center` puts each kernel into the middle slice. `acs` lays a third of each layer's
            output channels into each of the three planes, without new parameters. `2.5d` works
            slice by slice, but for norms and pooling over whole volumes. `i3d-center` starts as
            the same function as `2.5d`, but can learn to see across slices.
        stride_depth: Stride, pool and pad depth as height. By default depth keeps its length
            throughout, as in pre-training, and windows of pooling are one slice deep.
        check: Prove on a small volume that the modules' own `forward` fits volumes too.
        image: An image (or several) that the 2D network takes, for the check; by default noise of
            64 x 96 pixels. Networks for one size only need it.

    Shape:
        From `(batch, channels, height, width)` to `(batch, channels, depth, height, width)`.

    Raises:
        ConfigError: For an unknown mode, or naming the module that cannot be converted, and why.

    Source:
        I3D: arXiv 1705.07750, section 2.2. ACS: arXiv 1911.10477, section III.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"Unknown mode {mode!r}; known are {', '.join(get_args(Mode))}.")
    plan = Plan(mode=mode, stride_depth=stride_depth)
    converted = _convert(copy.deepcopy(module), plan)
    if check:
        _check(converted, module, plan, image)
    return converted


def _convert(module: nn.Module, plan: Plan) -> nn.Module:
    done: dict[nn.Module, nn.Module] = {}
    converted = _converted(module, "", plan, done)
    if all(new is old for old, new in done.items()):
        raise ConfigError(
            f"{type(module).__name__} has no layer for images, so there is nothing to convert. "
            "Give a network made of nn.Conv2d and the like."
        )
    return converted


def _converted(
    module: nn.Module, path: str, plan: Plan, done: dict[nn.Module, nn.Module]
) -> nn.Module:
    """Convert a module and what it holds; one that is used twice becomes one again."""
    if module in done:
        return done[module]
    new = _replaced(module, path, plan)
    done[module] = new
    # `named_children` would leave out the second name of a module that is used twice.
    for name, child in list(new._modules.items()):
        if child is not None:
            setattr(new, name, _converted(child, f"{path}.{name}".lstrip("."), plan, done))
    return new


def _replaced(module: nn.Module, path: str, plan: Plan) -> nn.Module:
    """Give what a module is replaced by; itself if it takes volumes, or only holds others."""
    base = base_type(module)
    converter = timm_converter(module)
    if converter is None and base is not None and is_plain(module, base):
        converter = CONVERTERS[base]
    if converter is None:
        why = _reason_to_refuse(module, base)
        if why is not None:
            raise _refusal(module, path, why)
        return module
    if has_hooks(module):
        raise _refusal(module, path, "hooks hang on it, which would be lost")
    try:
        new = converter(module, plan)
    except ConfigError as error:
        raise _refusal(module, path, str(error)) from error
    return new.train(module.training) if new is not module else module


def _reason_to_refuse(module: nn.Module, base: type[nn.Module] | None) -> str | None:
    """Say why a module cannot stay as it is in a network for volumes; None if it can."""
    kind = type(module)
    if base is not None:
        return f"it derives from {base.__name__} but computes something of its own"
    if isinstance(module, torch.jit.ScriptModule):
        return "it was compiled by TorchScript and cannot be changed"
    is_leaf = next(module.children(), None) is None
    if isinstance(module, PLANAR_ONLY) or (is_leaf and "2d" in kind.__name__.lower()):
        return "it is made for images and nothing is known that does the same for volumes"
    own = [name for name, _ in module.named_parameters(recurse=False)]
    own += [name for name, _ in module.named_buffers(recurse=False)]
    if own and not isinstance(module, DIMENSION_FREE):
        return (
            f"it has tensors of its own ({', '.join(own[:4])}), and whether they depend on the "
            "number of dimensions is not known"
        )
    return None


def _refusal(module: nn.Module, path: str, why: str) -> ConfigError:
    name = f"{path} ({type(module).__name__})" if path else f"A {type(module).__name__}"
    return ConfigError(f"{name} cannot be converted: {why}. {REMEDY}")


def _check(converted: nn.Module, module: nn.Module, plan: Plan, image: Tensor | None) -> None:
    """Run the network in 2D, slice by slice, and as it was converted.

    Raises:
        ConfigError: Naming the module whose own `forward` does not fit volumes.
    """
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        raise ConfigError(
            "The network has no numbers (it is on the meta device), so its conversion cannot be "
            "checked. Convert with check=False."
        )
    # On the CPU in full precision, where 2D and 3D kernels round alike.
    plane = copy.deepcopy(module).cpu().float()
    by_slices = _convert(copy.deepcopy(plane), Plan(mode="2.5d", stride_depth=False))
    image = _trial_image(plane) if image is None else image.detach().cpu().float()
    if image.ndim != 4:
        raise ConfigError(
            f"image has the shape {tuple(image.shape)}; expected (batch, channels, height, width)."
        )
    others = {path for path, _ in by_slices.named_modules()}
    paths = [path for path, _ in plane.named_modules() if path in others]
    check_same_function(by_slices, plane, image, paths=paths)
    if plan.mode == "2.5d" and not plan.stride_depth:
        return
    like = next(converted.parameters(), image)
    depth = TRIAL_DEPTH_STRIDED if plan.stride_depth else TRIAL_DEPTH
    volume = image.to(like).unsqueeze(2).expand(-1, -1, depth, -1, -1)
    check_runs(converted, volume)


def _trial_image(plane: nn.Module) -> Tensor:
    convolution = next((m for m in plane.modules() if isinstance(m, nn.Conv2d)), None)
    if convolution is None:
        raise ConfigError(
            f"{describe(plane, '')} has no convolution that says how many channels it takes. Give "
            "an image that it takes as image=, or convert with check=False."
        )
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, convolution.in_channels, *TRIAL_IMAGE, generator=generator)
