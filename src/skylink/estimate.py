"""From ranked candidates to one place with radii and a confidence. docs/estimate.md explains.

confidence: a logistic model of the best candidate's score and of its relative lead over the best
    one elsewhere (calibration.py).
radii: half, and nine in ten, of similar estimates lie within them (radius.py). Near the right place
    the error is made of the feature cell, of relief under an oblique camera and of the map's own
    georeference; as far as the place may be wrong, the radii reach for the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skylink.calibration import Coefficients, calibration
from skylink.geo import distance_m
from skylink.radius import Mixture
from skylink.types import Candidate

ELSEWHERE_M = 60.0
"""Candidates nearer than this to the best one are the same place for lead and probability."""

GEOREFERENCE_M = 12.0
"""Typical error of a satellite base map's own georeference."""

RELIEF = 0.12
"""Relief under the view as a share of the forward ground distance: what altitude over take-off
leaves open (RELIEF_FACTORS in hypotheses.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A place in numbers: see `types.Estimate`."""

    lon: float
    lat: float
    radius_m: float
    radius_90_m: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What confidence and radii are computed from.

    Attributes:
        score: the best candidate's.
        lead: its relative lead over the best place elsewhere, -2..2.
        local_m: median error expected if the place is right, metres.
        scores, away_m: (N,) of the candidates elsewhere; distance from the best, metres.
        extent_m: how far from the best candidate the place could be at the most, metres.
    """

    score: float
    lead: float
    local_m: float
    scores: NDArray[np.float64]
    away_m: NDArray[np.float64]
    extent_m: float

    def confidence(self, by: Coefficients) -> float:
        """0..1 that the photo shows this map and the best candidate is right."""
        return by.confidence(score=self.score, lead=self.lead)

    def mixture(self, by: Coefficients) -> Mixture:
        """Where the place may be, for radii."""
        weights = np.exp((self.scores - self.scores.max(initial=-math.inf)) / by.temperature)
        return Mixture(
            confidence=self.confidence(by),
            local_m=by.local * self.local_m,
            away_m=self.away_m,
            weights=weights / weights.sum() if len(weights) else weights,
            listed=by.listed,
            extent_m=self.extent_m,
        )


def place(
    candidates: Sequence[Candidate],
    *,
    scorer: str,
    aligned: bool,
    cell_m: float,
    tile_m: float,
    extent_m: float,
    within: Candidate | None = None,
) -> Placed:
    """The estimate that ranked candidates make.

    Args:
        candidates: best first, at least one.
        within: the first, a tile, with the place found within it (`skylink.refine`).
        scorer: whose scores the candidates have (`Calibration.of`).
        aligned: whether the whole camera pose was known.
        cell_m, tile_m, extent_m: as for `signs`.
    """
    by = calibration().of(scorer, aligned=aligned)
    seen = signs(candidates, cell_m=cell_m, tile_m=tile_m, extent_m=extent_m, within=within)
    mixture = seen.mixture(by)
    best = within or candidates[0]
    return Placed(
        lon=best.lon,
        lat=best.lat,
        radius_m=mixture.radius_m(0.5),
        radius_90_m=mixture.radius_m(0.9),
        confidence=mixture.confidence,
    )


def signs(
    candidates: Sequence[Candidate],
    *,
    cell_m: float,
    tile_m: float,
    extent_m: float,
    within: Candidate | None = None,
) -> Signs:
    """What ranked candidates tell of themselves.

    Args:
        candidates: best first, at least one.
        cell_m: resolution of a candidate with sub-cell position, metres.
        tile_m: side of a tile; a tile candidate's centre is good to about a stride.
        extent_m: how far from the best candidate the place could be at the most, metres.
        within: as for `place`; its score is not looked at.
    """
    first = candidates[0]
    best = within or first
    away = distance_m(
        lon1=best.lon,
        lat1=best.lat,
        lon2=[c.lon for c in candidates],
        lat2=[c.lat for c in candidates],
    )
    elsewhere = away > ELSEWHERE_M
    elsewhere[0] = False
    scores = np.array([c.score for c in candidates], dtype=np.float64)[elsewhere]
    return Signs(
        score=first.score,
        lead=relative_lead(first.score, float(scores.max())) if len(scores) else 0.0,
        local_m=local_error_m(best, cell_m=cell_m, tile_m=tile_m, refined=within is not None),
        scores=scores,
        away_m=away[elsewhere],
        extent_m=max(extent_m, ELSEWHERE_M),
    )


def relative_lead(best: float, other: float) -> float:
    """(best - other) over the larger of the two in size: -2..2, whatever the scale of scores.

    It carries over from one encoder and one kind of imagery to another better than the plain
    difference, and it saturates: twice the runner-up is sure, and ten times is no surer.
    """
    larger = max(abs(best), abs(other))
    return (best - other) / larger if larger > 0 else 0.0


def local_error_m(best: Candidate, *, cell_m: float, tile_m: float, refined: bool = False) -> float:
    """Median distance from the truth that is expected of a candidate that is right, metres.

    Args:
        best: a pose, or a tile: its centre, or, `refined`, the place found within it.
        cell_m, tile_m: as for `signs`.
    """
    near_m = tile_m / 5 if best.id.startswith("a") and not refined else cell_m / 2
    forward = best.pose.forward_m if best.pose else 0.0
    return math.sqrt(near_m**2 + GEOREFERENCE_M**2 + (RELIEF * forward) ** 2)
