"""An image laid out on the network's grid, of which any part can be read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.core.errors import DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.types import Triple
from voxlift.data.intensity import IntensityScale, find_scale
from voxlift.data.orientation import to_canonical
from voxlift.data.preprocess import NetworkInput
from voxlift.data.resample import Method, resample
from voxlift.data.volume import Volume

Region = tuple[slice, slice, slice]

_SPACING_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """The channels of one case on the network's grid, still in the numbers of the file.

    Only what is read is scaled, so that a large scan is not held twice.

    Attributes:
        channels: One volume for each channel, in the orientation and spacing of the network.
        scales: How each is scaled.
    """

    channels: tuple[Volume, ...]
    scales: tuple[IntensityScale, ...]

    @property
    def size_voxels(self) -> Triple:
        """Size on the network's grid."""
        return self.channels[0].size_voxels

    @property
    def lowest(self) -> tuple[float, ...]:
        """What padding has, in each channel."""
        return tuple(scale.lowest for scale in self.scales)

    def read(self, region: Region) -> NetworkInput:
        """Read a part, scaled for the network; it must not reach beyond the image.

        Shape:
            `(channels, depth, height, width)` of the region.
        """
        return np.stack(
            [s.apply(c.array[region]) for s, c in zip(self.scales, self.channels, strict=True)]
        )

    def read_all(self) -> NetworkInput:
        """Read the whole image."""
        return self.read((slice(None), slice(None), slice(None)))


def prepare_image(
    channels: Sequence[Volume], preprocessing: Preprocessing, *, name: str = "the image"
) -> PreparedImage:
    """Lay the channels of a case out as the network shall see them.

    Args:
        channels: One volume for each channel, on one grid.
        preprocessing: The contract saved with the network; its `size_voxels` is left aside.
        name: What errors call the image.

    Raises:
        DataError: If there is another number of channels than the network was trained on.
    """
    if len(channels) != preprocessing.in_channels:
        raise DataError(
            f"{name} has {len(channels)} channel(s), but the network was trained on "
            f"{preprocessing.in_channels}. Give the same channels in the same order."
        )
    laid_out = [to_network_grid(channel, preprocessing) for channel in channels]
    scales = [find_scale(channel.array, preprocessing) for channel in laid_out]
    return PreparedImage(tuple(laid_out), tuple(scales))


def to_network_grid(
    volume: Volume, preprocessing: Preprocessing, *, method: Method = "linear"
) -> Volume:
    """Turn and resample an image, or with another method a mask, to the network's grid.

    A spacing within 2 % of the network's is taken for it, since interpolation would cost more than
    it gains.
    """
    if preprocessing.orientation == "canonical":
        volume = to_canonical(volume)
    wanted_mm = preprocessing.spacing_for(volume.spacing_mm)
    if np.allclose(volume.spacing_mm, wanted_mm, rtol=_SPACING_TOLERANCE):
        return volume
    return resample(volume, wanted_mm, method=method)
