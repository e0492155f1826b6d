"""The order of samples in an epoch, their random numbers, and loaders that resume in the middle.

Everything random about a sample follows from (seed, epoch, index): a batch sampler yields
`(epoch, index)` pairs, so worker processes hold no state, and an interrupted epoch goes on with
the batches that are left.
"""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64
from torch.utils.data import DataLoader, Dataset

from voxlift.core.errors import ConfigError, DataError, VoxliftError
from voxlift.core.randomness import derive_seed, numpy_generator, torch_generator

Batch = TypeVar("Batch")
Pair = tuple[int, int]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def sample_uniforms(
    seed: int, *, epoch: int, indices: npt.ArrayLike, num_draws: int, purpose: str = "augment"
) -> Float64[np.ndarray, "samples draws"]:
    """Draw uniform numbers in [0, 1) that depend on seed, epoch and sample index alone.

    A counter is hashed instead of seeding a generator for every sample: some nanoseconds a number.

    Args:
        seed: The run's seed.
        epoch: The epoch that the samples are drawn in.
        indices: Indices of the samples in their data set.
        num_draws: How many numbers each sample needs.
        purpose: Names the use, so that two uses of the same sample are independent.

    Shape:
        `(samples,)` -> `(samples, num_draws)`.

    Source:
        The finaliser of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
        generators", OOPSLA 2014.
    """
    key = np.uint64(derive_seed(seed, purpose, epoch))
    samples = np.asarray(indices, dtype=np.uint64)[:, None]
    draws = np.arange(1, num_draws + 1, dtype=np.uint64)[None, :]
    mixed = _mix(_mix(key + samples * _GOLDEN) + draws * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


class EpochBatchSampler:
    """Yield batches of `(epoch, index)` pairs in an order that seed and epoch determine.

    Args:
        samples: Number of samples, or one weight a sample: as many samples as there are weights
            are then drawn with replacement, each as often as its weight asks.
        batch_size: Samples in a batch, on each rank.
        shuffle: Whether to put the samples in a new random order each epoch. Weighted samples are
            always in random order.
        seed: The run's seed.
        drop_last: Whether to leave out a last batch that is not full.
        rank: Number of this process in distributed training.
        world_size: Number of processes. Every rank gets equally many samples: the first ones are
            repeated, or with `drop_last` the last ones left out, where the number does not divide.

    Raises:
        ConfigError: If a size or rank is out of range.
        DataError: If there is no sample, no full batch, or no usable weight.
    """

    def __init__(
        self,
        samples: int | Sequence[float] | npt.NDArray[np.floating],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; give 1 or more with --batch-size.")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank is {rank} of {world_size} processes; it counts from 0.")
        self._probabilities = None if isinstance(samples, int) else _normalised(samples)
        self.num_samples = samples if isinstance(samples, int) else len(samples)
        if self.num_samples < 1:
            raise DataError("There are no samples to load: the data set or the split is empty.")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        if len(self) == 0:
            raise DataError(
                f"{self.num_samples} samples on {world_size} processes do not fill one batch of "
                f"{batch_size}. Choose a smaller --batch-size."
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self.epoch = epoch

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return this rank's sample indices in the order of one epoch."""
        generator = numpy_generator(self.seed, "order", epoch)
        if self._probabilities is not None:
            order = generator.choice(self.num_samples, self.num_samples, p=self._probabilities)
        elif self.shuffle:
            order = generator.permutation(self.num_samples)
        else:
            order = np.arange(self.num_samples)
        return np.resize(order, self._num_on_rank * self.world_size)[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[list[Pair]]:
        epoch = self.epoch
        order = self.order(epoch)
        for number in range(len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(epoch, index) for index in batch.tolist()]

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        if self.drop_last:
            return self._num_on_rank // self.batch_size
        return math.ceil(self._num_on_rank / self.batch_size)

    @property
    def _num_on_rank(self) -> int:
        if self.drop_last:
            return self.num_samples // self.world_size
        return math.ceil(self.num_samples / self.world_size)


def _normalised(
    weights: Sequence[float] | npt.NDArray[np.floating],
) -> npt.NDArray[np.float64]:
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any() or array.sum() == 0:
        raise DataError(
            "Sample weights must be one finite number of 0 or more a sample, not all 0; got "
            f"shape {array.shape}, sum {array.sum()}."
        )
    probabilities: npt.NDArray[np.float64] = array / array.sum()
    return probabilities


class PairDataset(Protocol):
    """A data set whose samples are asked for by `(epoch, index)`.

    One that also has `__getitems__(pairs)` is asked for a whole batch at once.
    """

    def __getitem__(self, pair: Pair, /) -> Any: ...


class ResumableLoader(Generic[Batch]):
    """Load the batches of one epoch at a time, from its middle too.

    Lightning's protocol for stateful loaders is kept: `state_dict` counts the batches handed out
    in the current epoch, and after `load_state_dict` the next iteration, once, begins behind them.
    `len()` always counts the whole epoch. Epoch and position are read when the first batch is asked
    for, not when the iterator is made, for Lightning makes iterators before it sets the epoch.

    Args:
        dataset: The samples, asked for by `(epoch, index)`.
        batch_sampler: The order.
        workers: Number of worker processes; 0 loads in this process. The batches are the same.
        collate_fn: Makes one batch of what the data set returned.
    """

    def __init__(
        self,
        dataset: PairDataset,
        batch_sampler: EpochBatchSampler,
        *,
        workers: int = 0,
        collate_fn: Callable[[Any], Batch],
    ) -> None:
        if workers < 0:
            raise ConfigError(f"workers is {workers}; give 0 or more with --workers.")
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        self.workers = workers
        self._fetch = _Fetch(dataset, collate_fn)
        self._position = 0
        self._resume_at: tuple[int, int] | None = None

    @property
    def sampler(self) -> EpochBatchSampler:
        """The object whose `set_epoch` Lightning calls at the start of an epoch."""
        return self.batch_sampler

    @property
    def epoch(self) -> int:
        """The epoch that is being loaded, or comes next."""
        return self.batch_sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration loads."""
        self.batch_sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches have been handed out."""
        if self._resume_at is not None:
            return {"epoch": self._resume_at[0], "batches": self._resume_at[1]}
        return {"epoch": self.epoch, "batches": self._position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Make the next iteration begin where `state_dict` was taken.

        Raises:
            ConfigError: If the epoch has fewer batches than were handed out.
        """
        epoch, batches = state_dict["epoch"], state_dict["batches"]
        if not 0 <= batches <= len(self):
            raise ConfigError(
                f"The saved run had loaded {batches} batches of epoch {epoch}, but an epoch has "
                f"{len(self)} now. Resume with the data and --batch-size of the saved run."
            )
        self._resume_at = (epoch, batches)
        self.set_epoch(epoch)

    def __len__(self) -> int:
        """Count the batches of a whole epoch."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing below runs before the first batch is asked for.
        epoch = self.epoch
        start = 0
        if self._resume_at is not None and self._resume_at[0] == epoch:
            start = self._resume_at[1]
        self._resume_at = None
        self._position = start
        batches: DataLoader[Any] = DataLoader(
            self._fetch,
            batch_sampler=_Remaining(self.batch_sampler, start),
            num_workers=self.workers,
            collate_fn=_unchanged,
            worker_init_fn=_ignore_signals,
            pin_memory=torch.cuda.is_available(),
            # An own generator, so that loading leaves the global random state alone.
            generator=torch_generator(self.batch_sampler.seed, "workers", epoch),
        )
        for batch in batches:
            if isinstance(batch, _Failure):
                raise batch.error
            self._position += 1
            yield batch


class _Remaining:
    """The batches of the sampler's epoch from `start` on."""

    def __init__(self, batch_sampler: EpochBatchSampler, start: int) -> None:
        self._batch_sampler = batch_sampler
        self._start = start

    def __iter__(self) -> Iterator[list[Pair]]:
        return islice(iter(self._batch_sampler), self._start, None)

    def __len__(self) -> int:
        return len(self._batch_sampler) - self._start


@dataclass(frozen=True)
class _Failure:
    """An error of ours on its way out of a worker, which would else turn it into a traceback."""

    error: VoxliftError


class _Fetch(Dataset[Any]):
    """Make whole batches, wherever the loader runs."""

    def __init__(self, dataset: PairDataset, collate_fn: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._collate_fn = collate_fn

    def __getitems__(self, pairs: list[Pair]) -> object:
        try:
            whole_batch = getattr(self._dataset, "__getitems__", None)
            samples = whole_batch(pairs) if whole_batch else [self._dataset[p] for p in pairs]
            return self._collate_fn(samples)
        except VoxliftError as error:
            return _Failure(error)

    def __getitem__(self, pair: Pair) -> object:
        return self.__getitems__([pair])


def _ignore_signals(worker: int) -> None:
    """Leave it to the main process when to stop; a signal may reach its workers too."""
    del worker
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    return batch
