"""Which structures each voxel belongs to, decided slice by slice and held in little memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool

from voxlift.core.label_scheme import LabelScheme
from voxlift.core.types import Triple
from voxlift.inference.largest_component import outside_largest_component
from voxlift.inference.sliding_window import SliceProbabilities

Layer = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, eq=False)
class DecidedMask:
    """The decision for each voxel.

    Exclusive classes are held as the values of the mask file. Of overlapping regions, a voxel may
    belong to several, so each region has a bit of its own.

    Attributes:
        labels: What the structures are.
        layers: One array of values, or one of bits for every eight regions.
    """

    labels: LabelScheme
    layers: tuple[Layer, ...]

    @classmethod
    def of_slices(
        cls, slices: Iterable[SliceProbabilities], *, labels: LabelScheme, size_voxels: Triple
    ) -> "DecidedMask":
        """Decide on slices as they come, from the first to the last."""
        num_layers = -(-labels.num_outputs // 8) if labels.is_overlapping else 1
        dtype = np.uint8 if labels.is_overlapping else _value_dtype(labels)
        layers: tuple[Layer, ...] = tuple(
            np.zeros(size_voxels, dtype=dtype) for _ in range(num_layers)
        )
        for number, probabilities in enumerate(slices):
            if not labels.is_overlapping:
                layers[0][number] = labels.decide(probabilities)
                continue
            bits = np.packbits(labels.structures_of(probabilities), axis=0, bitorder="little")
            for layer, byte in zip(layers, bits, strict=True):
                layer[number] = byte
        return cls(labels, layers)

    def turned(self, turn: Callable[[Layer], Layer]) -> "DecidedMask":
        """Lay the decisions out in another order of axes; they share their memory with these."""
        return DecidedMask(self.labels, tuple(turn(layer) for layer in self.layers))

    def structure(self, number: int, place: int | slice = slice(None)) -> Bool[np.ndarray, "*size"]:
        """Give the mask of one structure, or of a part along the first axis.

        Args:
            number: Position of the structure in `LabelScheme.structures`.
            place: The part.
        """
        if not self.labels.is_overlapping:
            own: npt.NDArray[np.bool_] = self.layers[0][place] == self.labels.values[number + 1]
            return own
        bits: npt.NDArray[np.bool_] = (self.layers[number // 8][place] & _bit(number)) != 0
        return bits

    def keep_largest_components(self) -> None:
        """Take away, in place, all but the largest connected piece of each structure."""
        for number in range(len(self.labels.structures)):
            outside = outside_largest_component(self.structure(number))
            if outside is None:
                continue
            if self.labels.is_overlapping:
                self.layers[number // 8][outside] &= ~_bit(number)
            else:
                self.layers[0][outside] = self.labels.values[0]

    def count_voxels(self) -> tuple[int, ...]:
        """Count the voxels of each structure; what lies in two regions counts in both."""
        return tuple(
            sum(int(self.structure(number, place).sum()) for place in range(len(self.layers[0])))
            for number in range(len(self.labels.structures))
        )

    def paint(self) -> Layer:
        """Make the values of a mask file; later regions are painted over earlier ones."""
        if not self.labels.is_overlapping:
            return self.layers[0]
        mask = np.empty(self.layers[0].shape, dtype=_value_dtype(self.labels))
        numbers = range(len(self.labels.structures))
        for place, plane in enumerate(mask):
            found = np.stack([self.structure(number, place) for number in numbers])
            plane[:] = self.labels.decide(found.astype(np.float32))
        return mask


def _bit(number: int) -> np.uint8:
    return np.uint8(1 << number % 8)


def _value_dtype(labels: LabelScheme) -> type[np.unsignedinteger[Any]]:
    highest = max(*labels.values, *(region.value for region in labels.regions))
    return np.uint8 if highest <= 255 else np.uint16
