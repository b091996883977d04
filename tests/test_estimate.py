"""One place, a radius and a confidence out of ranked candidates."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene_helpers import candidate
from skylink.estimate import CALIBRATIONS, ELSEWHERE_M, Placed, place
from skylink.types import CameraPose, Candidate

CELL_M, TILE_M = 11.0, 160.0


def placed(candidates: list[Candidate], scorer: str = "dense") -> Placed:
    return place(candidates, scorer=scorer, cell_m=CELL_M, tile_m=TILE_M)


def here_and_there(score: float, lead: float, away_m: float = 500.0) -> list[Candidate]:
    return [candidate(score=score), candidate(score=score - lead, east_m=away_m)]


def test_the_place_is_the_first_candidate() -> None:
    first = candidate(score=0.3, east_m=40.0, north_m=-7.0)
    result = placed([first, candidate(score=0.2)])
    assert (result.lon, result.lat) == (first.lon, first.lat)


@given(
    score=st.floats(-1e6, 1e6), lead=st.floats(-1e6, 1e6), scorer=st.sampled_from([*CALIBRATIONS])
)
def test_confidence_is_a_share(score: float, lead: float, scorer: str) -> None:
    result = placed(here_and_there(score, lead), scorer)
    assert 0 <= result.confidence <= 1
    assert math.isfinite(result.radius_m)
    assert result.radius_m > 0


@given(
    scorer=st.sampled_from([*CALIBRATIONS]),
    score=st.floats(0, 0.5),
    lead=st.floats(0, 0.2),
    more=st.floats(0.01, 0.2),
)
def test_confidence_grows_with_score_and_with_lead(
    scorer: str, score: float, lead: float, more: float
) -> None:
    one = placed(here_and_there(score, lead), scorer).confidence
    assert placed(here_and_there(score + more, lead), scorer).confidence > one
    assert placed(here_and_there(score, lead + more), scorer).confidence > one
    moved = placed(here_and_there(score, -lead - more), scorer).confidence  # re-ranked past it
    assert moved < one


def test_confidence_by_hand() -> None:
    c = CALIBRATIONS["dense"]
    logit = c.bias + c.score * 0.2 + c.lead * 0.05
    assert placed(here_and_there(0.2, 0.05)).confidence == pytest.approx(1 / (1 + math.exp(-logit)))
    assert placed(here_and_there(0.2, 0.05), "new").confidence == (
        placed(here_and_there(0.2, 0.05), "descriptor").confidence
    )


def test_the_lead_is_over_places_elsewhere() -> None:
    """Overlapping candidates of one place don't take its lead away."""
    near = candidate(score=0.29, east_m=0.9 * ELSEWHERE_M)
    far = candidate(score=0.1, east_m=500)
    with_near = placed([candidate(score=0.3), near, far])
    assert with_near.confidence == placed([candidate(score=0.3), far]).confidence
    beyond = dataclasses.replace(candidate(score=0.29, east_m=1.1 * ELSEWHERE_M))
    assert placed([candidate(score=0.3), beyond, far]).confidence < with_near.confidence


def test_one_candidate_has_no_lead() -> None:
    alone = placed([candidate(score=0.3)])
    assert alone.confidence == placed(here_and_there(0.3, 0.0)).confidence


def test_the_radius_grows_where_others_elsewhere_are_as_good() -> None:
    sure = [candidate(score=0.4), *(candidate(score=0.1, east_m=300.0 * i) for i in (1, 2, 3))]
    tied = [candidate(score=0.4), *(candidate(score=0.4, east_m=300.0 * i) for i in (1, 2, 3))]
    half = [candidate(score=0.4), *(candidate(score=0.393, east_m=300.0 * i) for i in (1, 2, 3))]
    small, large = placed(sure).radius_m, placed(tied).radius_m
    assert small < 25
    assert large == pytest.approx(300, rel=1e-3)  # two of four hold half
    assert placed(half).radius_m == pytest.approx(300, rel=1e-3)
    near = [candidate(score=0.4), *(candidate(score=0.4, east_m=3.0 * i) for i in (1, 2, 3))]
    assert placed(near).radius_m == small  # the same place


@given(tie=st.floats(0, 0.3))
def test_the_radius_never_shrinks_as_the_others_get_better(tie: float) -> None:
    def with_others(score: float) -> float:
        others = [candidate(score=score, east_m=200.0 * i) for i in range(1, 6)]
        return placed([candidate(score=0.3), *others]).radius_m

    assert with_others(tie) <= with_others(0.3)


def test_the_radius_knows_tiles_and_obliqueness() -> None:
    pose = CameraPose(altitude_m=120, heading_deg=0, tilt_deg=0, hfov_deg=70)
    dense, tile = candidate(pose=pose), candidate(pose=pose, name="a0-l0-r3-c4")
    assert placed([tile]).radius_m > placed([dense]).radius_m + 10
    tilted = dataclasses.replace(dense, pose=dataclasses.replace(pose, tilt_deg=60))
    assert placed([tilted]).radius_m > placed([dense]).radius_m + 5
    assert placed([dataclasses.replace(dense, pose=None)]).radius_m == placed([dense]).radius_m


@pytest.mark.parametrize(("east_m", "one_place"), [(40.0, True), (400.0, False)])
def test_across_the_antimeridian(east_m: float, one_place: bool) -> None:
    """Candidates 40 m apart on both sides are one place; 400 m apart they are not."""

    def at(east: float, score: float) -> Candidate:
        return candidate(lon=179.9999, lat=-16.5, east_m=east, score=score)

    first, others = at(0, 0.3), [at(east_m, 0.3) for _ in range(3)]
    assert first.lon > 179
    assert all(c.lon < -179 for c in others)
    result = placed([first, *others])
    assert result.radius_m == pytest.approx(east_m, rel=1e-3)  # three of four are there
    low = [first, *others, at(5000, 0.0)]
    assert (placed(low).confidence > result.confidence) is one_place
