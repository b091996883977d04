"""How long a search may take, asked before each of its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skylink.errors import OptionError

Clock = Callable[[], float]


class TimeBudget:
    """Seconds for one photo, counted from construction; nothing is ever interrupted in the middle.

    A step is allowed if it would end in time, were it as long as the longest so far. So a search
    ends a little before its time rather than after it.

    Args:
        seconds: positive; None or infinity: no limit.
        clock: seconds that only ever grow.

    Raises:
        OptionError: seconds that are not positive.
    """

    def __init__(self, seconds: float | None = None, clock: Clock = time.perf_counter) -> None:
        if seconds is not None and not seconds > 0:
            raise OptionError(
                f"a time budget of {seconds:g} s is not positive",
                hint="give seconds for each photo, such as 1.5, or none for no limit",
            )
        self._seconds = math.inf if seconds is None else seconds
        self._clock = clock
        self._began = clock()
        self._step: float | None = None
        self._longest = 0.0
        self.cut = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens within is not counted."""
        at = self._clock()
        try:
            yield
        finally:
            self._began += self._clock() - at

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start that count."""
        return self._clock() - self._began

    def allows(self, share: float = 1.0) -> bool:
        """Whether another step may begin that is to end within this share of the budget.

        Call it before every step: it measures the one before. A refusal is remembered in `cut`.
        """
        if math.isinf(self._seconds):
            return True
        now = self.elapsed_s
        if self._step is not None:
            self._longest = max(self._longest, now - self._step)
        allowed = now + self._longest <= share * self._seconds
        self._step = now if allowed else None
        self.cut |= not allowed
        return allowed
