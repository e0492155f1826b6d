"""What the encoders have in common whose layers come from MONAI.

MONAI's published weights were trained on volumes laid out (x, y, z). Kernels, windows and tables of
relative positions all know their axes, so the encoder lays its input out as they do, and its maps
back: to whoever uses it, every axis is (depth, height, width), as everywhere else.
"""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.errors import ConfigError
from voxlift.core.geometry import Geometry
from voxlift.nets.encoder import Encoder
from voxlift.nets.family_limits import check_architecture
from voxlift.nets.layers import Conv3d


class MonaiEncoder(Encoder):
    """An encoder with MONAI's layers, under MONAI's names, and with strides of its own.

    A subclass makes its layers, then calls `finish`.

    Args:
        architecture: What shapes the tensors.
        zero_init_residual: Refused: these networks have no such start.

    Attributes:
        names: Of the family's backbones.
        norms: That it can have.
        chosen: Fields of the architecture that it has a choice of, beside width, norm and channels.
        width_factor: What its width is a multiple of.

    Raises:
        ConfigError: If the architecture or the option is none that MONAI's network has.
    """

    names: ClassVar[tuple[str, ...]]
    norms: ClassVar[tuple[Norm, ...]]
    chosen: ClassVar[tuple[str, ...]] = ()
    width_factor: ClassVar[int]

    def __init__(self, architecture: Architecture, *, zero_init_residual: bool) -> None:
        super().__init__(architecture)
        name = architecture.name
        if name not in self.names:
            raise ConfigError(f"{name!r} is none of {', '.join(self.names)}.")
        if zero_init_residual:
            raise ConfigError(
                f"{name} has no norm behind the convolutions of a block, so it cannot start as its "
                "shortcuts; leave zero_init_residual out."
            )
        check_architecture(architecture, norms=self.norms, chosen=self.chosen)
        if architecture.width % self.width_factor:
            raise ConfigError(
                f"The width of {name} is a multiple of {self.width_factor}; found "
                f"{architecture.width}."
            )

    def finish(self, geometry: Geometry) -> None:
        """Take the geometry, and let the convolutions keep out of what is wrong on a CPU."""
        _exchange_convolutions(self)
        self.geometry = geometry

    def set_geometry(self, geometry: Geometry) -> None:
        """Refuse every geometry but the network's own: its layers cannot step otherwise."""
        own = self.default_geometry(self.architecture)
        if geometry != own:
            raise ConfigError(
                f"{self.architecture.name} has strides of its own, {own.strides} for its maps; "
                f"found {geometry.strides}, with dilations {geometry.dilations}. Give no geometry."
            )

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Raises:
            DataError: If the volume has another number of dimensions or channels than the
                architecture, or is too small.
        """
        self.check_input(volume)
        return [_exchange_axes(m) for m in self.encode(_exchange_axes(volume).contiguous())]

    @abstractmethod
    def encode(self, volume: Tensor) -> list[Tensor]:
        """Compute the feature maps of a volume laid out (width, height, depth), laid out so."""


def _exchange_axes(volume: Tensor) -> Tensor:
    """Turn (depth, height, width) into (width, height, depth), or back."""
    return volume.transpose(2, 4)


def _exchange_convolutions(network: nn.Module) -> None:
    """Put our `Conv3d` in the place of torch's; the parameters stay the same objects."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv3d:
                assert not isinstance(child.padding, str)
                # Each of these has equal kernels, strides and paddings on all axes.
                conv = Conv3d(
                    child.in_channels,
                    child.out_channels,
                    child.kernel_size[0],
                    child.stride[0],
                    child.padding[0],
                    bias=child.bias is not None,
                )
                conv.weight, conv.bias = child.weight, child.bias
                setattr(parent, name, conv)
