"""Labelled volumes: where each is, its class, whom it belongs to and which split it is in."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Int64

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.types import Triple
from voxlift.data.npz import NamedArray
from voxlift.data.splits import SPLITS, Fractions, check_groups, split_cases
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume

Place = Path | NamedArray | npt.NDArray[Any]
"""Where a volume is: a file or DICOM folder, an array in a file, or an array in memory."""


@dataclass(frozen=True, eq=False)
class ClassificationCase:
    """One labelled volume.

    Attributes:
        id: What logs, errors and tables call it; unique in its data set.
        image: Where the volume is.
        label: Number of its class.
        group: What it must not be separated from, as a rule its patient. Never shown: it may name
            the patient.
        split: `train`, `val`, `test`, or None where the data set has no splits.
        mask: Where the mask of the finding is, if there is one.
        spacing_mm: Voxel size of an array, which does not tell its own.
    """

    id: str
    image: Place = field(repr=False)
    label: int
    group: str = field(repr=False)
    split: str | None = None
    mask: Place | None = field(default=None, repr=False)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def path(self) -> Path | None:
        """The file or folder that the volume is in; None for an array in memory."""
        if isinstance(self.image, NamedArray):
            return self.image.path
        return self.image if isinstance(self.image, Path) else None


@dataclass(frozen=True, eq=False)
class ClassificationCases:
    """A data set for classification.

    Attributes:
        cases: The labelled volumes.
        class_names: What the class numbers stand for.
        origin: What the data set was opened from.

    Raises:
        DataError: If there are fewer than two classes with cases, or two cases have the same id.
    """

    cases: tuple[ClassificationCase, ...] = field(repr=False)
    class_names: tuple[str, ...]
    origin: str

    def __post_init__(self) -> None:
        found = {case.label for case in self.cases}
        if not found <= set(range(len(self.class_names))):
            raise ConfigError(
                f"{self.origin}: labels {found} exceed {len(self.class_names)} names."
            )
        if len(found) < 2:
            names = ", ".join(self.class_names[label] for label in found) or "none"
            raise DataError(
                f"{self.origin}: {len(self.cases)} case(s) of one class only ({names}). To learn "
                "to tell classes apart, give cases of two or more."
            )
        if len({case.id for case in self.cases}) < len(self.cases):
            raise DataError(f"{self.origin}: two cases have the same id. Give each its own.")

    @classmethod
    def from_arrays(
        cls,
        volumes: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
        labels: npt.ArrayLike,
        *,
        class_names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        splits: Sequence[str | None] | None = None,
        masks: Sequence[npt.NDArray[Any]] | npt.NDArray[Any] | None = None,
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        origin: str = "arrays",
    ) -> "ClassificationCases":
        """Make a data set of arrays in memory.

        Args:
            volumes: Arrays (depth, height, width).
            labels: Class numbers from 0.
            class_names: Names of the classes; their numbers by default.
            groups: What must not be separated; by default each volume stands for itself.
            splits: The split of each volume, if there are any.
            masks: Masks of the findings.
            spacing_mm: Voxel size of all volumes.
            origin: What errors and logs call the data set.

        Raises:
            DataError: If the numbers of volumes, labels, groups, splits or masks differ, or there
                is one class only.
        """
        numbers = np.asarray(labels).ravel()
        if numbers.dtype.kind not in "iub":
            raise DataError(f"{origin}: labels are {numbers.dtype}; expected whole numbers from 0.")
        given = {"volumes": volumes, "groups": groups, "splits": splits, "masks": masks}
        for name, values in given.items():
            if values is not None and len(values) != len(numbers):
                raise DataError(
                    f"{origin}: there are {len(numbers)} labels, but {len(values)} {name}. "
                    "Give one each."
                )
        names = class_names or [str(c) for c in range(int(numbers.max(initial=0)) + 1)]
        return cls(
            cases=tuple(
                ClassificationCase(
                    id=f"{index:05d}",
                    image=volumes[index],
                    label=int(label),
                    group=groups[index] if groups is not None else str(index),
                    split=splits[index] if splits is not None else None,
                    mask=masks[index] if masks is not None else None,
                    spacing_mm=spacing_mm,
                )
                for index, label in enumerate(numbers)
            ),
            class_names=tuple(names),
            origin=origin,
        )

    def __len__(self) -> int:
        """Count the cases."""
        return len(self.cases)

    @cached_property
    def labels(self) -> Int64[np.ndarray, "cases"]:
        """The class number of each case."""
        return np.array([case.label for case in self.cases], dtype=np.int64)

    @property
    def groups(self) -> tuple[str, ...]:
        """What each case must not be separated from."""
        return tuple(case.group for case in self.cases)

    @property
    def splits(self) -> tuple[str | None, ...]:
        """The split of each case."""
        return tuple(case.split for case in self.cases)

    @property
    def has_masks(self) -> bool:
        """Whether every case has a mask."""
        return all(case.mask is not None for case in self.cases)

    def indices(self, split: str) -> Int64[np.ndarray, "chosen"]:
        """Return the positions of the cases of one split."""
        if split not in SPLITS:
            raise ConfigError(f"There is no split '{split}'; known are {', '.join(SPLITS)}.")
        return np.array([i for i, case in enumerate(self.cases) if case.split == split], np.int64)

    def read_volume(self, index: int) -> Volume:
        """Read the volume of one case.

        Raises:
            DataError: If it cannot be read as one.
        """
        case = self.cases[index]
        return _read(case.image, case=case)

    def read_mask(
        self, index: int, *, size_voxels: Triple | None = None
    ) -> Bool[np.ndarray, "depth height width"]:
        """Read the mask of one case.

        Args:
            index: Position of the case.
            size_voxels: Size of its volume, if it has been read already.

        Raises:
            DataError: If there is none, or its size is not that of the volume.
        """
        case = self.cases[index]
        if case.mask is None:
            raise DataError(f"{self.origin}: case {case.id} has no mask.")
        mask: npt.NDArray[np.bool_] = _read(case.mask, case=case).array > 0
        size = size_voxels or self.read_volume(index).size_voxels
        if mask.shape != size:
            raise DataError(
                f"{self.origin}: the mask of case {case.id} has the size {mask.shape}, its volume "
                f"{size}. Give the mask that belongs to the volume."
            )
        return mask

    def class_weights(self, indices: npt.NDArray[np.int64]) -> Float32[np.ndarray, "classes"]:
        """Weigh classes inversely to their frequency among some cases, 1 on average over cases.

        Raises:
            DataError: If a class has no case among them.
        """
        counts = np.bincount(self.labels[indices], minlength=len(self.class_names))
        for c in np.flatnonzero(counts == 0):
            raise DataError(
                f"{self.origin}: class '{self.class_names[c]}' has no case among the "
                f"{len(indices)} chosen, so that it cannot be given a weight."
            )
        return (len(indices) / (len(counts) * counts)).astype(np.float32)

    def with_splits(
        self, *, fractions: Fractions = (0.7, 0.15, 0.15), seed: int
    ) -> "ClassificationCases":
        """Complete the splits: existing ones are kept, missing ones made; see `split_cases`.

        Raises:
            DataError: If a class has too few groups, or the existing splits cannot be used.
        """
        try:
            splits = split_cases(
                self.labels,
                self.groups,
                fractions=fractions,
                seed=seed,
                existing=self.splits,
                class_names=self.class_names,
            )
        except DataError as error:
            raise DataError(f"{self.origin}: {error}") from error
        check_groups(splits, self.groups)
        pairs = zip(self.cases, splits, strict=True)
        return replace(self, cases=tuple(replace(case, split=split) for case, split in pairs))

    def describe(self) -> str:
        """Say in one line how many cases, classes, groups and splits there are."""
        classes = ", ".join(
            f"{name} {count}"
            for name, count in zip(
                self.class_names,
                np.bincount(self.labels, minlength=len(self.class_names)),
                strict=True,
            )
        )
        text = f"{len(self)} cases ({classes}) in {len(set(self.groups))} groups"
        if any(self.splits):
            text += "; " + ", ".join(f"{split} {len(self.indices(split))}" for split in SPLITS)
        return text


def _read(place: Place, *, case: ClassificationCase) -> Volume:
    if isinstance(place, Path):
        return read_volume(place)
    try:
        if isinstance(place, NamedArray):
            return place.read_volume()
        volume = Volume(array=place, spacing_mm=case.spacing_mm)
        volume.check_finite()
    except DataError as error:
        raise DataError(f"Case {case.id}: {error}") from error
    return volume
