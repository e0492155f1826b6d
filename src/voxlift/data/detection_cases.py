"""Images with boxes: where each is, what is marked in it, whom it belongs to and its split."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Int64

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.splits import SPLITS, Fractions, check_groups, label_fraction, split_cases

Unit = Literal["HU", "0-255"]

ONE_CLASS: dict[Unit, str] = {"HU": "lesion", "0-255": "object"}
"""What all classes together are called where they are taken as one."""

# With fewer groups of images without boxes, splits are not balanced for them.
_FEWEST_GROUPS = 10
_MOST_NAMED = 8


@dataclass(frozen=True, eq=False)
class Boxes:
    """What is marked in one image, in pixels of the stored image.

    Attributes:
        boxes: Corners x1, y1, x2, y2. Pixel i spans i to i + 1, so x2 - x1 is the width.
        labels: Class numbers from 0; the background is no class.
        crowd: Regions to be ignored by training and judgement, as COCO ignores its crowds.

    Raises:
        DataError: If the lengths differ, a box has no area or is not finite, or a label is below 0.
    """

    boxes: Float32[np.ndarray, "boxes 4"]
    labels: Int64[np.ndarray, " boxes"]
    crowd: Bool[np.ndarray, " boxes"]

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or not len(self.labels) == len(self.crowd) == count:
            raise DataError(
                f"{self.boxes.shape} boxes, {len(self.labels)} labels and {len(self.crowd)} marks "
                "of crowds do not belong together; expected (count, 4) and count of each."
            )
        edges = self.boxes[:, 2:] - self.boxes[:, :2]
        if not np.isfinite(self.boxes).all() or (edges <= 0).any() or (self.labels < 0).any():
            raise DataError(
                "A box is not finite, has no area, or its label is below 0. Boxes are x1, y1, x2, "
                "y2 with x1 < x2 and y1 < y2, labels count from 0."
            )

    @classmethod
    def of(
        cls,
        boxes: npt.ArrayLike,
        *,
        labels: npt.ArrayLike | None = None,
        crowd: npt.ArrayLike | None = None,
    ) -> "Boxes":
        """Make boxes of anything array-like; by default of class 0, and no crowds."""
        corners = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        count = len(corners)
        return cls(
            boxes=corners,
            labels=np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64),
            crowd=np.zeros(count, np.bool_) if crowd is None else np.asarray(crowd, np.bool_),
        )

    def __len__(self) -> int:
        """Count the boxes, regions to be ignored among them."""
        return len(self.labels)

    @property
    def edges(self) -> Float32[np.ndarray, "boxes 2"]:
        """Width and height of each box in pixels."""
        edges: npt.NDArray[np.float32] = self.boxes[:, 2:] - self.boxes[:, :2]
        return edges

    def chosen(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Boxes":
        """Return some of the boxes, by a mask or by their positions."""
        return Boxes(self.boxes[rows], self.labels[rows], self.crowd[rows])

    def of_one_class(self) -> "Boxes":
        """Return the same boxes, all of class 0."""
        return replace(self, labels=np.zeros_like(self.labels))


@dataclass(frozen=True, eq=False)
class Slices:
    """The pixels of one image.

    Attributes:
        array: The slices; the key slice is number `num_slices // 2`. A photograph's slices are its
            colour channels.
        unit: What the numbers are.
        spacing_mm: Edge of a pixel within the slices, where it is known.
    """

    array: Float32[np.ndarray, "slices height width"]
    unit: Unit
    spacing_mm: float | None = None


class SliceSource(Protocol):
    """Where the slices of one case come from."""

    @property
    def unit(self) -> Unit:
        """What the numbers are."""
        ...

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        """Read slices about the key slice; see `DetectionCases.read`."""
        ...


@dataclass(frozen=True, eq=False)
class DetectionCase:
    """One image with boxes.

    Attributes:
        id: What logs, errors and tables call it; unique in its data set.
        group: What it must not be separated from, as a rule its patient. Never shown: it may name
            the patient.
        split: `train`, `val`, `test`, or empty where the data set has no splits.
        size: Height and width in pixels; None where only the file tells.
        truth: What is marked.
        source: Where the pixels come from.
        facts: What else is known: `spacing_mm` and `interval_mm` of the slices, and of each box in
            the order of `truth` `lesion_type` (a name or None) and `diameters_mm` (long and short,
            or None).
    """

    id: str
    group: str = field(repr=False)
    split: str
    size: tuple[int, int] | None
    truth: Boxes = field(repr=False)
    source: SliceSource = field(repr=False)
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)


@dataclass(frozen=True, eq=False)
class DetectionCases:
    """A data set for detection.

    Attributes:
        cases: The images with their boxes; some may have none.
        class_names: What the labels stand for, without background.
        origin: What the data set was opened from.

    Raises:
        DataError: If there is no case or no box, a label has no name, or two cases have one id.
    """

    cases: tuple[DetectionCase, ...] = field(repr=False)
    class_names: tuple[str, ...]
    origin: str

    def __post_init__(self) -> None:
        if not self.cases:
            raise DataError(f"{self.origin}: there are no images. Check what --data names.")
        counts = self.box_counts()
        if len(counts) > len(self.class_names):
            raise DataError(
                f"{self.origin}: a box has the label {len(counts) - 1}, but there are "
                f"{len(self.class_names)} class names. Labels count from 0."
            )
        if not counts.sum():
            raise DataError(
                f"{self.origin}: none of the {len(self.cases)} images has a box. "
                "Give annotations with boxes."
            )
        seen: set[str] = set()
        for case in self.cases:
            if case.id in seen:
                raise DataError(f"{self.origin}: the id {case.id} is there twice.")
            seen.add(case.id)

    def __len__(self) -> int:
        """Count the cases."""
        return len(self.cases)

    @property
    def groups(self) -> tuple[str, ...]:
        """What each case must not be separated from."""
        return tuple(case.group for case in self.cases)

    @property
    def unit(self) -> Unit:
        """What the pixels' numbers are."""
        return self.cases[0].source.unit

    def box_counts(self) -> Int64[np.ndarray, " classes"]:
        """Count the boxes of each class; regions to be ignored do not count."""
        labels = [case.truth.labels[~case.truth.crowd] for case in self.cases]
        return np.bincount(np.concatenate(labels), minlength=len(self.class_names)).astype(np.int64)

    def indices(self, split: str, *, with_boxes: bool = False) -> Int64[np.ndarray, " chosen"]:
        """Return the positions of the cases of one split.

        Args:
            split: `train`, `val` or `test`; empty for cases without one.
            with_boxes: Leave out cases without a box that counts.

        Raises:
            ConfigError: If there is no such split.
        """
        if split not in ("", *SPLITS):
            raise ConfigError(f"There is no split '{split}'; known are {', '.join(SPLITS)}.")
        chosen = [
            number
            for number, case in enumerate(self.cases)
            if case.split == split and not (with_boxes and case.truth.crowd.all())
        ]
        return np.array(chosen, dtype=np.int64)

    def share(
        self, indices: Int64[np.ndarray, " cases"], *, fraction: float, seed: int
    ) -> Int64[np.ndarray, " chosen"]:
        """Choose some of the cases, as if only these were labelled; smaller shares are nested."""
        if fraction >= 1:
            return indices
        alike = np.zeros(len(indices), dtype=np.int64)
        groups = [self.cases[index].group for index in indices]
        chosen: Int64[np.ndarray, " chosen"] = indices[
            label_fraction(alike, groups, fraction=fraction, seed=seed)
        ]
        return chosen

    def of_one_class(self) -> "DetectionCases":
        """Return the same cases, all of whose boxes are of one class."""
        cases = tuple(replace(case, truth=case.truth.of_one_class()) for case in self.cases)
        return replace(self, cases=cases, class_names=(ONE_CLASS[self.unit],))

    def read(self, index: int, *, num_slices: int = 3, interval_mm: float | None = None) -> Slices:
        """Read the pixels of one case.

        Args:
            index: Position of the case.
            num_slices: How many slices; a photograph has three.
            interval_mm: Distance of the slices of CT; None takes neighbouring ones as stored.

        Raises:
            DataError: If a file cannot be read.
            ConfigError: If a photograph is asked for other than 3 slices.
        """
        return self.cases[index].source.read(num_slices=num_slices, interval_mm=interval_mm)

    def with_splits(
        self,
        *,
        fractions: Fractions = (0.7, 0.15, 0.15),
        seed: int,
        need_train: bool = True,
    ) -> "DetectionCases":
        """Complete the splits: existing ones are kept, missing ones made; see `split_cases`.

        Images with and without boxes are shared out in proportion where there are enough of both.

        Args:
            fractions: Shares of train, val and test.
            seed: The run's seed.
            need_train: Refuse splits without `train`. Otherwise, where every case has a split but
                none is for training, as in the official file of one split, they stay as they are.

        Raises:
            DataError: If there are too few groups, or the existing splits cannot be used.
        """
        given = {case.split for case in self.cases}
        try:
            if not need_train and given.isdisjoint(("", "train")):
                check_groups([case.split for case in self.cases], self.groups)
                return self
        except DataError as error:
            raise DataError(f"{self.origin}: {error}") from error
        has_boxes = np.array([not case.truth.crowd.all() for case in self.cases], dtype=np.int64)
        # Only what is not in another split yet is shared out.
        few = {
            case.group
            for case, has in zip(self.cases, has_boxes, strict=True)
            if not has and case.split in ("", "train")
        }
        labels = has_boxes if len(few) >= _FEWEST_GROUPS else np.zeros_like(has_boxes)
        try:
            splits = split_cases(
                labels,
                self.groups,
                fractions=fractions,
                seed=seed,
                existing=[case.split or None for case in self.cases],
                class_names=("images without boxes", "images with boxes"),
            )
        except DataError as error:
            raise DataError(f"{self.origin}: {error}") from error
        check_groups(splits, self.groups)
        pairs = zip(self.cases, splits, strict=True)
        return replace(self, cases=tuple(replace(case, split=split) for case, split in pairs))

    def describe(self) -> str:
        """Say in one line how many images, boxes, classes, groups and splits there are."""
        counts = self.box_counts()
        names = [f"{name} {count}" for name, count in zip(self.class_names, counts, strict=True)]
        if len(names) > _MOST_NAMED:
            names = [f"{len(names)} classes"]
        empty = sum(not len(case.truth) for case in self.cases)
        ignored = sum(int(case.truth.crowd.sum()) for case in self.cases)
        text = f"{len(self)} images with {counts.sum()} boxes ({', '.join(names)})"
        text += f" in {len(set(self.groups))} groups; {empty} without boxes"
        if ignored:
            text += f"; {ignored} regions to be ignored"
        if any(case.split for case in self.cases):
            text += "; " + ", ".join(f"{split} {len(self.indices(split))}" for split in SPLITS)
        return text
