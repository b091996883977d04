"""From ranked candidates to one place with a radius and a confidence. docs/estimate.md explains.

confidence: a logistic model of the best candidate's score and of its lead over the best candidate
    elsewhere, one set of coefficients a scorer, fitted by benchmarks/calibration.py on generated
    towns (photos on their own map, and on another town's).
radius: half of similar estimates lie within it. Near the right place the error is made of the
    feature cell, of relief under an oblique camera and of the map's own georeference; where other
    places are nearly as good, it grows to hold half of the candidates' probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skylink.geo import distance_m
from skylink.types import Candidate

ELSEWHERE_M = 60.0
"""Candidates nearer than this to the best one are the same place for lead and probability."""

GEOREFERENCE_M = 12.0
"""Typical error of a satellite base map's own georeference."""

RELIEF = 0.12
"""Relief under the view as a share of the forward ground distance: what altitude over take-off
leaves open (RELIEF_FACTORS in hypotheses.py)."""


@dataclass(frozen=True)
class Calibration:
    """Logistic model of "right within 50 m", for one scorer.

    confidence = 1 / (1 + exp(-(bias + score * s + lead * d))), s the best score, d its lead;
    temperature: of the softmax that makes candidates' scores into probabilities.
    """

    bias: float
    score: float
    lead: float
    temperature: float


CALIBRATIONS = {
    "dense": Calibration(bias=-6.12, score=21.7, lead=30.9, temperature=0.012),
    "descriptor": Calibration(bias=-5.83, score=5.69, lead=32.7, temperature=0.03),
    "re-ranked by dense": Calibration(bias=-4.40, score=16.0, lead=23.1, temperature=0.012),
    "re-ranked by matching": Calibration(bias=-3.32, score=0.144, lead=0.0777, temperature=3.0),
}
"""By what decided the order: the retriever, or the re-ranker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A place in numbers: see `types.Estimate`."""

    lon: float
    lat: float
    radius_m: float
    confidence: float


def place(candidates: Sequence[Candidate], *, scorer: str, cell_m: float, tile_m: float) -> Placed:
    """The estimate that ranked candidates make.

    Args:
        candidates: best first, at least one.
        scorer: whose scores the candidates have: a key of CALIBRATIONS; another retriever's count
            as `descriptor`, cosines.
        cell_m: resolution of a candidate with sub-cell position, metres.
        tile_m: side of a tile; a tile candidate's centre is good to about a stride.
    """
    best = candidates[0]
    calibration = CALIBRATIONS.get(scorer, CALIBRATIONS["descriptor"])
    scores = np.array([c.score for c in candidates], dtype=np.float64)
    lead = lead_of(candidates)
    logit = calibration.bias + calibration.score * float(scores[0]) + calibration.lead * lead
    confidence = 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))
    near = tile_m / 5 if best.id.startswith("a") else cell_m / 2
    forward = best.pose.forward_m if best.pose else 0.0
    local = math.sqrt(near**2 + GEOREFERENCE_M**2 + (RELIEF * forward) ** 2)
    radius = max(local, _half_mass_m(scores, _away_m(candidates), calibration.temperature))
    return Placed(lon=best.lon, lat=best.lat, radius_m=radius, confidence=confidence)


def lead_of(candidates: Sequence[Candidate]) -> float:
    """The best score less the best one elsewhere (beyond ELSEWHERE_M); 0 if there is none."""
    elsewhere = [
        c.score for c, m in zip(candidates, _away_m(candidates), strict=True) if m > ELSEWHERE_M
    ]
    return candidates[0].score - max(elsewhere) if elsewhere else 0.0


def _away_m(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Geodesic distance of each candidate to the first, metres."""
    lon, lat = [c.lon for c in candidates], [c.lat for c in candidates]
    return distance_m(lon1=lon[0], lat1=lat[0], lon2=lon, lat2=lat)


def _half_mass_m(
    scores: NDArray[np.float64], away_m: NDArray[np.float64], temperature: float
) -> float:
    """Radius around the best candidate that holds half of the candidates' probability."""
    weights = np.exp((scores - scores.max()) / temperature)
    weights /= weights.sum()
    order = np.argsort(away_m, kind="stable")
    reached = int(np.searchsorted(np.cumsum(weights[order]), 0.5))
    return float(away_m[order][min(reached, len(order) - 1)])
