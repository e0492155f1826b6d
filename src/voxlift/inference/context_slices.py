"""The slices of a volume as a detector of lesions is fed them, at any place along depth.

Windows about neighbouring key slices have slices in common wherever the distance of their slices
and that of the volume's stand in the proportion of small whole numbers. Such a slice is computed
once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from voxlift.core.detection_settings import DetectionSettings
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.box_augmentation import BoxChange, change_slices, resized
from voxlift.data.intensity import find_scale
from voxlift.data.slice_context import context_positions, interpolate
from voxlift.data.volume import Volume

Places = tuple[float, ...]
"""Where slices lie along depth, in voxels of the volume, none of them outside it."""

_ROUNDING = 1e-6


def fed_size(volume: Volume, settings: DetectionSettings) -> tuple[int, int]:
    """Tell the height and width in which a volume's slices are fed.

    Their pixels are square, as in the images of the training.
    """
    _, height, width = volume.size_voxels
    _, height_mm, width_mm = volume.spacing_mm
    finest_mm = min(height_mm, width_mm)
    square = (
        max(1, round(height * height_mm / finest_mm)),
        max(1, round(width * width_mm / finest_mm)),
    )
    return resized(square, image_size=settings.image_size, max_image_size=settings.max_image_size)


def slice_step(volume: Volume, interval_mm: float) -> float:
    """Tell how many voxels of depth two slices of a context are apart."""
    return interval_mm / volume.spacing_mm[0]


def context_places(volume: Volume, settings: DetectionSettings) -> dict[int, Places]:
    """Tell where the slices of each key slice's context lie.

    Beyond the first and the last slice, that slice repeats. Key slices whose contexts have slices
    in common follow each other as closely as can be.

    Raises:
        DataError: If the distance of the volume's slices is none.
    """
    interval_mm = settings.slice_interval_mm
    assert interval_mm is not None
    offsets = context_positions(
        settings.num_slices, interval_mm=interval_mm, stored_interval_mm=volume.spacing_mm[0]
    )
    depth = volume.size_voxels[0]
    step = slice_step(volume, interval_mm)
    share = Fraction(step).limit_denominator(settings.num_slices)
    # At a step of p/q voxels, only key slices that are p or a multiple of it apart have any in
    # common.
    alike = abs(step - share) * settings.num_slices < _ROUNDING
    period = share.numerator if alike else 1
    order = sorted(range(depth), key=lambda number: (number % period, number))
    return {key: tuple((key + offsets).clip(0, depth - 1).tolist()) for key in order}


class ContextSlices:
    """Something that is computed of single slices, once of each and held while it is needed.

    Args:
        volume: Where the slices come from.
        preprocessing: How the network is fed; of a kind that looks at no other slice.
        size: Height and width that the slices are brought to.
        compute: Makes of a slice `(1, 1, 1, height, width)` what is wanted of it,
            `(1, channels, 1, new height, new width)`.
        windows: The places of every stack that will be taken; a slice is let go when it is in none
            of those to come.
    """

    def __init__(
        self,
        volume: Volume,
        *,
        preprocessing: Preprocessing,
        size: tuple[int, int],
        compute: Callable[[Tensor], Tensor],
        windows: Iterable[Places],
    ) -> None:
        self._array = volume.array
        self._preprocessing = preprocessing
        self._change = BoxChange(size)
        self._compute = compute
        self._uses = Counter(_name(place) for window in windows for place in window)
        self._held: dict[int, Tensor] = {}
        self._buffer: Tensor | None = None

    def stack(self, windows: Sequence[Places]) -> Tensor:
        """Take the slices of some windows, all of as many.

        The result is overwritten by the next call: memory that is new each time costs as much as a
        stem's convolution.

        Shape:
            `(windows, channels, slices, height, width)`.
        """
        taken = [[self._take(place) for place in places] for places in windows]
        channels, *plane = taken[0][0].shape
        shape = (len(taken), channels, len(taken[0]), *plane)
        if self._buffer is None or self._buffer.shape != shape:
            self._buffer = taken[0][0].new_empty(shape)
        for window, slices in zip(self._buffer, taken, strict=True):
            torch.stack(slices, dim=1, out=window)
        return self._buffer

    def _take(self, place: float) -> Tensor:
        name = _name(place)
        if name not in self._held:
            self._held[name] = self._compute(self._read(place))[0, :, 0]
        taken = self._held[name]
        self._uses[name] -= 1
        if self._uses[name] <= 0:
            del self._held[name]
        return taken

    def _read(self, place: float) -> Tensor:
        """Read a slice as the batches of the training do."""
        last = len(self._array) - 1
        stored = interpolate(
            lambda number: self._array[number], np.array([place]), first=0, last=last
        )
        scaled = find_scale(stored, self._preprocessing).apply(stored)
        return change_slices(scaled, self._change)[None, None]


def _name(place: float) -> int:
    """Give places the same name that differ by rounding alone."""
    return round(place / _ROUNDING)
