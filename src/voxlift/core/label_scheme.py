"""What the numbers in a mask mean, from the file to the network's outputs and back.

Three kinds of numbers meet in segmentation: the values that stand in a file (0, 1, 7, ...), the
class numbers 0, 1, 2, ... in their order, and the outputs of a network. With exclusive classes an
output is a class; with overlapping regions (tumour core within whole tumour) it is a region, which
is a set of classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field, model_validator

from voxlift.core.errors import DataError
from voxlift.core.mask_values import count_values, replace_values

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
    ignore_value: int | None = Field(default=None, ge=-32768, le=65535)
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
        return self

    @model_validator(mode="after")
    def _regions_fit(self) -> Self:
        for region in self.regions:
            if not set(region.members) <= set(range(1, len(self.names))):
                raise ValueError(
                    f"region '{region.name}' has the members {region.members}, but the classes "
                    f"besides the background are 1 to {len(self.names) - 1}."
                )
            if region.value in (self.values[0], self.ignore_value):
                raise ValueError(
                    f"region '{region.name}' is painted as {region.value}, which is the background "
                    "or ignored."
                )
        for what, entries in (
            ("names", [region.name for region in self.regions]),
            ("values", [region.value for region in self.regions]),
        ):
            if len(set(entries)) != len(entries):
                raise ValueError(f"the {what} of the regions are {entries}; each has to differ.")
        return self

    @classmethod
    def of_values(cls, values: Sequence[int], *, ignore_value: int | None = None) -> "LabelScheme":
        """Name classes by the values found in masks, the lowest being the background."""
        found = sorted(set(values) - {ignore_value})
        names = (BACKGROUND, *(f"class {value}" for value in found[1:]))
        return cls(names=names, values=tuple(found), ignore_value=ignore_value)

    def with_regions(self, regions: Mapping[str, Sequence[int]]) -> "LabelScheme":
        """Find overlapping regions instead of the classes.

        Args:
            regions: For the name of each region the values that its classes have in mask files; in
                the order in which they are painted into masks, the larger ones first. Each is
                painted as the first of its values that no region after it has, so that nested
                regions give the classes back.

        Raises:
            DataError: If a region has no such class, or could not be seen in a painted mask.
        """
        names = list(regions)
        made: list[Region] = []
        for position, (name, values) in enumerate(regions.items()):
            unknown = [value for value in values if value not in self.values[1:]]
            if unknown or not values:
                raise DataError(
                    f"The region '{name}' is of the values {', '.join(map(str, values)) or 'none'}"
                    f"; expected some of {', '.join(map(str, self.values[1:]))}."
                )
            later = {value for other in names[position + 1 :] for value in regions[other]}
            taken = {region.value for region in made}
            own = [value for value in values if value not in later | taken]
            if not own:
                raise DataError(
                    f"The region '{name}' holds nothing that the regions after it do not, so that "
                    "they would paint over it in a mask. Name the larger regions first."
                )
            members = tuple(sorted(self.values.index(value) for value in set(values)))
            made.append(Region(name=name, members=members, value=own[0]))
        return self.model_validate({**self.model_dump(), "regions": tuple(made)})

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
        numbers = {value: number for number, value in enumerate(self.values)}
        if self.ignore_value is not None:
            numbers[self.ignore_value] = IGNORED
        self.check_values(count_values(mask))
        return replace_values(mask, numbers)

    def check_values(self, found: Iterable[int]) -> None:
        """Refuse values of a mask that belong to no class.

        Raises:
            DataError: If there is one.
        """
        unknown = sorted(set(found) - {*self.values, self.ignore_value})
        if unknown:
            known = ", ".join(f"{v} {n}" for v, n in zip(self.values, self.names, strict=True))
            more = f" and {len(unknown) - 5} other values" if len(unknown) > 5 else ""
            raise DataError(
                f"the mask holds {', '.join(map(str, unknown[:5]))}{more}, which is no class of "
                f"this data set ({known}). Correct the mask, or name the class."
            )

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

    def structures_of(
        self, probabilities: npt.NDArray[np.floating]
    ) -> Bool[np.ndarray, "structures ..."]:
        """Turn the network's probabilities into one mask for each structure.

        Shape:
            `(outputs, ...)` -> `(structures, ...)`.
        """
        if self.is_overlapping:
            return probabilities > 0.5
        return self.structure_masks(probabilities.argmax(axis=0).astype(np.uint8))

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
