"""ACS: the kernels of a 2D network, laid into the three planes of a volume."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.errors import ConfigError
from voxlift.core.geometry import ONES
from voxlift.core.types import Triple
from voxlift.lifting.conv3d import conv3d


class ACSConv(nn.Module):
    """Convolve a volume by the kernels of a 2D convolution: axial, coronal and sagittal.

    The output channels are parted in three: the kernels of the first part lie in the plane of
    height and width, those of the second in that of depth and width, those of the third in that of
    depth and height. The parameters are those of `nn.Conv2d`, by name and shape. It computes what a
    3D convolution does whose k^3 kernels are zero outside that plane (see `cubic_kernel`).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Edge of the kernels in voxels, odd.
        stride: (depth, height, width).
        padding: Likewise; None keeps the size at stride 1.
        dilation: Likewise.
        groups: As of `nn.Conv2d`: each group of output channels sees its group of inputs.
        bias: Whether there is one.
        padding_mode: As of `nn.Conv2d`.
        device: Where the parameters are made.

    Shape:
        `(batch, in_channels, depth, height, width)` -> `(batch, out_channels, *)`, as a k^3
        convolution has it.

    Raises:
        ConfigError: If the kernel is even: it has no middle to lay planes through.

    Source:
        arXiv 1911.10477, section III.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: Triple = ONES,
        padding: Triple | None = None,
        dilation: Triple = ONES,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ConfigError(
                f"ACS needs kernels with a middle; found one of edge {kernel}. Convert the network "
                "with 'i3d' or '2.5d', or choose an odd kernel."
            )
        plane = nn.Conv2d(
            in_channels, out_channels, kernel, groups=groups, bias=bias, device=device
        )
        self.weight, self.bias = plane.weight, plane.bias
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size: Triple = (kernel, kernel, kernel)
        self.stride: Triple = stride
        self.dilation: Triple = dilation
        self.padding: Triple = (
            same_padding(self.kernel_size, dilation) if padding is None else padding
        )
        self.groups, self.padding_mode = groups, padding_mode

    def forward(self, volume: Tensor) -> Tensor:
        """Convolve."""
        padding = self.padding
        if self.padding_mode != "zeros":
            around = [p for p in reversed(padding) for _ in range(2)]
            volume, padding = functional.pad(volume, around, mode=self.padding_mode), (0, 0, 0)
        if self.groups > 1 or self.kernel_size[0] == 1:
            # The parts of the channels do not end where the groups do.
            weight = self.cubic_kernel()
            return self._convolve(volume, weight, self.bias, padding, groups=self.groups)
        parts = part_sizes(self.out_channels)
        weights = torch.split(self.weight, parts)
        biases = (None,) * 3 if self.bias is None else torch.split(self.bias, parts)
        planes = [
            self._convolve_plane(volume, weight, bias, padding, flat_axis)
            for flat_axis, (weight, bias) in enumerate(zip(weights, biases, strict=True))
            if len(weight)
        ]
        return planes[0] if len(planes) == 1 else torch.cat(planes, dim=1)

    def _convolve_plane(
        self,
        volume: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        padding: Triple,
        flat_axis: int,
    ) -> Tensor:
        """Convolve by kernels that are one voxel thick along an axis."""
        left = list(padding)
        # What a k^3 kernel would need along that axis, this one does not.
        excess = left[flat_axis] - self.dilation[flat_axis] * (self.kernel_size[0] // 2)
        left[flat_axis] = 0
        if excess:
            around = [0] * 6
            around[2 * (2 - flat_axis)] = around[2 * (2 - flat_axis) + 1] = excess
            volume = functional.pad(volume, around)
        thin = weight.unsqueeze(2 + flat_axis)
        return self._convolve(volume, thin, bias, (left[0], left[1], left[2]))

    def _convolve(
        self, volume: Tensor, weight: Tensor, bias: Tensor | None, padding: Triple, groups: int = 1
    ) -> Tensor:
        return conv3d(
            volume,
            weight,
            bias,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=groups,
        )

    def cubic_kernel(self) -> Tensor:
        """Write the kernels out as those of an equal 3D convolution.

        Shape:
            `(out, in / groups, kernel, kernel, kernel)`.
        """
        reach = self.kernel_size[0] // 2
        cubes = []
        for flat_axis, part in enumerate(torch.split(self.weight, part_sizes(self.out_channels))):
            around = [0] * 6
            around[2 * (2 - flat_axis)] = around[2 * (2 - flat_axis) + 1] = reach
            cubes.append(functional.pad(part.unsqueeze(2 + flat_axis), around))
        return torch.cat(cubes)

    def extra_repr(self) -> str:
        """Describe the layer as torch's convolutions do."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel={self.kernel_size[0]}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}"
        )


def same_padding(kernel: Triple, dilation: Triple) -> Triple:
    """Padding of an odd kernel that keeps the size at stride 1."""
    depth, height, width = (d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
    return (depth, height, width)


def part_sizes(out_channels: int) -> list[int]:
    """Part channels in thirds for the axial, coronal and sagittal plane; the first get the rest."""
    return [(out_channels + 2 - part) // 3 for part in range(3)]
