"""Which tensors MONAI's Swin UNETR has in its encoder, and their shapes."""

import torch
from torch import Tensor

from voxlift.core.architecture import Architecture

WINDOW = 7
"""Edge of an attention window in patches."""

HEADS = (3, 6, 12, 24)
"""Attention heads of each stage."""

BLOCKS = 2
"""Transformer blocks of each stage."""

Shapes = dict[str, tuple[int, ...]]


def swin_shapes(architecture: Architecture) -> Shapes:
    """List the tensors of an encoder by MONAI's names.

    Args:
        architecture: Named `swin`, `swin_v2`, `swinunetr` or `swinunetr_v2`.
    """
    width, in_channels = architecture.width, architecture.in_channels
    shapes: Shapes = {
        "swinViT.patch_embed.proj.weight": (width, in_channels, 2, 2, 2),
        "swinViT.patch_embed.proj.bias": (width,),
    }
    for stage, heads in enumerate(HEADS):
        channels, layer = width * 2**stage, f"swinViT.layers{stage + 1}"
        for block in range(BLOCKS):
            shapes |= _block(f"{layer}.0.blocks.{block}", channels, heads)
        shapes |= _affine(f"{layer}.0.downsample.norm", 8 * channels)
        shapes[f"{layer}.0.downsample.reduction.weight"] = (2 * channels, 8 * channels)
        if architecture.name.endswith("_v2"):
            shapes |= _residual(f"{layer}c.0.layer", channels, channels)
    if architecture.name.startswith("swinunetr"):
        shapes |= _residual("encoder1.layer", in_channels, width)
        for number, factor in ((2, 1), (3, 2), (4, 4), (10, 16)):
            shapes |= _residual(f"encoder{number}.layer", factor * width, factor * width)
    return shapes


def position_index() -> Tensor:
    """Number the offsets between the places of a window, as each block's table lists them.

    Shape:
        `(343, 343)`, whole numbers from 0 to 2196.
    """
    axis, span = torch.arange(WINDOW), 2 * WINDOW - 1
    places = torch.cartesian_prod(axis, axis, axis)
    offsets = places[:, None] - places[None] + WINDOW - 1
    return (offsets * torch.tensor([span**2, span, 1])).sum(2)


def _block(name: str, channels: int, heads: int) -> Shapes:
    return {
        **_affine(f"{name}.norm1", channels),
        f"{name}.attn.relative_position_bias_table": ((2 * WINDOW - 1) ** 3, heads),
        f"{name}.attn.qkv.weight": (3 * channels, channels),
        f"{name}.attn.qkv.bias": (3 * channels,),
        f"{name}.attn.proj.weight": (channels, channels),
        f"{name}.attn.proj.bias": (channels,),
        **_affine(f"{name}.norm2", channels),
        f"{name}.mlp.linear1.weight": (4 * channels, channels),
        f"{name}.mlp.linear1.bias": (4 * channels,),
        f"{name}.mlp.linear2.weight": (channels, 4 * channels),
        f"{name}.mlp.linear2.bias": (channels,),
    }


def _affine(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _residual(name: str, in_channels: int, channels: int) -> Shapes:
    shapes: Shapes = {
        f"{name}.conv1.conv.weight": (channels, in_channels, 3, 3, 3),
        f"{name}.conv2.conv.weight": (channels, channels, 3, 3, 3),
    }
    if in_channels != channels:
        shapes[f"{name}.conv3.conv.weight"] = (channels, in_channels, 1, 1, 1)
    return shapes
