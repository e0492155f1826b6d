"""What becomes of each layer of a 2D network when it is to take volumes, by the layer's type.

Depth is treated as height is, where a layer treats it at all. Unless depth is to be strided,
windows of pooling are one slice deep, padding layers leave depth alone, and convolutions keep its
length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from voxlift.core.errors import ConfigError
from voxlift.core.inflation import Mode, inflate
from voxlift.lifting.acs import ACSConv
from voxlift.lifting.conv3d import Conv3d, ConvTranspose3d


@dataclass(frozen=True)
class Plan:
    """How a 2D network is made 3D.

    Args:
        mode: What becomes of its kernels.
        stride_depth: Whether depth is strided, pooled and padded as height is.
    """

    mode: Mode
    stride_depth: bool

    def window(self, edge: int) -> int:
        """Depth of a window of pooling, or of a padding."""
        return edge if self.stride_depth and self.mode != "2.5d" else 1


Converter = Callable[[Any, Plan], nn.Module]


def convert_convolution(conv: nn.Conv2d, plan: Plan) -> nn.Module:
    """Inflate a convolution, or lay its kernels into the three planes."""
    if plan.mode == "acs":
        return _acs(conv, plan)
    edge, step, dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
    if plan.mode == "2.5d":
        depth, dilation = 1, 1
    else:
        # One slice less than an even kernel has keeps the length of depth.
        depth = edge if plan.stride_depth else edge - (edge + 1) % 2
    padding: str | tuple[int, ...] = conv.padding
    if not isinstance(padding, str):
        kept = dilation * (depth // 2)
        of_height = padding[0] if plan.mode != "2.5d" else 0
        padding = (of_height if plan.stride_depth else kept, *padding)
    elif padding == "valid":
        padding = (0 if plan.stride_depth else dilation * (depth // 2), 0, 0)
    made = Conv3d(
        conv.in_channels,
        conv.out_channels,
        (depth, *conv.kernel_size),  # type: ignore[arg-type]
        stride=(step if plan.stride_depth else 1, *conv.stride),  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=(dilation, *conv.dilation),  # type: ignore[arg-type]
        groups=conv.groups,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device="meta",
    )
    made.weight = _parameter(
        inflate(conv.weight.detach(), mode=plan.mode, depth=depth), conv.weight
    )
    made.bias = conv.bias
    return made


def _acs(conv: nn.Conv2d, plan: Plan) -> nn.Module:
    edge, other = conv.kernel_size
    if edge != other:
        raise ConfigError(f"its kernel of {edge} x {other} fits one plane of a volume only")
    if edge % 2 == 0:
        raise ConfigError(f"its kernel of {edge} x {edge} has no middle to lay planes through")
    step, dilation = conv.stride[0] if plan.stride_depth else 1, conv.dilation[0]
    kept = tuple(d * (edge // 2) for d in conv.dilation)
    if isinstance(conv.padding, str):
        of_plane = kept if conv.padding == "same" else (0, 0)
    else:
        of_plane = conv.padding
    of_depth = of_plane[0] if plan.stride_depth else kept[0]
    made = ACSConv(
        conv.in_channels,
        conv.out_channels,
        edge,
        stride=(step, conv.stride[0], conv.stride[1]),
        padding=(of_depth, of_plane[0], of_plane[1]),
        dilation=(dilation, conv.dilation[0], conv.dilation[1]),
        groups=conv.groups,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device="meta",
    )
    made.weight, made.bias = conv.weight, conv.bias
    return made


def convert_transposed(conv: nn.ConvTranspose2d, plan: Plan) -> nn.Module:
    """Let a transposed convolution work in the plane, and repeat its slices if depth is strided."""
    depth = conv.stride[0] if plan.stride_depth else 1
    made = ConvTranspose3d(
        conv.in_channels,
        conv.out_channels,
        (depth, *conv.kernel_size),  # type: ignore[arg-type]
        stride=(depth, *conv.stride),  # type: ignore[arg-type]
        padding=(0, *conv.padding),
        output_padding=(0, *conv.output_padding),  # type: ignore[arg-type]
        groups=conv.groups,
        bias=conv.bias is not None,
        dilation=(1, *conv.dilation),  # type: ignore[arg-type]
        device="meta",
    )
    repeated = conv.weight.detach().unsqueeze(2).repeat(1, 1, depth, 1, 1)
    made.weight = _parameter(repeated, conv.weight)
    made.bias = conv.bias
    return made


def convert_norm(norm: nn.BatchNorm2d | nn.InstanceNorm2d, plan: Plan) -> nn.Module:
    """Normalise volumes; parameters and running statistics are the same."""
    del plan
    kind = nn.BatchNorm3d if isinstance(norm, nn.BatchNorm2d) else nn.InstanceNorm3d
    made: nn.Module = copy_norm(norm, kind)
    return made


def copy_norm(norm: nn.BatchNorm2d | nn.InstanceNorm2d, kind: type[Any]) -> Any:
    """Make a norm of another kind with the settings, parameters and statistics of this one."""
    made = kind(
        norm.num_features,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
        device="meta",
    )
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(made, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(made, name, buffer)
    return made


def _max_pool(pool: nn.MaxPool2d, plan: Plan) -> nn.Module:
    if pool.return_indices:
        raise ConfigError("it returns the places of its maxima, which mean others in a volume")
    kernel, stride = _pair(pool.kernel_size), _pair(pool.stride)
    padding, dilation = _pair(pool.padding), _pair(pool.dilation)
    depth = plan.window(kernel[0])
    return nn.MaxPool3d(
        (depth, *kernel),
        (stride[0] if plan.stride_depth else 1, *stride),
        (padding[0] if depth > 1 else 0, *padding),
        (dilation[0], *dilation),
        ceil_mode=pool.ceil_mode,
    )


def _avg_pool(pool: nn.AvgPool2d, plan: Plan) -> nn.Module:
    kernel, stride, padding = _pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding)
    depth = plan.window(kernel[0])
    divisor = pool.divisor_override
    return nn.AvgPool3d(
        (depth, *kernel),
        (stride[0] if plan.stride_depth else 1, *stride),
        (padding[0] if depth > 1 else 0, *padding),
        ceil_mode=pool.ceil_mode,
        count_include_pad=pool.count_include_pad,
        divisor_override=None if divisor is None else divisor * depth,
    )


def _lp_pool(pool: nn.LPPool2d, plan: Plan) -> nn.Module:
    kernel = _pair(pool.kernel_size)
    stride = kernel if pool.stride is None else _pair(pool.stride)
    step = stride[0] if plan.stride_depth else 1
    return nn.LPPool3d(
        pool.norm_type, (plan.window(kernel[0]), *kernel), (step, *stride), pool.ceil_mode
    )


def _adaptive_avg_pool(pool: nn.AdaptiveAvgPool2d, plan: Plan) -> nn.Module:
    del plan
    return nn.AdaptiveAvgPool3d((1, *_pair(pool.output_size)))


def _adaptive_max_pool(pool: nn.AdaptiveMaxPool2d, plan: Plan) -> nn.Module:
    del plan
    if pool.return_indices:
        raise ConfigError("it returns the places of its maxima, which mean others in a volume")
    return nn.AdaptiveMaxPool3d((1, *_pair(pool.output_size)))


def _upsample(layer: nn.Upsample, plan: Plan) -> nn.Module:
    modes = {"nearest": "nearest", "nearest-exact": "nearest-exact", "bilinear": "trilinear"}
    if layer.mode not in modes:
        raise ConfigError(f"volumes cannot be resized by {layer.mode!r} interpolation")
    if layer.scale_factor is None:
        raise ConfigError("it resizes to a fixed size; give it a scale_factor instead")
    factors = _pair(layer.scale_factor)
    return nn.Upsample(
        scale_factor=(factors[0] if plan.stride_depth else 1.0, *factors),
        mode=modes[layer.mode],
        align_corners=layer.align_corners,
        recompute_scale_factor=layer.recompute_scale_factor,
    )


def _pad_depth(padding: Sequence[int], plan: Plan) -> tuple[int, ...]:
    left, right, top, bottom = padding
    of_depth = (top, bottom) if plan.stride_depth and plan.mode != "2.5d" else (0, 0)
    return (left, right, top, bottom, *of_depth)


def _constant_pad(layer: nn.ConstantPad2d, plan: Plan) -> nn.Module:
    return nn.ConstantPad3d(_pad_depth(layer.padding, plan), layer.value)  # type: ignore[arg-type]


def _mirror_pad(kind: type[Any]) -> Converter:
    return lambda layer, plan: kind(_pad_depth(layer.padding, plan))


def _dropout(layer: nn.Dropout2d, plan: Plan) -> nn.Module:
    del plan
    return nn.Dropout3d(layer.p, layer.inplace)


def _softmax(layer: nn.Softmax2d, plan: Plan) -> nn.Module:
    del layer, plan
    return nn.Softmax(dim=1)


CONVERTERS: dict[type[nn.Module], Converter] = {
    nn.Conv2d: convert_convolution,
    nn.ConvTranspose2d: convert_transposed,
    nn.BatchNorm2d: convert_norm,
    nn.InstanceNorm2d: convert_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.LPPool2d: _lp_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    nn.AdaptiveMaxPool2d: _adaptive_max_pool,
    nn.Upsample: _upsample,
    nn.ConstantPad2d: _constant_pad,
    nn.ReflectionPad2d: _mirror_pad(nn.ReflectionPad3d),
    nn.ReplicationPad2d: _mirror_pad(nn.ReplicationPad3d),
    nn.CircularPad2d: _mirror_pad(nn.CircularPad3d),
    nn.Dropout2d: _dropout,
    nn.Softmax2d: _softmax,
}
"""The layers of torch that are replaced, and by what."""

DIMENSION_FREE: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Bilinear,
    nn.BatchNorm1d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.PReLU,
)
"""Layers with parameters that take volumes, or what was pooled from them, as they are."""

PLANAR_ONLY: tuple[type[nn.Module], ...] = (
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Fold,
    nn.Unfold,
)
"""Layers without parameters that have no counterpart for volumes."""

OWN_METHODS = ("forward", "_conv_forward", "_check_input_dim", "__call__")


def base_type(layer: nn.Module) -> type[nn.Module] | None:
    """Find the type of `CONVERTERS` that a layer is of, or derives from."""
    return next((kind for kind in type(layer).__mro__ if kind in CONVERTERS), None)


def is_plain(layer: nn.Module, base: type[nn.Module]) -> bool:
    """Tell whether a layer computes what its base type does, with the same tensors."""
    return (
        all(getattr(type(layer), name, None) is getattr(base, name, None) for name in OWN_METHODS)
        and "forward" not in vars(layer)
        and not hasattr(layer, "parametrizations")
        and {name for name, _ in layer.named_parameters()} <= {"weight", "bias"}
        and not any(True for _ in layer.children())
    )


def has_hooks(layer: nn.Module) -> bool:
    """Tell whether code hangs on a layer that would not be on its successor."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)


def _parameter(tensor: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=like.requires_grad)


def _pair(value: Any) -> tuple[Any, Any]:
    if isinstance(value, Sequence):
        first, second = value if len(value) == 2 else (value[0], value[0])
        return first, second
    return value, value
