"""What the numbers in a mask mean, from the file to the network's outputs and back.

Three kinds of numbers meet in segmentation: the values that stand in a file (0, 1, 7, ...), the
class numbers 0, 1, 2, ... in their order, and the outputs of a network. With exclusive classes an
output is a class; with overlapping regions (tumour core within whole tumour) it is a region, which
is a set of classes.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field, model_validator

from voxlift.core.errors import DataError

IGNORED = 255
"""Class number of voxels that nobody labelled: neither learnt from nor judged."""

MAX_CLASSES = 255
BACKGROUND = "background"


class Region(BaseModel):
    """A set of classes that a network finds as one, such as `whole tumour`.

    Args:
        name: What the region is called.
        members: Class numbers that belong to it.
        value: What stands in a written mask where this region is painted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    members: tuple[int, ...] = Field(min_length=1)
    value: int = Field(ge=1, le=65535)


class LabelScheme(BaseModel):
    """The classes of a segmentation; saved with the model, so that every output bears its name.

    Args:
        names: Name of each class; the first is the background.
        values: The number that stands for each class in mask files.
        ignore_value: The number in mask files of voxels that nobody labelled; None if there is
            none such.
        regions: Overlapping regions that the network finds instead of the classes, in the order in
            which they are painted into a mask (the larger ones first); empty for exclusive classes.

    Raises:
        ValueError: If names and values do not belong together, or a region has no such class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    values: tuple[int, ...]
    ignore_value: int | None = None
    regions: tuple[Region, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.names) != len(self.values):
            raise ValueError(f"there are {len(self.names)} names and {len(self.values)} values.")
        for what, entries in (("names", self.names), ("values", self.values)):
            if len(set(entries)) != len(entries):
                raise ValueError(f"{what} are {entries}, but each may be there once only.")
        if any(not 0 <= value <= 65535 for value in self.values):
            raise ValueError(f"values are {self.values}, but masks hold 0 to 65535.")
        if self.ignore_value in self.values:
            raise ValueError(f"the value {self.ignore_value} is a class and ignored as well.")
        for region in self.regions:
            if not set(region.members) <= set(range(1, len(self.names))):
                raise ValueError(
                    f"region '{region.name}' has the members {region.members}, but the classes "
                    f"besides the background are 1 to {len(self.names) - 1}."
                )
        return self

    @classmethod
    def of_values(cls, values: Sequence[int], *, ignore_value: int | None = None) -> "LabelScheme":
        """Name classes by the values found in masks, the lowest being the background."""
        found = sorted(set(values) - {ignore_value})
        names = (BACKGROUND, *(f"class {value}" for value in found[1:]))
        return cls(names=names, values=tuple(found), ignore_value=ignore_value)

    @property
    def is_overlapping(self) -> bool:
        """Whether the network finds regions, each by a yes or no of its own."""
        return bool(self.regions)

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output: classes with the background, or regions."""
        return len(self.regions) or len(self.names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each channel of the network's output."""
        return tuple(region.name for region in self.regions) or self.names

    @property
    def structures(self) -> tuple[str, ...]:
        """What is found and judged: the outputs without the background."""
        return self.output_names if self.is_overlapping else self.names[1:]

    def encode(self, mask: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        """Turn the values of a mask file into class numbers; ignored voxels become `IGNORED`.

        Raises:
            DataError: If a value is no whole number, or belongs to no class.
        """
        found = np.unique(mask)
        whole = found.astype(np.int64)
        if found.dtype.kind == "f" and not np.array_equal(whole, found):
            broken = found[whole != found]
            raise DataError(
                f"the mask holds values that are no whole numbers, such as {broken[0]:g}. A mask "
                "holds one class number a voxel; was it resampled, or is it a probability map? "
                "Round it, or save it again."
            )
        table = {value: number for number, value in enumerate(self.values)}
        if self.ignore_value is not None:
            table[self.ignore_value] = IGNORED
        unknown = [int(value) for value in whole if int(value) not in table]
        if unknown:
            known = ", ".join(f"{v} {n}" for v, n in zip(self.values, self.names, strict=True))
            raise DataError(
                f"the mask holds {', '.join(map(str, unknown[:5]))}, which is no class of this "
                f"data set ({known}). Correct the mask, or name the class."
            )
        numbers = np.array([table[int(value)] for value in whole], dtype=np.uint8)
        encoded: npt.NDArray[np.uint8] = numbers[np.searchsorted(found, mask)]
        return encoded

    def members(self) -> Bool[np.ndarray, "outputs classes"]:
        """Tell which classes belong to each output."""
        if not self.is_overlapping:
            return np.eye(len(self.names), dtype=bool)
        table = np.zeros((len(self.regions), len(self.names)), dtype=bool)
        for row, region in zip(table, self.regions, strict=True):
            row[list(region.members)] = True
        return table

    def structure_masks(self, classes: npt.NDArray[np.uint8]) -> Bool[np.ndarray, "structures ..."]:
        """Make one mask for each structure of an array of class numbers; ignored ones are in none.

        Shape:
            `(...)` -> `(structures, ...)`.
        """
        table = np.zeros((self.num_outputs, IGNORED + 1), dtype=bool)
        table[:, : len(self.names)] = self.members()
        if not self.is_overlapping:
            table = table[1:]
        return table[:, classes]

    def decide(self, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
        """Turn the network's probabilities into the values of a mask file.

        Exclusive classes: the likeliest. Regions: those above one half are painted over each other
        in their order.

        Shape:
            `(outputs, ...)` -> `(...)`.
        """
        if not self.is_overlapping:
            values = np.array(self.values, dtype=np.uint16)
            likeliest: npt.NDArray[np.uint16] = values[probabilities.argmax(axis=0)]
            return likeliest
        mask = np.full(probabilities.shape[1:], self.values[0], dtype=np.uint16)
        for region, probability in zip(self.regions, probabilities, strict=True):
            mask[probability > 0.5] = region.value
        return mask

    def describe(self) -> str:
        """Say in one line which classes there are."""
        text = ", ".join(f"{name} ({v})" for name, v in zip(self.names, self.values, strict=True))
        if self.regions:
            text += "; as regions: " + ", ".join(region.name for region in self.regions)
        if self.ignore_value is not None:
            text += f"; {self.ignore_value} is not labelled"
        return text
