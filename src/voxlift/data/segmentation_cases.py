"""Volumes with masks: where each is, what the masks mean, whom it belongs to and its split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.case_facts import CaseFacts
from voxlift.data.npz import NamedArray
from voxlift.data.splits import SPLITS, Fractions, check_groups, label_fraction, split_cases
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_channels, read_volume

Place = Path | NamedArray | Volume
"""Where a volume is: a file or DICOM folder, an array in an .npz file, or in memory."""

# In voxels. Files state their places in 32-bit floats, and tools round them.
_PLACE_TOLERANCE = 0.05
_SPACING_TOLERANCE = 1e-3
_DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class SegmentationCase:
    """One volume with its mask.

    Attributes:
        id: What logs, errors, tables and files call it; unique in its data set.
        images: Where the volume is: one place for each channel, or one file with all of them.
        label: Where its mask is.
        group: What it must not be separated from, as a rule its patient. Never shown.
        split: `train`, `val`, `test`, or None where the data set has no splits.
    """

    id: str
    images: tuple[Place, ...] = field(repr=False)
    label: Place = field(repr=False)
    group: str = field(repr=False)
    split: str | None = None

    def read_image(self) -> tuple[Volume, ...]:
        """Read the volume, a `Volume` for each channel, all on one grid.

        Raises:
            DataError: If it cannot be read, or its channels are on different grids.
        """
        channels: list[Volume] = []
        for place in self.images:
            channels += read_channels(place) if isinstance(place, Path) else [_read(place)]
        for number, channel in enumerate(channels[1:], start=1):
            difference = grid_difference(channel, channels[0])
            if difference:
                raise DataError(
                    f"case {self.id}: channel {number} is not on the grid of channel 0: "
                    f"{difference}. Resample it to that grid first."
                )
        return tuple(channels)

    def read_mask(self, *, like: Volume) -> Volume:
        """Read the mask with the values that stand in its file.

        Args:
            like: The volume that it belongs to; both have to be on the same grid.

        Raises:
            DataError: If it cannot be read, or is on another grid.
        """
        mask = read_volume(self.label) if isinstance(self.label, Path) else _read(self.label)
        difference = grid_difference(mask, like)
        if difference:
            raise DataError(
                f"case {self.id}: the mask is not on the grid of its image: {difference}. Give the "
                "mask that belongs to the image, or resample it to the image's grid (nearest "
                "voxel)."
            )
        return mask


@dataclass(frozen=True, eq=False)
class SegmentationCases:
    """A data set for segmentation.

    Attributes:
        cases: The volumes.
        labels: What the numbers in the masks mean.
        channel_names: What each channel is, such as `("T1", "FLAIR")`.
        origin: What errors and logs call the data set.
        facts: What each case looks like; empty until they have been read once, by
            `check_segmentation`.

    Raises:
        DataError: If there is no case, or an id is there twice.
    """

    cases: tuple[SegmentationCase, ...]
    labels: LabelScheme
    channel_names: tuple[str, ...] = ("image",)
    origin: str = "cases"
    facts: tuple[CaseFacts, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_ids(self.cases, self.origin)
        assert len(self.facts) in (0, len(self.cases)), "facts are of each case or of none"

    def __len__(self) -> int:
        """Count the cases."""
        return len(self.cases)

    @property
    def groups(self) -> tuple[str, ...]:
        """What each case must not be separated from."""
        return tuple(case.group for case in self.cases)

    @property
    def splits(self) -> tuple[str | None, ...]:
        """The split of each case."""
        return tuple(case.split for case in self.cases)

    def indices(self, split: str) -> Int64[np.ndarray, " chosen"]:
        """Return the positions of the cases of one split."""
        if split not in SPLITS:
            raise ConfigError(f"There is no split '{split}'; known are {', '.join(SPLITS)}.")
        return np.array([i for i, case in enumerate(self.cases) if case.split == split], np.int64)

    def read_image(self, index: int) -> tuple[Volume, ...]:
        """Read the volume of one case, a `Volume` for each channel, all on one grid.

        Raises:
            DataError: If it cannot be read, has another number of channels than the data set, or
                its channels are on different grids.
        """
        try:
            channels = self.cases[index].read_image()
            check_channels(self.cases[index].id, len(channels), self.channel_names)
        except DataError as error:
            raise located(error, self.origin) from error
        return channels

    def read_label(self, index: int, *, like: Volume) -> Volume:
        """Read the mask of one case as class numbers.

        Args:
            index: Position of the case.
            like: The volume that it belongs to; both have to be on the same grid.

        Raises:
            DataError: If it cannot be read, is on another grid, or holds what is no class.
        """
        case = self.cases[index]
        try:
            mask = case.read_mask(like=like)
        except DataError as error:
            raise located(error, self.origin) from error
        try:
            classes = self.labels.encode(mask.array)
        except DataError as error:
            raise DataError(f"{self.origin}: case {case.id}: {error}") from error
        return replace(like, array=classes)

    def with_named_splits(
        self, *, val: Sequence[str] = (), test: Sequence[str] = ()
    ) -> "SegmentationCases":
        """Put the cases whose ids match a pattern into `val` or `test`, all others into `train`.

        Args:
            val: Patterns as in a shell, such as `*_03?`; without any, `val` is not changed.
            test: Likewise.

        Raises:
            DataError: If a pattern matches no case, or a case is matched for both.
        """
        if not (val or test):
            return self
        chosen: dict[str, str] = {}
        for split, patterns in (("val", val), ("test", test)):
            for pattern in patterns:
                found = [case.id for case in self.cases if fnmatchcase(case.id, pattern)]
                if not found:
                    raise DataError(
                        f"{self.origin}: no case is called {pattern}. Cases are called "
                        f"{', '.join(case.id for case in self.cases[:3])}, ..."
                    )
                for name in found:
                    if chosen.setdefault(name, split) != split:
                        raise DataError(
                            f"{self.origin}: case {name} is named for val and for test. "
                            "Leave it in one of them."
                        )
        return replace(
            self,
            cases=tuple(replace(c, split=chosen.get(c.id, "train")) for c in self.cases),
        )

    def with_splits(self, *, fractions: Fractions, seed: int) -> "SegmentationCases":
        """Complete the splits: existing ones are kept, missing ones made; see `split_cases`.

        Raises:
            DataError: If there are too few cases, or the existing splits cannot be used.
        """
        alike = np.zeros(len(self), dtype=np.int64)
        try:
            splits = split_cases(
                alike, self.groups, fractions=fractions, seed=seed, existing=self.splits
            )
        except DataError as error:
            raise DataError(f"{self.origin}: {error}") from error
        check_groups(splits, self.groups)
        pairs = zip(self.cases, splits, strict=True)
        return replace(self, cases=tuple(replace(case, split=split) for case, split in pairs))

    def share(
        self, indices: Int64[np.ndarray, " cases"], *, fraction: float, seed: int
    ) -> Int64[np.ndarray, " chosen"]:
        """Choose some of the cases, as if only these were labelled; smaller shares are nested."""
        if fraction >= 1:
            return indices
        alike = np.zeros(len(indices), dtype=np.int64)
        groups = [self.groups[index] for index in indices]
        chosen: Int64[np.ndarray, " chosen"] = indices[
            label_fraction(alike, groups, fraction=fraction, seed=seed)
        ]
        return chosen

    def describe(self) -> str:
        """Say in one line how many cases, channels, classes and splits there are."""
        text = (
            f"{len(self)} cases in {len(set(self.groups))} groups; "
            f"channels {', '.join(self.channel_names)}; classes {self.labels.describe()}"
        )
        if any(self.splits):
            text += "; " + ", ".join(f"{split} {len(self.indices(split))}" for split in SPLITS)
        return text


def check_ids(cases: Sequence[SegmentationCase], origin: str) -> None:
    """Refuse a data set without a case, or with two of one name.

    Raises:
        DataError: If it is one.
    """
    if not cases:
        raise DataError(f"{origin}: there is no volume with a mask.")
    twice = [name for name, n in Counter(case.id for case in cases).items() if n > 1]
    if twice:
        raise DataError(f"{origin}: the case {twice[0]} is there twice. Leave one of it.")


def check_channels(case_id: str, found: int, names: Sequence[str]) -> None:
    """Refuse a volume with another number of channels than its data set.

    Raises:
        DataError: If it has.
    """
    if found != len(names):
        raise DataError(
            f"case {case_id} has {found} channel(s), but the data set has {len(names)} "
            f"({', '.join(names)}). Give each case all channels and no other: one file for each, "
            "or one four-dimensional file; a series in time has to be taken apart."
        )


def located(error: DataError, origin: str) -> DataError:
    """Begin an error with the data set, unless the path in it tells that already."""
    return error if origin in str(error) else DataError(f"{origin}: {error}")


def grid_difference(volume: Volume, like: Volume) -> str | None:
    """Say how the grids of two volumes differ, or None if they are the same.

    Tolerances are a twentieth of a voxel in place and a thousandth in spacing and direction.
    """
    if volume.size_voxels != like.size_voxels:
        return f"its size is {volume.size_voxels} voxels, not {like.size_voxels}"
    if not np.allclose(volume.spacing_mm, like.spacing_mm, rtol=_SPACING_TOLERANCE, atol=0):
        return f"its spacing is {_rounded(volume.spacing_mm)} mm, not {_rounded(like.spacing_mm)}"
    if np.abs(volume.direction - like.direction).max() > _DIRECTION_TOLERANCE:
        return (
            f"its direction is {volume.direction.round(4).tolist()}, "
            f"not {like.direction.round(4).tolist()}"
        )
    apart = float(np.linalg.norm(np.subtract(volume.origin_mm, like.origin_mm)))
    if apart > _PLACE_TOLERANCE * min(like.spacing_mm):
        return (
            f"its first voxel is at {_rounded(volume.origin_mm)} mm, not at "
            f"{_rounded(like.origin_mm)}"
        )
    return None


def _read(place: NamedArray | Volume) -> Volume:
    return place.read_volume() if isinstance(place, NamedArray) else place


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)
