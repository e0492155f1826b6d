"""What one number a case would have achieved: the bar that a network has to clear.

In many sets of volumes the classes differ in brightness or in size, and a network that has learned
no more than that is worth no more than the ruler. These baselines say how far that ruler goes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.errors import DataError
from voxlift.metrics.bootstrap import Interval, Number, draw_resamples, interval
from voxlift.metrics.weighted import Floats, Integers, weighted_auroc


@dataclass(frozen=True)
class TrivialFeatures:
    """The numbers of each case that the baselines rank by.

    Attributes:
        labels: Class of each case, from 0 on.
        mean_intensity: Mean of each volume, in the unit it is stored in.
        mask_volume: Size of each mask, where there are masks.
        groups: The patient of each case; each case is its own if left out.
    """

    labels: npt.ArrayLike
    mean_intensity: npt.ArrayLike
    mask_volume: npt.ArrayLike | None = None
    groups: npt.ArrayLike | None = None


class Baseline(BaseModel):
    """How well one number ranks the cases.

    Attributes:
        auroc: Area under the ROC curve on the test cases, averaged over the classes if there are
            more than two.
        train_auroc: The same on the training cases, where the direction was chosen.
        rises_with_class: For two classes one entry: whether more means class 1. For more classes,
            whether more means that class, for each that occurs in training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    auroc: Interval
    train_auroc: Number
    rises_with_class: tuple[bool, ...]


def trivial_baselines(
    test: TrivialFeatures,
    *,
    train: TrivialFeatures,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Baseline]:
    """Rank the test cases by mean intensity, and by mask size where masks are given.

    Whether more or less of it speaks for a class is decided on the training cases, so the AUROC on
    the test cases may come out below one half.

    Args:
        test: The cases to rank.
        train: The cases that decide on the direction.
        num_samples: How many bootstrap resamples to draw.
        confidence: The confidence of the intervals.
        seed: The run's seed.

    Returns:
        The baselines `mean_intensity` and, if both splits have masks, `mask_volume`.

    Raises:
        DataError: If a number is missing or not finite, or training or test hold one class only.
    """
    baselines = {}
    for name in ("mean_intensity", "mask_volume"):
        if getattr(test, name) is None or getattr(train, name) is None:
            continue
        train_values, train_labels = _checked(train, name, split="train")
        values, labels = _checked(test, name, split="test")
        classes = np.intersect1d(train_labels, labels)
        # With two classes the second stands for both.
        ranked = classes[1:] if max(train_labels.max(), labels.max()) == 1 else classes
        train_areas = _areas(train_values, train_labels, ranked, np.ones((1, len(train_labels))))
        rises = train_areas[0] >= 0.5
        resamples = draw_resamples(
            len(labels), groups=test.groups, labels=labels, num_samples=num_samples, seed=seed
        )
        area = _directed(_areas(values, labels, ranked, np.ones((1, len(labels)))), rises)
        resampled = np.concatenate(
            [
                _directed(_areas(values, labels, ranked, weights), rises)
                for weights in resamples.blocks()
            ]
        )
        if resamples.num_groups < 2:
            resampled[:] = np.nan
        baselines[name] = Baseline(
            auroc=interval(
                float(area[0]),
                resampled,
                confidence=confidence,
                num_redrawn=resamples.num_redrawn,
            ),
            train_auroc=float(_directed(train_areas, rises)[0]),
            rises_with_class=tuple(bool(rise) for rise in rises),
        )
    return baselines


def _areas(values: Floats, labels: Integers, classes: Integers, weights: Floats) -> Floats:
    """Compute the AUROC of each class against the rest, as `(resamples, classes)`."""
    return np.stack([weighted_auroc(values, labels == k, weights) for k in classes], axis=1)


def _directed(areas: Floats, rises: npt.NDArray[np.bool_]) -> Floats:
    """Turn the areas of falling features round, and average over the classes."""
    average: Floats = np.where(rises, areas, 1 - areas).mean(axis=1)
    return average


def _checked(features: TrivialFeatures, name: str, *, split: str) -> tuple[Floats, Integers]:
    labels = np.asarray(features.labels)
    values = np.asarray(getattr(features, name), dtype=np.float64)
    if labels.ndim != 1 or values.shape != labels.shape or not np.isfinite(values).all():
        raise DataError(
            f"{name} of the {split} cases has the shape {values.shape} with "
            f"{np.sum(~np.isfinite(values))} values that are not finite, but one finite number for "
            f"each of the labels {labels.shape} is needed."
        )
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"The {split} cases are all of one class, so nothing can rank them. "
            "Give cases of at least 2 classes."
        )
    return values, labels.astype(np.int64)
