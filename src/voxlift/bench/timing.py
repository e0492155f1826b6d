"""Timing several things in turns, so that a busy moment of the machine hits them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict, Field


class TimingBudget(BaseModel):
    """How long to measure.

    Args:
        num_warmup: Untimed calls of each contestant, at least one.
        num_rounds: Timed rounds; in each round every contestant has its turn.
        min_rounds: Rounds that are timed even if `seconds` have passed.
        seconds: No new round is begun after this many seconds of timed rounds.
        turn_seconds: A turn is as many calls as last about this long, at least one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_warmup: int = Field(default=2, ge=1)
    num_rounds: int = Field(default=9, ge=1)
    min_rounds: int = Field(default=3, ge=1)
    seconds: float = Field(default=45.0, ge=0)
    turn_seconds: float = Field(default=0.1, ge=0)


def _nothing_to_wait_for() -> None:
    pass


def time_in_turns(
    contestants: Mapping[str, Callable[[], object]],
    *,
    budget: TimingBudget,
    synchronize: Callable[[], object] = _nothing_to_wait_for,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Measure the median seconds that one call of each contestant takes.

    The order of turns is rotated from round to round, for the first one in a round may find the
    machine in another state than the last.

    Args:
        contestants: What to call, by name.
        budget: How long to measure.
        synchronize: Waits until the device has done what it was asked for, before and after a turn.
        clock: Tells the time in seconds.
    """
    names = list(contestants)
    num_calls = {
        name: _calls_in_a_turn(contestants[name], budget, synchronize, clock) for name in names
    }
    seconds: dict[str, list[float]] = {name: [] for name in names}
    started = clock()
    for number in range(budget.num_rounds):
        if number >= budget.min_rounds and clock() - started >= budget.seconds:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turn = _time_turn(contestants[name], num_calls[name], synchronize, clock)
            seconds[name].append(turn / num_calls[name])
    return {name: statistics.median(values) for name, values in seconds.items()}


def _calls_in_a_turn(
    contestant: Callable[[], object],
    budget: TimingBudget,
    synchronize: Callable[[], object],
    clock: Callable[[], float],
) -> int:
    """Warm a contestant up; the last warm-up call tells how many calls fill a turn."""
    for _ in range(budget.num_warmup - 1):
        contestant()
    seconds = _time_turn(contestant, 1, synchronize, clock)
    return max(1, math.ceil(budget.turn_seconds / seconds)) if seconds > 0 else 1


def _time_turn(
    contestant: Callable[[], object],
    num_calls: int,
    synchronize: Callable[[], object],
    clock: Callable[[], float],
) -> float:
    synchronize()
    begin = clock()
    for _ in range(num_calls):
        contestant()
    synchronize()
    return clock() - begin
