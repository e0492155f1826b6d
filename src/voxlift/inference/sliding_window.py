"""Run a network over an image of any size, window by window, in memory that the window bounds.

Windows lie on a regular grid and overlap. Each window's probabilities count by a Gaussian about its
middle, where a network sees most context, and are averaged where windows meet. Because the grid is
regular and the Gaussian a product over the axes, the weights of all windows at a voxel add up to a
product as well: three vectors stand for the sum over the whole image. (MONAI raises weights below
0.001 to that, which is no product; otherwise the weights are the same.)

Windows are taken from the first slice to the last. Sums are held in a slab as deep as one window;
a slice that no later window reaches is divided by its weights, given out and forgotten.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor

from voxlift.core.errors import VoxliftError
from voxlift.core.types import AXES, Triple
from voxlift.data.prepared_image import Region
from voxlift.data.preprocess import NetworkInput
from voxlift.inference.scratch import scratch_array

Network = Callable[[Tensor], Tensor]
"""Gives logits: `(batch, channels, *size)` -> `(batch, outputs, *size)`."""

SliceProbabilities = Float32[np.ndarray, "outputs height width"]

# Standard deviation of the Gaussian, in edges of the window.
_SIGMA = 1 / 8
# A slab up to this size is held in memory, a larger one in a file.
_MAX_SLAB_BYTES = 2**30


class WindowSettings(BaseModel):
    """How windows lie over an image.

    Args:
        size_voxels: Size of a window, that of the patches in training.
        overlap: Share of a window's edge that it shares with the next one, at least.
        step_voxels: Voxels from a window to the next, at most, in place of `overlap`; no voxel is
            left out where a window is shorter than that.
        batch_size: Windows that the network sees at once.
        mirror_axes: Axes (0 depth, 1 height, 2 width) along which each window is mirrored as well;
            the answers of all combinations are averaged, so n axes take 2^n times as long.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_voxels: tuple[PositiveInt, PositiveInt, PositiveInt]
    overlap: float = Field(default=0.5, ge=0, lt=1)
    step_voxels: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    batch_size: PositiveInt = 1
    mirror_axes: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check_axes(self) -> Self:
        if len(set(self.mirror_axes)) != len(self.mirror_axes) or not set(self.mirror_axes) <= {
            *range(len(AXES))
        }:
            raise ValueError(
                f"mirror_axes are {self.mirror_axes}; expected some of 0 (depth), 1 (height) and "
                "2 (width), each once."
            )
        return self

    @property
    def steps(self) -> Triple:
        """Voxels from a window to the next along each axis, at most; never more than a window."""
        by_overlap = [max(int(edge * (1 - self.overlap)), 1) for edge in self.size_voxels]
        depth, height, width = map(min, self.step_voxels or by_overlap, self.size_voxels)
        return depth, height, width


def window_starts(size_voxels: int, window_voxels: int, step_voxels: int) -> list[int]:
    """Place windows along one axis: as few as overlap enough, evenly, the last one at the end.

    Args:
        size_voxels: Length of the image; one that is shorter than the window has one window.
        window_voxels: Length of the window.
        step_voxels: Longest way from a window to the next.
    """
    span = max(size_voxels - window_voxels, 0)
    num_steps = -(-span // step_voxels)
    return [round(span * number / max(num_steps, 1)) for number in range(num_steps + 1)]


def count_windows(size_voxels: Triple, settings: WindowSettings) -> int:
    """Count the windows that `predict_windows` runs over an image of this size."""
    return len(_place(size_voxels, settings))


def predict_windows(
    network: Network | Sequence[Network],
    read: Callable[[Region], NetworkInput],
    *,
    size_voxels: Triple,
    num_outputs: int,
    settings: WindowSettings,
    overlapping: bool,
    padding: Sequence[float],
    device: torch.device | str = "cpu",
    out: npt.NDArray[np.floating] | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    scratch: Path | None = None,
    on_window: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.floating]:
    """Compute the probabilities of every voxel of an image and hold them in one array.

    Args:
        network: See `predict_slices`, as for all arguments but `out`.
        read: Reads a part of the image.
        size_voxels: Size of the image.
        num_outputs: Channels of the network's output.
        settings: Size and overlap of windows and the like.
        overlapping: Outputs are regions instead of classes.
        padding: What the margin of a small image has, in each channel.
        device: Where the network is.
        out: Where the probabilities go, such as a memory-mapped file; without it, a new array of
            16-bit floats.
        autocast: Makes the context in which the network is run.
        scratch: Folder for sums that are too large for the memory.
        on_window: Called after each window with how many are done and how many there are.

    Returns:
        `out`, or the new array.

    Shape:
        `(outputs, *size_voxels)`.

    Raises:
        VoxliftError: If the network's answer is not finite.
    """
    if out is None:
        out = np.empty((num_outputs, *size_voxels), dtype=np.float16)
    assert out.shape == (num_outputs, *size_voxels)
    slices = predict_slices(
        network,
        read,
        size_voxels=size_voxels,
        num_outputs=num_outputs,
        settings=settings,
        overlapping=overlapping,
        padding=padding,
        device=device,
        autocast=autocast,
        scratch=scratch,
        on_window=on_window,
    )
    for number, probabilities in enumerate(slices):
        out[:, number] = probabilities
    return out


def predict_slices(
    network: Network | Sequence[Network],
    read: Callable[[Region], NetworkInput],
    *,
    size_voxels: Triple,
    num_outputs: int,
    settings: WindowSettings,
    overlapping: bool,
    padding: Sequence[float],
    device: torch.device | str = "cpu",
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    scratch: Path | None = None,
    on_window: Callable[[int, int], None] | None = None,
) -> Iterator[SliceProbabilities]:
    """Compute the probabilities of an image, slice after slice.

    An image that is smaller than the window is padded on both sides, and the margin cut off again.

    Args:
        network: In evaluation mode; of several, the probabilities are averaged.
        read: Reads a part of the image, which never reaches beyond it.
        size_voxels: Size of the image.
        num_outputs: Channels of the network's output.
        settings: Size and overlap of windows and the like.
        overlapping: Outputs are regions, each with a probability of its own (sigmoid), instead of
            classes that exclude each other (softmax).
        padding: What the margin of a small image has, in each channel.
        device: Where the network is.
        autocast: Makes the context in which the network is run, such as one of mixed precision.
        scratch: Folder for sums that are too large for the memory (see `slab_bytes`); by default
            that of temporary files.
        on_window: Called after each window with how many are done and how many there are.

    Yields:
        The probabilities of each slice, from the first to the last.

    Raises:
        VoxliftError: If the network's answer is not finite.
    """
    networks = tuple(network) if isinstance(network, Sequence) else (network,)
    gaussians = [_gaussian(edge) for edge in settings.size_voxels]
    weight = torch.from_numpy(np.einsum("d,h,w->dhw", *gaussians)).to(device)
    source = _PaddedSource(read, size_voxels, settings.size_voxels, padding)
    starts = _place(size_voxels, settings)
    done = 0
    with _slab(num_outputs, size_voxels, settings, scratch) as sums:
        blend = _Blend(sums, source, starts, gaussians)
        for batch in _batches(starts, settings.batch_size):
            volumes = torch.from_numpy(np.stack([source.read_window(start) for start in batch]))
            with torch.inference_mode(), autocast():
                answers = _answer(
                    networks, volumes.to(device), settings.mirror_axes, overlapping=overlapping
                )
                weighted = answers.mul_(weight).cpu().numpy()
            for start, answer in zip(batch, weighted, strict=True):
                yield from blend.finish(start[0])
                blend.add(start, answer)
                done += 1
                if on_window is not None:
                    on_window(done, len(starts))
        yield from blend.finish(source.padded_voxels[0])


def slab_bytes(size_voxels: Triple, num_outputs: int, settings: WindowSettings) -> int:
    """Say how much disk space `predict_slices` takes for its sums; 0 if they fit into memory."""
    num_bytes = math.prod(_slab_shape(size_voxels, num_outputs, settings)) * 4
    return num_bytes if num_bytes > _MAX_SLAB_BYTES else 0


def _gaussian(edge: int) -> Float32[np.ndarray, " edge"]:
    places = np.arange(edge) - (edge - 1) / 2
    gaussian: npt.NDArray[np.float32] = np.exp(-(places**2) / (2 * (edge * _SIGMA) ** 2)).astype(
        np.float32
    )
    return gaussian


def _place(size_voxels: Triple, settings: WindowSettings) -> list[Triple]:
    """List where windows start, by depth first."""
    along = [
        window_starts(size, window, step)
        for size, window, step in zip(
            size_voxels, settings.size_voxels, settings.steps, strict=True
        )
    ]
    return [(depth, height, width) for depth, height, width in itertools.product(*along)]


def _batches(starts: Sequence[Triple], size: int) -> Iterator[Sequence[Triple]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]


def _slab_shape(
    size_voxels: Triple, num_outputs: int, settings: WindowSettings
) -> tuple[int, int, int, int]:
    depth, height, width = settings.size_voxels
    return num_outputs, depth, max(size_voxels[1], height), max(size_voxels[2], width)


@contextmanager
def _slab(
    num_outputs: int, size_voxels: Triple, settings: WindowSettings, scratch: Path | None
) -> Iterator[npt.NDArray[np.float32]]:
    """Hold the sums of one window's depth, in memory or, if they are large, in a file."""
    shape = _slab_shape(size_voxels, num_outputs, settings)
    if slab_bytes(size_voxels, num_outputs, settings):
        yield scratch_array(shape, np.dtype(np.float32), folder=scratch)
    else:
        yield np.zeros(shape, dtype=np.float32)


def _answer(
    networks: Sequence[Network], volumes: Tensor, mirror_axes: Sequence[int], *, overlapping: bool
) -> Tensor:
    """Average the probabilities of all networks and all mirrorings."""
    total: Tensor | None = None
    ways = [
        [axis + 2 for axis in axes]
        for count in range(len(mirror_axes) + 1)
        for axes in itertools.combinations(mirror_axes, count)
    ]
    for axes in ways:
        for network in networks:
            logits = network(volumes.flip(axes)).float()
            part = (logits.sigmoid() if overlapping else logits.softmax(1)).flip(axes)
            total = part if total is None else total.add_(part)
    assert total is not None
    return total.div_(len(ways) * len(networks))


class _PaddedSource:
    """An image with a margin about it, so that it is nowhere smaller than the window."""

    def __init__(
        self,
        read: Callable[[Region], NetworkInput],
        size_voxels: Triple,
        window_voxels: Triple,
        padding: Sequence[float],
    ) -> None:
        self.read = read
        self.size_voxels = size_voxels
        self.window_voxels = window_voxels
        self.padding = padding
        sides = list(zip(size_voxels, window_voxels, strict=True))
        self.padded_voxels = tuple(max(size, window) for size, window in sides)
        self.before = tuple(max(window - size, 0) // 2 for size, window in sides)

    def read_window(self, start: Triple) -> NetworkInput:
        """Read one window; `start` counts from the corner of the margin."""
        inside, target = [], []
        for first, edge, before, size in zip(
            start, self.window_voxels, self.before, self.size_voxels, strict=True
        ):
            low, high = max(first - before, 0), min(first - before + edge, size)
            inside.append(slice(low, high))
            target.append(slice(low - first + before, high - first + before))
        part = self.read((inside[0], inside[1], inside[2]))
        if part.shape[1:] == self.window_voxels:
            return part
        whole = np.empty((len(part), *self.window_voxels), dtype=np.float32)
        whole[:] = np.asarray(self.padding, dtype=np.float32).reshape(-1, 1, 1, 1)
        whole[:, *target] = part
        return whole


class _Blend:
    """Weighted sums of the slices that windows still reach; slice z lies at z modulo the depth."""

    def __init__(
        self,
        sums: npt.NDArray[np.float32],
        source: _PaddedSource,
        starts: Sequence[Triple],
        gaussians: Sequence[npt.NDArray[np.float32]],
    ) -> None:
        self.sums = sums
        self.finished = 0
        depth, height, width = (
            _total_weight(size, gaussian, sorted({start[axis] for start in starts}))
            for axis, (size, gaussian) in enumerate(
                zip(source.padded_voxels, gaussians, strict=True)
            )
        )
        self.depth_weight = depth
        self.plane_weight = np.outer(height, width)
        pairs = zip(source.before, source.size_voxels, strict=True)
        self.inside = [slice(before, before + size) for before, size in pairs]

    def add(self, start: Triple, answer: npt.NDArray[np.float32]) -> None:
        """Add a weighted window that begins at a slice which is not finished."""
        _, depth, height, width = answer.shape
        plane = (slice(start[1], start[1] + height), slice(start[2], start[2] + width))
        turn = start[0] % depth
        # The slab is a ring: what goes beyond its end goes on at its beginning.
        self.sums[:, turn:, *plane] += answer[:, : depth - turn]
        self.sums[:, :turn, *plane] += answer[:, depth - turn :]

    def finish(self, end: int) -> Iterator[SliceProbabilities]:
        """Give out all slices before `end`, which no further window reaches."""
        depth, height, width = self.inside
        for number in range(self.finished, end):
            total = self.sums[:, number % self.sums.shape[1]]
            if depth.start <= number < depth.stop:
                weight = self.plane_weight[height, width] * self.depth_weight[number]
                probabilities = total[:, height, width] / weight
                if not np.isfinite(probabilities).all():
                    raise VoxliftError(
                        f"The network's answer in slice {number - depth.start} is NaN or infinite. "
                        "If it ran in mixed precision, run it in fp32; otherwise its weights are "
                        "broken."
                    )
                yield probabilities
            total[:] = 0
        self.finished = max(self.finished, end)


def _total_weight(
    size: int, gaussian: npt.NDArray[np.float32], starts: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Add up the weights of all windows along one axis."""
    total = np.zeros(size, dtype=np.float32)
    for start in starts:
        total[start : start + len(gaussian)] += gaussian
    return total
