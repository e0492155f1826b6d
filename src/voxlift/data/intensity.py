"""Bring the intensities of a channel into the range that a network was trained on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxlift.core.preprocessing import Preprocessing

# Beyond so many voxels, percentiles and means are taken from evenly spread ones.
_MOST_SAMPLED = 2**24


@dataclass(frozen=True)
class IntensityScale:
    """A linear map of intensities, found once for a channel and applied to any part of it.

    Attributes:
        low: Becomes 0.
        high: Becomes 1; equal to `low` for a channel with nothing to scale, which becomes 0.
        clipped: Whether what lies beyond is clipped.
        mean: Subtracted afterwards.
        std: Divided by after that.
        lowest: What padding beyond the volume has, in the network's numbers.
    """

    low: float
    high: float
    clipped: bool
    mean: float
    std: float
    lowest: float

    def apply(self, part: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Scale a part of the channel."""
        if not self.low < self.high:
            scaled = np.zeros(part.shape, dtype=np.float32)
        else:
            scaled = part.astype(np.float32)
            if (self.low, self.high) != (0.0, 1.0):
                scaled -= np.float32(self.low)
                scaled /= np.float32(self.high - self.low)
            if self.clipped:
                scaled.clip(0.0, 1.0, out=scaled)
        if (self.mean, self.std) != (0.0, 1.0):
            scaled -= np.float32(self.mean)
            scaled /= np.float32(self.std)
        return scaled


def find_scale(channel: npt.NDArray[np.generic], preprocessing: Preprocessing) -> IntensityScale:
    """Find the scale of a channel by the contract saved with a model.

    Padding has the value of the lowest intensity kept (air in CT); without such a bound, the lowest
    of the channel.
    """
    mean, std = preprocessing.mean, preprocessing.std
    match preprocessing.intensity:
        case "window":
            assert preprocessing.window is not None
            low, high = preprocessing.window
        case "percentiles":
            low, high = np.percentile(_sample(channel), preprocessing.percentiles or ()).tolist()
        case "zscore":
            sample = _sample(channel)
            low, spread = float(sample.mean()), float(sample.std())
            high = low + spread
        case "none":
            low, high = 0.0, 1.0
    clipped = preprocessing.intensity in ("window", "percentiles")
    scale = IntensityScale(low, high, clipped=clipped, mean=mean, std=std, lowest=-mean / std)
    if clipped:
        return scale
    lowest = float(scale.apply(np.asarray(channel.min()))[()])
    return IntensityScale(low, high, clipped=clipped, mean=mean, std=std, lowest=lowest)


def _sample(channel: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Take evenly spread voxels of a large channel, all of a small one."""
    step = int(np.ceil((channel.size / _MOST_SAMPLED) ** (1 / 3)))
    return channel[::step, ::step, ::step].astype(np.float64)
