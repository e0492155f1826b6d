"""Encoders of a few slices around a key slice, whose feature maps are planes: MP3D and its kin."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import Geometry
from voxlift.nets.group_transform import GroupTransform, SliceStart, transform_weight
from voxlift.nets.p3d import P3D, P3DS
from voxlift.nets.residual import ResidualEncoder
from voxlift.nets.resnet import ResNet

TRANSFORM = "group_transform"
STARTS = {"center": "the middle slice", "mean": "the mean of the slices"}

POOLED_SLICES = 3
POOLS = {1: (2, 1), 2: (2, 1), 3: (1, 0)}
"""Stride and padding of the pooling of slices behind a stage: 9 slices become 5, 3 and 1."""


class SliceEncoder(ResidualEncoder):
    """What a family of 3D encoders becomes with a group transform on each of its four stages.

    It is mixed in before the family, as in `class MP3D(SliceEncoder, P3D)`, so that the tensors
    keep the family's names: weights of the plain encoder load into it as they are.

    Args:
        architecture: What shapes the tensors, with `num_slices`.
        geometry: One that never strides depth, so that every map has a slice for each of the input.
        zero_init_residual: As the family has it.
        checkpointing: As the family has it.
        slice_start: What the transforms compute before training, and after the weights of another
            number of slices were loaded.

    With `slice_transform="pool"` the slices are max-pooled behind the first three stages, and each
    plane is the middle slice of what is left; the pooling behind the stem then sees one slice.

    Attributes:
        strides: Of each map relative to the input, (height, width).

    Shape:
        `(batch, in_channels, num_slices, height, width)` -> four maps
        `(batch, channels, height, width)`.

    Raises:
        ConfigError: Without `num_slices`, with fewer than the pooling leaves some of, or for a
            geometry that strides depth.

    Source:
        arXiv 2012.08770, section 2. `pool` is the P3D of its comparison (9 slices), as the authors'
        code for DeepLesion has it: `mmdet/models/backbones/p3d.py` of urmagicsmine/MP3D.
    """

    follows_data: ClassVar[bool] = False

    def __init__(
        self,
        architecture: Architecture,
        geometry: Geometry,
        *,
        zero_init_residual: bool = False,
        checkpointing: bool = False,
        slice_start: SliceStart = "center",
    ) -> None:
        num_slices = architecture.num_slices
        if num_slices is None:
            raise ConfigError(
                f"{architecture.name} turns slices into planes and has to know how many: give "
                "num_slices, such as 3 for lifted photographs or 9 for CT."
            )
        super().__init__(
            architecture,
            geometry,
            zero_init_residual=zero_init_residual,
            checkpointing=checkpointing,
        )
        self.out_channels = self.out_channels[1:]
        self.slice_start = slice_start
        kind = architecture.slice_transform
        self.group_transform = nn.ModuleDict(
            {
                str(stage): GroupTransform(channels, depth, kind=kind, start=slice_start)
                for stage, (channels, depth) in enumerate(
                    zip(self.out_channels, _map_slices(architecture), strict=True), start=1
                )
            }
        )

    def set_geometry(self, geometry: Geometry) -> None:
        """Make the layers step as the geometry says.

        Raises:
            ConfigError: If it strides depth.
        """
        if geometry.strides[-1][0] != 1:
            raise ConfigError(
                f"{self.architecture.name} cannot stride depth, for its group transforms take a "
                f"map of every slice; this geometry strides it by {geometry.strides[-1][0]}. "
                "Choose 'pretrain', 'thumbnail' or another that leaves depth alone."
            )
        super().set_geometry(geometry)

    @property
    def strides(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """Stride of each map relative to the input, (height, width)."""
        return tuple(stride[1:] for stride in self.geometry.strides[1:])

    def check_input(self, volume: Tensor) -> None:
        """Refuse what the network cannot take.

        Raises:
            DataError: As every encoder does, or for another number of slices.
        """
        super().check_input(volume)
        wanted = self.architecture.num_slices
        if volume.shape[2] != wanted:
            raise DataError(
                f"{self.architecture.name} was built for {wanted} slices and was given "
                f"{volume.shape[2]}. Feed it as many, or build it with "
                f"num_slices={volume.shape[2]}; any weights of it load into that too."
            )

    @property
    def pools_slices(self) -> bool:
        """Whether the maps of the stages have fewer slices than the input."""
        return self.architecture.slice_transform == "pool"

    @property
    def pools_across_slices(self) -> bool:
        """Whether the pooling behind the stem sees neighbouring slices."""
        return super().pools_across_slices and not self.pools_slices

    def leave_stage(self, number: int, volume: Tensor) -> Tensor:
        """Pool the slices behind a stage."""
        if not self.pools_slices or number not in POOLS:
            return volume
        stride, padding = POOLS[number]
        return functional.max_pool3d(volume, (POOLED_SLICES, 1, 1), (stride, 1, 1), (padding, 0, 0))

    @property
    def stem_sees_one_slice(self) -> bool:
        """Whether the stem's convolution computes each slice alone, whatever lies about it."""
        return self.conv1.kernel_size[0] == 1

    def maps_from_stem(self, stem: Tensor) -> list[Tensor]:
        """Compute a plane from each of the four stages, given what the stem's convolution gave."""
        return self.planes(self.volumes_from_stem(stem))

    def volumes_from_stem(self, stem: Tensor) -> list[Tensor]:
        """Compute the maps of the four stages before they become planes, of any depth.

        Shape:
            `(batch, width, depth, height, width)` -> four maps
            `(batch, channels, depth, height, width)`.
        """
        return super().maps_from_stem(stem)[1:]

    def planes(self, volumes: Sequence[Tensor]) -> list[Tensor]:
        """Turn the maps of the four stages into planes.

        Shape:
            `(batch, channels, num_slices, height, width)` -> `(batch, channels, height, width)`.

        Raises:
            DataError: If the maps have another number of slices.
        """
        return [
            transform(volume)
            for transform, volume in zip(self.group_transform.values(), volumes, strict=True)
        ]

    def adapt_tensor(
        self, name: str, wanted: Tensor, file: Mapping[str, Tensor]
    ) -> tuple[Tensor, str] | None:
        """Build a group transform anew where a weight file has one for other slices, or none.

        Args:
            name: Of a tensor, as in this encoder's `state_dict()`.
            wanted: The encoder's own tensor.
            file: The tensors of the file, by this encoder's names.

        Returns:
            The tensor to load and how it was made; None if the file's cannot be adapted.
        """
        kind, num_slices = self.architecture.slice_transform, self.architecture.num_slices
        if num_slices is None or not name.startswith(f"{TRANSFORM}."):
            return None
        start, found = STARTS[self.slice_start], file.get(name)
        if found is None:
            if any(key.startswith(f"{TRANSFORM}.") for key in file):
                return None  # Of a transform that is there a part is missing: a damaged file.
            how = f"no group transform in the file; made for {num_slices} slices to take {start}"
        else:
            axis = 1 if kind == "group" else 2
            others = [length for i, length in enumerate(found.shape) if i != axis]
            if others != [length for i, length in enumerate(wanted.shape) if i != axis]:
                return None
            how = (
                f"a group transform for {found.shape[axis]} slices in the file; rebuilt for "
                f"{num_slices} to take {start}, and to be trained anew"
            )
        built = transform_weight(len(wanted), num_slices, kind=kind, start=self.slice_start)
        assert built is not None
        return built.to(wanted), how


def _map_slices(architecture: Architecture) -> list[int]:
    """Count the slices of each stage's map.

    Raises:
        ConfigError: If a pooling leaves none.
    """
    depth, depths = architecture.num_slices, []
    assert depth is not None
    for stage in (1, 2, 3, 4):
        if architecture.slice_transform == "pool" and stage in POOLS:
            stride, padding = POOLS[stage]
            depth = (depth + 2 * padding - POOLED_SLICES) // stride + 1
        depths.append(depth)
    if min(depths) < 1:
        raise ConfigError(
            f"{architecture.name} with slice_transform='pool' leaves no slice of "
            f"{architecture.num_slices}. Give num_slices=9 or more, or another slice_transform."
        )
    return depths


MP3DS = {f"m{name}": layout for name, layout in P3DS.items()}


class MP3D(SliceEncoder, P3D):
    """P3D with a group transform on its four stages."""

    layouts = MP3DS


class SliceResNet(SliceEncoder, ResNet):
    """ResNet3D with a group transform on its four stages; it keeps the name of the ResNet."""
