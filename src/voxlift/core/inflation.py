"""Kernels of 2D networks made fit for volumes."""

from typing import Literal

import torch
from torch import Tensor

from voxlift.core.architecture import Convolution

Mode = Literal["i3d", "i3d-center", "acs", "2.5d"]

MODES: dict[Mode, Convolution] = {
    "i3d": "full",
    "i3d-center": "full",
    "acs": "acs",
    "2.5d": "planar",
}
"""Every way to make a 2D network 3D, and the kernels that it leads to.

- `i3d`: repeat each kernel along depth and divide by the number of slices (mean).
- `i3d-center`: put each kernel into the middle slice, zeros around it.
- `acs`: leave the kernels as they are, and lay a third of the output channels of each layer into
  each of the three planes.
- `2.5d`: make each kernel one slice deep; slices never meet.
"""


def inflate(kernel: Tensor, *, mode: Mode, depth: int) -> Tensor:
    """Make a kernel of a 2D convolution one for volumes.

    Args:
        kernel: Of a 2D convolution.
        mode: See `MODES`.
        depth: Slices of the kernel by inflation; the other modes do not ask.

    Shape:
        `(out, in, height, width)` -> `(out, in, depth, height, width)`; one slice deep with `2.5d`,
        and as it is with `acs`.

    Source:
        I3D: arXiv 1705.07750, section 2.2. ACS: arXiv 1911.10477, section III.
    """
    if mode == "acs":
        return kernel
    slices = kernel.unsqueeze(2)
    if mode == "2.5d":
        return slices
    if mode == "i3d":
        return slices.repeat(1, 1, depth, 1, 1) / depth
    middle = (depth - 1) // 2
    before, after = (slices.new_zeros(slices.shape) for _ in range(2))
    return torch.cat([before] * middle + [slices] + [after] * (depth - 1 - middle), dim=2)


def describe_inflation(mode: Mode, *, depth: int) -> str:
    """Say in a few words what `inflate` did to a kernel."""
    return {
        "i3d": f"2D kernel repeated over {depth} slices and divided by {depth}",
        "i3d-center": f"2D kernel put into the middle one of {depth} slices",
        "acs": "2D kernel as it is, its output channels shared out over the three planes",
        "2.5d": "2D kernel made one slice deep",
    }[mode]
