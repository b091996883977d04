"""What a challenging condition is: a name, five levels in a unit, and how a query is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skylink.types import Query

Kind = Literal["viewpoint", "light", "weather", "sensor"]
KINDS: tuple[Kind, ...] = ("viewpoint", "light", "weather", "sensor")

SEVERITIES = (1, 2, 3, 4, 5)

Change = Callable[[Query, float, np.random.Generator], Query]
"""(query, level, generator) -> changed query; the query itself where it can't be changed."""

ViewShift = Callable[[Query, float, np.random.Generator], tuple[float, float] | None]
"""(query, level, generator) -> (east, north) metres that the view point moves; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A controlled change of a query.

    Attributes:
        name: how options and results name it.
        kind: the group it belongs to.
        about: what happens to the photo or to its telemetry, in a sentence.
        measure: what a level says, such as "heading wrong by".
        unit: of the levels; "" where they are plain numbers.
        levels: the parameter at severities 1..5.
        apply: makes the changed query at a level. It never writes into the query's image, gives
            (H, W, 3) uint8 RGB of the same shape (a crop apart), draws only from the generator,
            and returns the query itself where there is nothing to change (a heading error where
            no heading is known).
        view_shift_m: only where the change moves the photo's centre to another ground point: by
            how much, from the same query, level and a generator in the same state.
    """

    name: str
    kind: Kind
    about: str
    measure: str
    unit: str
    levels: tuple[float, float, float, float, float]
    apply: Change
    view_shift_m: ViewShift | None = None

    def level(self, severity: int) -> float:
        """The parameter at a severity of 1..5."""
        return self.levels[severity - 1]

    def words(self, severity: int) -> str:
        """The level at a severity for people: "heading wrong by 20 degrees"."""
        return f"{self.measure} {self.level(severity):g} {self.unit}".rstrip()


def with_image(query: Query, image: NDArray[np.uint8]) -> Query:
    """The query with another picture; it has no file any more, so nobody reads the old one."""
    return replace(query, image=image, path=None)
