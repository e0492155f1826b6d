"""Bootstrap intervals that resample patients, for cases of one patient are not independent.

A resample draws as many groups as there are, with replacement, and takes all cases of each. It is
held as the number of times that each case occurs, so that statistics which can weigh their cases
are computed for many resamples at once (see `voxlift.metrics.weighted`).
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.randomness import numpy_generator

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# After this many draws for each resample wanted, the classes are too rare to be met by chance.
MAX_DRAWS_PER_SAMPLE = 50
# Weights are handed out in blocks of about this many numbers, to bound the memory.
BLOCK_ELEMENTS = 2_000_000


def _nan_to_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _none_to_nan(value: Any) -> Any:
    return math.nan if value is None else value


# A number that JSON can hold: NaN, for what is not defined, is written as null.
Number = Annotated[
    float,
    BeforeValidator(_none_to_nan),
    PlainSerializer(_nan_to_none, return_type=float | None),
]


class Interval(BaseModel):
    """A statistic and its bootstrap interval; NaN (null in JSON) is what cannot be computed.

    Attributes:
        value: The statistic of all cases.
        low: Lower end of the interval.
        high: Upper end of the interval.
        num_redrawn: Resamples that lacked a class and were drawn again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Number
    low: Number
    high: Number
    num_redrawn: int = 0

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not defined"
        if math.isnan(self.low):
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Resamples:
    """Resamples of groups, as the number of times each group occurs in each.

    Attributes:
        counts: Occurrences, one row a resample and one column a group.
        group_of_case: The column of each case's group.
        num_redrawn: Resamples that lacked a class and were drawn again.
        stratified: Whether the draws had to be made within strata to hold every class.
    """

    counts: npt.NDArray[np.int32]
    group_of_case: Integers
    num_redrawn: int
    stratified: bool

    @property
    def num_groups(self) -> int:
        """How many groups there are to draw from."""
        return int(self.counts.shape[1])

    def blocks(self) -> Iterator[Floats]:
        """Yield the weights of the cases, some resamples at a time.

        Shape:
            Each block is `(resamples, cases)`; the blocks' resamples add up to all.
        """
        rows = max(1, BLOCK_ELEMENTS // max(1, len(self.group_of_case)))
        for start in range(0, len(self.counts), rows):
            yield self.counts[start : start + rows, self.group_of_case].astype(np.float64)


def draw_resamples(
    num_cases: int,
    *,
    groups: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> Resamples:
    """Draw groups of cases with replacement, as many as there are.

    With `labels`, a resample that lacks one of the classes is drawn again, for no ranking can be
    judged on it. Where the classes are so rare that this seldom succeeds, all resamples are drawn
    within strata instead (the groups that hold the same set of classes), which keeps the number of
    groups in each; such intervals are somewhat too narrow, and a warning is logged.

    Args:
        num_cases: How many cases there are.
        groups: The group (patient) of each case; each case is its own group if left out.
        labels: The class of each case, if every class has to occur in every resample.
        num_samples: How many resamples to draw.
        seed: The run's seed.

    Raises:
        ConfigError: If `num_samples` is not positive.
        DataError: If `groups` or `labels` do not have one entry a case, or there is no case.
    """
    if num_samples < 1:
        raise ConfigError(f"num_samples is {num_samples}, but at least 1 resample is needed.")
    if num_cases < 1:
        raise DataError("There is no case to resample. Check that the split is not empty.")
    group_of_case = np.arange(num_cases)
    if groups is not None:
        group_of_case = _codes(groups, num_cases, "groups")
    num_groups = int(group_of_case.max()) + 1
    holds = np.ones((num_groups, 0), dtype=bool)
    if labels is not None:
        classes = _codes(labels, num_cases, "labels")
        holds = np.zeros((num_groups, int(classes.max()) + 1), dtype=bool)
        holds[group_of_case, classes] = True
    generator = numpy_generator(seed, "bootstrap")
    everything = np.zeros(num_groups, dtype=np.int64)
    kept: list[npt.NDArray[np.int32]] = []
    num_kept, num_drawn = 0, 0
    while num_kept < num_samples and num_drawn < MAX_DRAWS_PER_SAMPLE * num_samples:
        counts = _draw(generator, everything, num_samples)
        missing = np.count_nonzero(counts @ holds.astype(np.int32) == 0, axis=1)
        complete: npt.NDArray[np.bool_] = np.equal(missing, 0)
        # Only the draws up to the last one that is needed count as drawn.
        used = num_samples
        if num_kept + complete.sum() >= num_samples:
            used = int(np.flatnonzero(complete)[num_samples - num_kept - 1]) + 1
        kept.append(counts[:used][complete[:used]])
        num_kept += len(kept[-1])
        num_drawn += used
    num_redrawn = num_drawn - num_kept
    if num_kept == num_samples:
        return Resamples(np.concatenate(kept), group_of_case, num_redrawn, stratified=False)
    logger.warning(
        "Some class has so few patients that only %d of %d bootstrap resamples held every class; "
        "the resamples are drawn within classes instead, and their intervals are too narrow.",
        num_kept,
        num_drawn,
    )
    strata = np.unique(holds, axis=0, return_inverse=True)[1].reshape(-1)
    counts = _draw(generator, strata, num_samples)
    return Resamples(counts, group_of_case, num_redrawn, stratified=True)


def interval(
    value: float, resampled: Floats, *, confidence: float = 0.95, num_redrawn: int = 0
) -> Interval:
    """Make a percentile interval of a statistic's values over the resamples.

    Args:
        value: The statistic of all cases.
        resampled: The statistic of each resample.
        confidence: The interval's share of the resamples.
        num_redrawn: Resamples that were drawn again, to be passed on.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}, but has to lie between 0 and 1.")
    low, high = math.nan, math.nan
    if np.isfinite(resampled).all():
        tail = (1 - confidence) / 2
        low, high = (float(end) for end in np.quantile(resampled, [tail, 1 - tail]))
    return Interval(value=value, low=low, high=high, num_redrawn=num_redrawn)


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute any statistic with a percentile bootstrap interval over groups.

    With one group only there is nothing to resample, and the interval's ends are NaN.

    Args:
        statistic: Function of the arrays that returns a number.
        arrays: Arrays with one entry a case along the first axis.
        groups: The group (patient) of each case; each case is its own group if left out.
        labels: The class of each case, if every class has to occur in every resample; such a
            resample that lacks one is drawn again (see `draw_resamples`).
        num_samples: How many resamples to draw.
        confidence: The interval's share of the resamples.
        seed: The run's seed.

    Raises:
        DataError: If the arrays differ in length, or the statistic of a resample is not finite.
    """
    columns = [np.asarray(array) for array in arrays]
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise DataError(
            f"The arrays have {sorted(lengths)} entries, but need one entry a case, all alike."
        )
    num_cases = lengths.pop()
    resamples = draw_resamples(
        num_cases, groups=groups, labels=labels, num_samples=num_samples, seed=seed
    )
    value = float(statistic(*columns))
    if resamples.num_groups < 2:
        return Interval(value=value, low=math.nan, high=math.nan)
    resampled = np.empty(num_samples)
    for number, counts in enumerate(resamples.counts):
        cases = np.repeat(np.arange(num_cases), counts[resamples.group_of_case])
        resampled[number] = statistic(*(column[cases] for column in columns))
    if not np.isfinite(resampled).all():
        raise DataError(
            f"The statistic is not finite in {np.sum(~np.isfinite(resampled))} of {num_samples} "
            "resamples. If it needs every class in a resample, pass the classes as labels=."
        )
    return interval(value, resampled, confidence=confidence, num_redrawn=resamples.num_redrawn)


def _codes(values: npt.ArrayLike, num_cases: int, name: str) -> Integers:
    column = np.asarray(values)
    if column.shape != (num_cases,):
        raise DataError(
            f"{name} has the shape {column.shape}, but one entry for each of the {num_cases} cases "
            "is needed."
        )
    return np.unique(column, return_inverse=True)[1].astype(np.int64)


def _draw(
    generator: np.random.Generator, strata: Integers, num_samples: int
) -> npt.NDArray[np.int32]:
    """Draw groups with replacement within each stratum, and count how often each was drawn."""
    counts = np.zeros((num_samples, len(strata)), dtype=np.int32)
    for stratum in range(int(strata.max()) + 1):
        members = np.flatnonzero(strata == stratum)
        size = len(members)
        drawn = generator.integers(size, size=(num_samples, size))
        drawn += np.arange(num_samples)[:, None] * size
        counted = np.bincount(drawn.reshape(-1), minlength=num_samples * size)
        counts[:, members] = counted.reshape(num_samples, size)
    return counts
