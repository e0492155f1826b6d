from collections.abc import Callable

import pytest

from voxlift.bench.timing import TimingBudget, time_in_turns


class FakeMachine:
    """A clock that contestants move, and a diary of who had a turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.diary: list[str] = []

    def contestant(self, name: str, *seconds: float) -> Callable[[], None]:
        """Take each of `seconds` in turn, then the last one for ever."""
        left = list(seconds)

        def call() -> None:
            self.diary.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call

    def clock(self) -> float:
        return self.now


def test_medians_leave_out_the_warm_up_and_the_odd_slow_call() -> None:
    machine = FakeMachine()
    contestants = {
        "slow start": machine.contestant("slow start", 60.0, 1.0, 2.0, 9.0, 3.0, 2.0, 2.0),
        "steady": machine.contestant("steady", 4.0),
    }
    budget = TimingBudget(num_warmup=2, num_rounds=5, seconds=1e6)
    medians = time_in_turns(contestants, budget=budget, clock=machine.clock)
    assert medians == pytest.approx({"slow start": 2.0, "steady": 4.0})


def test_turns_are_taken_in_an_order_that_rotates() -> None:
    machine = FakeMachine()
    contestants = {name: machine.contestant(name, 1.0) for name in "abc"}
    budget = TimingBudget(num_warmup=1, num_rounds=4, seconds=1e6)
    time_in_turns(contestants, budget=budget, clock=machine.clock)
    assert "".join(machine.diary) == "abc" + "abc" + "bca" + "cab" + "abc"


def test_short_calls_are_repeated_until_a_turn_can_be_measured() -> None:
    machine = FakeMachine()
    contestants = {
        "short": machine.contestant("short", 0.25),
        "long": machine.contestant("long", 3),
    }
    budget = TimingBudget(num_warmup=1, num_rounds=2, turn_seconds=1.0, seconds=1e6)
    medians = time_in_turns(contestants, budget=budget, clock=machine.clock)
    assert medians == pytest.approx({"short": 0.25, "long": 3.0})
    assert machine.diary.count("short") == 1 + 2 * 4
    assert machine.diary.count("long") == 1 + 2


def test_no_round_is_begun_once_the_time_is_up_but_the_fewest_are_timed() -> None:
    machine = FakeMachine()
    contestants = {"a": machine.contestant("a", 10.0)}
    budget = TimingBudget(num_warmup=1, num_rounds=9, min_rounds=2, seconds=25.0)
    time_in_turns(contestants, budget=budget, clock=machine.clock)
    assert len(machine.diary) == 1 + 3
    budget = TimingBudget(num_warmup=1, num_rounds=9, min_rounds=2, seconds=0.0)
    time_in_turns(contestants, budget=budget, clock=machine.clock)
    assert len(machine.diary) == 4 + 1 + 2


def test_what_a_device_has_still_to_do_is_waited_for() -> None:
    machine = FakeMachine()
    asked: list[float] = []

    def wait() -> None:
        machine.now += sum(asked)
        asked.clear()

    medians = time_in_turns(
        {"queued": lambda: asked.append(2.0)},
        budget=TimingBudget(num_warmup=1, num_rounds=3),
        synchronize=wait,
        clock=machine.clock,
    )
    assert medians == {"queued": pytest.approx(2.0)}
