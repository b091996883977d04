"""A time budget, by a clock that a test turns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylink.budget import TimeBudget
from skylink.errors import OptionError


class Clock:
    """Stands still until it is told."""

    def __init__(self, now: float = 50.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def steps_taken(budget: TimeBudget, clock: Clock, steps: Sequence[float]) -> int:
    for count, seconds in enumerate(steps):
        if not budget.allows():
            return count
        clock.now += seconds
    return len(steps)


@pytest.mark.parametrize("seconds", [None, math.inf])
def test_no_limit(seconds: float | None) -> None:
    clock = Clock()
    budget = TimeBudget(seconds, clock)
    assert steps_taken(budget, clock, [1e9] * 5) == 5
    assert not budget.cut


def test_a_step_that_would_end_late_is_not_begun() -> None:
    clock = Clock()
    budget = TimeBudget(10.0, clock)
    assert steps_taken(budget, clock, [3.0] * 9) == 3  # a fourth would end at 12
    assert budget.cut
    assert budget.elapsed_s == 9.0
    assert not budget.allows()


def test_the_longest_step_counts_not_the_last() -> None:
    clock = Clock()
    assert steps_taken(TimeBudget(10.0, clock), clock, [4.0, 1.0, 1.0, 1.0, 1.0]) == 4


def test_a_share() -> None:
    clock = Clock()
    budget = TimeBudget(10.0, clock)
    clock.now += 6.0
    assert not budget.allows(0.5)
    assert budget.allows()
    assert budget.cut  # it was refused once


def test_time_paused_is_not_counted() -> None:
    clock = Clock()
    budget = TimeBudget(10.0, clock)
    assert budget.allows()
    clock.now += 2.0
    with budget.paused():
        clock.now += 1000.0
    assert budget.elapsed_s == 2.0
    assert budget.allows()  # and no step of 1002 s was seen


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_budgets_that_are_none(seconds: float) -> None:
    with pytest.raises(OptionError, match="not positive") as caught:
        TimeBudget(seconds)
    assert "seconds" in (caught.value.hint or "")


@given(seconds=st.floats(0.01, 100), steps=st.lists(st.floats(0.001, 10), min_size=1, max_size=40))
def test_steps_that_do_not_grow_end_in_time(seconds: float, steps: list[float]) -> None:
    clock = Clock(0.0)
    taken = steps_taken(TimeBudget(seconds, clock), clock, sorted(steps, reverse=True))
    assert taken >= 1
    assert clock.now <= max(seconds, max(steps)) * (1 + 1e-9)
