"""Swin transformers of MONAI as encoders: the transformer alone, or with Swin UNETR's convolutions.

Every size is taken: MONAI pads each layer's input where it has to, so that a map has
`ceil(size / stride)` voxels. Where the size is a multiple of 32 the maps are those that MONAI's
Swin UNETR hands to its decoder.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture, Norm, PatchMerging
from voxlift.core.errors import DataError
from voxlift.core.extras import require_extra
from voxlift.core.geometry import ALL, ONES, Geometry
from voxlift.core.types import Triple
from voxlift.nets.monai_encoder import MonaiEncoder

SWINS = ("swin", "swin_v2")
SWIN_UNETRS = ("swinunetr", "swinunetr_v2")
POSITION_INDEX = "relative_position_index"

FIRST_PLACES: tuple[Triple, ...] = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
MERGED_PLACES: dict[PatchMerging, tuple[Triple, ...]] = {
    "all": (*FIRST_PLACES, (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)),
    "repeated": (*FIRST_PLACES, (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
}
"""Voxels of each 2^3 whose channels are concatenated, in this order, along MONAI's three axes."""


class MergingLayer(nn.Module):
    """Merge each 2^3 voxels into one of twice the channels.

    Args:
        layer: MONAI's layer, whose parameters are kept.
        kind: Which voxels are merged.

    Shape:
        `(batch, x, y, z, channels)` -> each axis halved, rounded up, and twice the channels.

    Source:
        `PatchMerging` of MONAI: `repeated` as in its releases up to 1.4, `all` as in 1.5 and later.
    """

    def __init__(self, layer: Any, kind: PatchMerging) -> None:
        super().__init__()
        self.norm: nn.Module = layer.norm
        self.reduction: nn.Module = layer.reduction
        self.kind = kind

    def forward(self, volume: Tensor) -> Tensor:
        """Merge the voxels; an axis of odd length is padded with zeros at its end."""
        odd = [length % 2 for length in volume.shape[1:4]]
        if any(odd):
            volume = functional.pad(volume, (0, 0, 0, odd[2], 0, odd[1], 0, odd[0]))
        parts = [volume[:, x::2, y::2, z::2] for x, y, z in MERGED_PLACES[self.kind]]
        merged: Tensor = self.reduction(self.norm(torch.cat(parts, -1)))
        return merged


class Swin(MonaiEncoder):
    """A shifted-window transformer of four stages, with five feature maps.

    Each map is normalised over its channels, without parameters, as Swin UNETR takes it. `swin_v2`
    has a residual block of convolutions before each stage.

    Args:
        architecture: What shapes the tensors; its width is MONAI's `feature_size`. Its stem is a
            layer of patches of 2^3 voxels, whatever `stem_kernel` says.
        geometry: The network's own; it has no other.
        zero_init_residual: Refused.
        checkpointing: Recompute the transformer's blocks in the backward pass.

    Shape:
        `(batch, in_channels, depth, height, width)` -> five maps of strides 2, 4, 8, 16 and 32,
        with 1, 2, 4, 8 and 16 times the width as channels.

    Raises:
        ConfigError: For an architecture, a geometry or an option that the network does not have.

    Source:
        Swin UNETR, arXiv 2201.01266, and Swin UNETR V2 (MICCAI 2023), in MONAI's layers.
    """

    input_layers: ClassVar[tuple[str, ...]] = ("swinViT.patch_embed.proj",)
    defaults: ClassVar[Mapping[str, object]] = {"width": 48, "norm": "instance", "stem_kernel": 3}
    names: ClassVar[tuple[str, ...]] = SWINS
    norms: ClassVar[tuple[Norm, ...]] = ("instance",)
    chosen: ClassVar[tuple[str, ...]] = ("patch_merging",)
    width_factor: ClassVar[int] = 12

    def __init__(
        self,
        architecture: Architecture,
        geometry: Geometry,
        *,
        zero_init_residual: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(architecture, zero_init_residual=zero_init_residual)
        self.take_layers(_swin_unetr(architecture, checkpointing=checkpointing))
        self.out_channels = self.channels(architecture.width)
        self.finish(geometry)

    def take_layers(self, network: Any) -> None:
        """Keep what is used of MONAI's Swin UNETR."""
        self.swinViT: nn.Module = network.swinViT
        for module in list(self.swinViT.modules()):
            if hasattr(module, POSITION_INDEX):
                # It follows from the size of the window, and takes a tenth of a weight file.
                index = getattr(module, POSITION_INDEX)
                module.register_buffer(POSITION_INDEX, index, persistent=False)
        vit = network.swinViT
        for (stage,) in (vit.layers1, vit.layers2, vit.layers3, vit.layers4):
            # For `all` too: what a file of ours computes must not change with MONAI's version.
            stage.downsample = MergingLayer(stage.downsample, self.architecture.patch_merging)

    @property
    def checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass; it can be changed."""
        return any(block.use_checkpoint for block in self._blocks())

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        for block in self._blocks():
            block.use_checkpoint = wanted

    def _blocks(self) -> list[Any]:
        return [module for module in self.swinViT.modules() if hasattr(module, "use_checkpoint")]

    @staticmethod
    def channels(width: int) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(width * 2**i for i in range(5))

    @classmethod
    def default_geometry(cls, architecture: Architecture) -> Geometry:
        """Patches of 2^3 voxels, merged by twos four times."""
        del architecture
        return Geometry(stem_stride=ALL, stage_strides=(ALL,) * 4)

    def encode(self, volume: Tensor) -> list[Tensor]:
        """Compute the five maps."""
        maps: list[Tensor] = self.swinViT(volume, True)  # noqa: FBT003 - MONAI's own signature
        return maps


class SwinUNETREncoder(Swin):
    """What Swin UNETR hands to its decoder: the transformer's maps, behind residual blocks.

    The map of stride 16 comes from the transformer itself, as in MONAI; the other five have passed
    a block of convolutions, and the first of them sees the input at full resolution.

    Args:
        architecture: What shapes the tensors; its width is MONAI's `feature_size`.
        geometry: The network's own; it has no other.
        zero_init_residual: Refused.
        checkpointing: Recompute the transformer's blocks in the backward pass.

    Shape:
        `(batch, in_channels, depth, height, width)` -> six maps of strides 1, 2, 4, 8, 16 and 32,
        with 1, 1, 2, 4, 8 and 16 times the width as channels.

    Raises:
        ConfigError: For an architecture, a geometry or an option that the network does not have.

    Source:
        Swin UNETR, arXiv 2201.01266, and Swin UNETR V2 (MICCAI 2023), in MONAI's layers.
    """

    input_layers: ClassVar[tuple[str, ...]] = (
        *Swin.input_layers,
        "encoder1.layer.conv1.conv",
        "encoder1.layer.conv3.conv",
    )
    names: ClassVar[tuple[str, ...]] = SWIN_UNETRS

    def take_layers(self, network: Any) -> None:
        """Keep the transformer and the five blocks behind it."""
        super().take_layers(network)
        self.encoder1: nn.Module = network.encoder1
        self.encoder2: nn.Module = network.encoder2
        self.encoder3: nn.Module = network.encoder3
        self.encoder4: nn.Module = network.encoder4
        self.encoder10: nn.Module = network.encoder10

    @staticmethod
    def channels(width: int) -> tuple[int, ...]:
        """Channels of each map."""
        return (width, *(width * 2**i for i in range(4)), width * 16)

    @classmethod
    def default_geometry(cls, architecture: Architecture) -> Geometry:
        """A first map at full resolution, and five halvings."""
        del architecture
        return Geometry(stem_stride=ONES, stage_strides=(ALL,) * 5)

    def check_size(self, size_voxels: Sequence[int]) -> None:
        """Refuse a size that the network cannot take.

        Raises:
            DataError: As every backbone, and if a single voxel is left of the coarsest map.
        """
        super().check_size(size_voxels)
        if max(size_voxels) <= 32:
            name = self.architecture.name
            raise DataError(
                f"Of a volume of {tuple(size_voxels)} voxels {name} leaves one voxel in its "
                "coarsest map, which instance norm cannot normalise. At least one axis has to be "
                "longer than 32 voxels: take larger patches or volumes (--patch-voxels or "
                "--size-voxels; what is smaller is padded), or take the backbone "
                f"{name.replace('swinunetr', 'swin')}, which has no norm there and takes its "
                "transformer from the same weight file."
            )

    def encode(self, volume: Tensor) -> list[Tensor]:
        """Compute the six maps."""
        hidden = super().encode(volume)
        return [
            self.encoder1(volume),
            self.encoder2(hidden[0]),
            self.encoder3(hidden[1]),
            self.encoder4(hidden[2]),
            hidden[3],
            self.encoder10(hidden[4]),
        ]


def _swin_unetr(architecture: Architecture, *, checkpointing: bool) -> Any:
    """Make MONAI's whole network: it knows best what its parts are made with."""
    require_extra("swin", "Networks of the Swin family")
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(
        in_channels=architecture.in_channels,
        out_channels=1,
        feature_size=architecture.width,
        norm_name="instance",
        use_checkpoint=checkpointing,
        use_v2=architecture.name.endswith("_v2"),
    )
