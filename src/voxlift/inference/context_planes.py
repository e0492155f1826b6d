"""Feature maps of key slices in a volume: one window after the other, or from one long slab."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxlift.core.errors import ConfigError
from voxlift.data.volume import Volume
from voxlift.inference.context_slices import (
    ContextSlices,
    Places,
    context_places,
    fed_size,
    slice_step,
)
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.detector import Detector
from voxlift.nets.feature_pyramid import pad_volumes
from voxlift.nets.slice_encoder import SliceEncoder

# Of a slab, so many slices are in memory at once; more would save little, for of two pieces that
# follow each other only the slices of one window are computed twice.
_PIECE_SLICES = 32


@dataclass(frozen=True, eq=False)
class KeySlicePlanes:
    """What a backbone makes of some key slices.

    Attributes:
        positions: Of each key slice along depth, in voxels of the volume.
        planes: A feature map of each of its stages, `(key slices, channels, height, width)`.
    """

    positions: tuple[float, ...]
    planes: list[Tensor]


@dataclass(frozen=True, eq=False)
class ContextReader:
    """Feeds a volume to a detector's backbone.

    Attributes:
        model: The detector as it is saved.
        detector: Its network.
        volume: In the orientation of the model's training.
        batch_size: Key slices that are computed at once.
    """

    model: SavedModel
    detector: Detector
    volume: Volume
    batch_size: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the slices as they are fed."""
        return fed_size(self.volume, self.model.detection)

    def count(self, *, fast_context: bool) -> int:
        """Count the key slices."""
        depth = self.volume.size_voxels[0]
        return len(self._slab_keys()) if fast_context else depth

    def of_windows(self) -> Iterator[KeySlicePlanes]:
        """Compute the window of every slice of the volume on its own.

        Where the stem's convolution sees one slice at a time, its result is shared among the
        windows: the norm behind it is the first that sees a window as a whole.
        """
        backbone: nn.Module = self.detector.backbone
        windows = context_places(self.volume, self.model.detection)
        keys = list(windows)
        first: Callable[[Tensor], Tensor]
        rest: Callable[[Tensor], list[Tensor]]
        if isinstance(backbone, SliceEncoder) and backbone.stem_sees_one_slice:
            first, rest = backbone.convolve_stem, backbone.maps_from_stem
        else:
            first, rest = _as_it_is, backbone
        slices = self._slices(first, list(windows.values()))
        for batch in _parts(keys, self.batch_size):
            planes = rest(slices.stack([windows[key] for key in batch]))
            yield KeySlicePlanes(tuple(float(key) for key in batch), planes)

    def of_slab(self) -> Iterator[KeySlicePlanes]:
        """Compute the slices of a resampled volume once, and only their transforms for each window.

        It differs from `of_windows` in what a convolution sees beyond the ends of a window, there
        zeros and here the next slices, and in what group norms are taken over.

        Raises:
            ConfigError: If the backbone has no group transforms, or pools slices.
        """
        backbone: nn.Module = self.detector.backbone
        if not isinstance(backbone, SliceEncoder):
            raise ConfigError(
                f"{type(backbone).__name__} cannot compute a slab: it has no group transforms. "
                "Leave fast_context out."
            )
        if backbone.pools_slices:
            raise ConfigError(
                f"{backbone.architecture.name} pools the slices of each context, so that contexts "
                "share no maps. Leave fast_context out."
            )
        num_slices = self.model.detection.num_slices
        keys = self._slab_keys()
        # Each piece computes the whole windows of its key slices.
        length = max(_PIECE_SLICES, 2 * num_slices) - num_slices + 1
        pieces = list(_parts(range(len(keys)), length))
        places = [self._slab_places(piece) for piece in pieces]
        first = backbone.convolve_stem if backbone.stem_sees_one_slice else _as_it_is
        slices = self._slices(first, places)
        for piece, where in zip(pieces, places, strict=True):
            stem = slices.stack([where])
            if not backbone.stem_sees_one_slice:
                stem = backbone.convolve_stem(stem)
            volumes = backbone.volumes_from_stem(stem)
            for batch in _parts(piece, self.batch_size):
                starts = [number - piece[0] for number in batch]
                cut = [
                    torch.cat([volume[:, :, start : start + num_slices] for start in starts])
                    for volume in volumes
                ]
                positions = tuple(keys[number] for number in batch)
                yield KeySlicePlanes(positions, backbone.planes(cut))

    def _slices(
        self, compute: Callable[[Tensor], Tensor], windows: Sequence[Places]
    ) -> ContextSlices:
        multiple = math.lcm(*self.detector.strides)
        device = next(self.detector.parameters()).device

        def compute_padded(image: Tensor) -> Tensor:
            return compute(pad_volumes(image.to(device), multiple=multiple).tensors)

        return ContextSlices(
            self.volume,
            preprocessing=self.model.preprocessing,
            size=self.size,
            compute=compute_padded,
            windows=windows,
        )

    @property
    def _step(self) -> float:
        interval_mm = self.model.detection.slice_interval_mm
        assert interval_mm is not None
        return slice_step(self.volume, interval_mm)

    def _slab_keys(self) -> list[float]:
        """Places of the slab's slices, from the volume's first slice on."""
        last = self.volume.size_voxels[0] - 1
        # A last slice that rounding alone has put outside is one too.
        return [
            round(number * self._step, 6) for number in range(int(last / self._step + 1e-6) + 1)
        ]

    def _slab_places(self, piece: Sequence[int]) -> Places:
        """Places of the slices of a piece, with those before and after that its windows reach."""
        num_slices = self.model.detection.num_slices
        last = self.volume.size_voxels[0] - 1
        start = piece[0] - num_slices // 2
        numbers = range(start, start + len(piece) + num_slices - 1)
        return tuple(float(min(max(round(number * self._step, 6), 0), last)) for number in numbers)


def _as_it_is(image: Tensor) -> Tensor:
    return image


def _parts(sequence: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(sequence), length):
        yield sequence[start : start + length]
