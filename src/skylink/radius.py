"""The radius that holds a given share of similar estimates, from a mixture of three.

    right            error around the place found: the length of a 2-D normal (Rayleigh)
    wrong, listed    the right place is one of the other candidates
    wrong, unlisted  it is anywhere within the map's extent, evenly

The radius for a share q is where the mass inside reaches q. While the estimate is more often right
than q, it stays near the local error; where it is not, the radius has to reach other candidates,
and then the map's far corner. It says so rather than look precise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEDIAN = math.sqrt(2 * math.log(2))
"""Median of a Rayleigh distribution in units of its sigma."""

STEPS = 60
"""Halvings of the interval that holds the radius: to below a micrometre on any map."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """See the module.

    Attributes:
        confidence: 0..1, that the place found is right.
        local_m: median error if it is right, metres, > 0.
        away_m: (N,) distance of each other candidate from the place found, metres.
        weights: (N,) their shares of `listed`, which sum to 1; both empty: there are none.
        listed: 0..1, how often one of them is right where the place found is wrong.
        extent_m: how far the place could be at the most, metres, > 0.
    """

    confidence: float
    local_m: float
    away_m: NDArray[np.float64]
    weights: NDArray[np.float64]
    listed: float
    extent_m: float

    def within(self, radius_m: float) -> float:
        """0..1: the mass within a radius around the place found; grows with it."""
        sigma = self.local_m / MEDIAN
        right = -math.expm1(-0.5 * (radius_m / sigma) ** 2)
        anywhere = min(1.0, radius_m / self.extent_m) ** 2
        listed = self.listed if len(self.away_m) else 0.0
        others = float(self.weights[self.away_m <= radius_m].sum()) if listed else 0.0
        wrong = listed * min(1.0, others) + (1 - listed) * anywhere
        return self.confidence * right + (1 - self.confidence) * wrong

    def radius_m(self, share: float) -> float:
        """The least radius that holds `share` (0 < share < 1) of the mass, metres.

        It is at most the farthest of the extent, the other candidates and what the local error
        needs by itself, and never less than the local error needs for that share.
        """
        low = self.local_m / MEDIAN * math.sqrt(-2 * math.log1p(-share))
        high = max(low, self.extent_m, float(self.away_m.max(initial=0.0)))
        if self.within(high) < share:  # what is missing is the local tail beyond a small extent
            return high
        for _ in range(STEPS):
            if high - low <= 1e-6 * high:
                break
            middle = (low + high) / 2
            low, high = (low, middle) if self.within(middle) >= share else (middle, high)
        return high
