"""One place, two radii and a confidence out of ranked candidates."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_helpers import candidate
from skylink.calibration import calibration
from skylink.estimate import (
    ELSEWHERE_M,
    Placed,
    Signs,
    local_error_m,
    place,
    relative_lead,
    signs,
)
from skylink.types import CameraPose, Candidate

CELL_M, TILE_M, EXTENT_M = 11.0, 160.0, 2000.0
SCORERS = [*calibration().scorers]
POSE = CameraPose(altitude_m=120, heading_deg=0, tilt_deg=0, hfov_deg=70)


def placed(
    candidates: list[Candidate],
    scorer: str = "dense",
    *,
    aligned: bool = True,
    extent_m: float = EXTENT_M,
) -> Placed:
    return place(
        candidates, scorer=scorer, aligned=aligned, cell_m=CELL_M, tile_m=TILE_M,
        extent_m=extent_m,
    )  # fmt: skip


def seen(candidates: list[Candidate]) -> Signs:
    return signs(candidates, cell_m=CELL_M, tile_m=TILE_M, extent_m=EXTENT_M)


def here_and_there(score: float, other: float, away_m: float = 500.0) -> list[Candidate]:
    return [candidate(score=score), candidate(score=other, east_m=away_m)]


def test_the_place_is_the_first_candidate() -> None:
    first = candidate(score=0.3, east_m=40.0, north_m=-7.0)
    result = placed([first, candidate(score=0.2)])
    assert (result.lon, result.lat) == (first.lon, first.lat)


@settings(deadline=None)  # the first geodesic call loads PROJ
@given(
    score=st.floats(-1e6, 1e6),
    other=st.floats(-1e6, 1e6),
    scorer=st.sampled_from(SCORERS),
    aligned=st.booleans(),
)
def test_confidence_is_a_share_and_radii_are_in_order(
    score: float, other: float, scorer: str, aligned: bool
) -> None:
    result = placed(here_and_there(score, other), scorer, aligned=aligned)
    assert 0 <= result.confidence <= 1
    assert 0 < result.radius_m <= result.radius_90_m <= EXTENT_M


@settings(deadline=None)
@given(
    scorer=st.sampled_from(SCORERS),
    score=st.floats(0.01, 0.5),
    other=st.floats(0.01, 0.5),
    more=st.floats(0, 0.2),
    aligned=st.booleans(),
)
def test_confidence_grows_with_the_score_and_falls_with_the_runner_up(
    scorer: str, score: float, other: float, more: float, aligned: bool
) -> None:
    def said(best: float, second: float) -> float:
        return placed(here_and_there(best, second), scorer, aligned=aligned).confidence

    assert said(score + more, other) >= said(score, other)
    assert said(score, other + more) <= said(score, other)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_the_relative_lead_has_no_scale(best: float, other: float, scale: float) -> None:
    lead = relative_lead(best, other)
    assert -2 <= lead <= 2
    assert relative_lead(other, best) == -lead
    if max(abs(best), abs(other)) > 1e-3:
        assert relative_lead(best * scale, other * scale) == pytest.approx(lead, abs=1e-9)


def test_the_relative_lead_by_hand() -> None:
    assert relative_lead(0.4, 0.1) == pytest.approx(0.75)
    assert relative_lead(0.1, 0.4) == pytest.approx(-0.75)  # re-ranked past it
    assert relative_lead(0.0, 0.0) == 0
    assert relative_lead(0.1, -0.1) == 2


def test_what_the_candidates_tell() -> None:
    pose = dataclasses.replace(POSE, tilt_deg=45)
    found = seen([candidate(score=0.3, pose=pose), candidate(score=0.29, east_m=10),
                  candidate(score=0.1, east_m=500), candidate(score=0.15, east_m=900)])  # fmt: skip
    assert (found.score, found.extent_m) == (0.3, EXTENT_M)
    assert found.lead == pytest.approx(0.5)
    assert found.scores.tolist() == [0.1, 0.15]
    assert found.away_m.tolist() == pytest.approx([500, 900], rel=1e-3)
    assert found.local_m == pytest.approx((5.5**2 + 12**2 + (0.12 * 120) ** 2) ** 0.5)


def test_confidence_is_that_of_the_calibration() -> None:
    candidates = here_and_there(0.2, 0.15)
    for aligned in (True, False):
        by = calibration().of("dense", aligned=aligned)
        expected = by.confidence(score=0.2, lead=0.25)
        assert placed(candidates, aligned=aligned).confidence == pytest.approx(expected)
    assert placed(candidates, "new") == placed(candidates, "descriptor")


def test_the_lead_is_over_places_elsewhere() -> None:
    """Overlapping candidates of one place don't take its lead away."""
    near = candidate(score=0.29, east_m=0.9 * ELSEWHERE_M)
    far = candidate(score=0.1, east_m=500)
    with_near = placed([candidate(score=0.3), near, far])
    assert with_near.confidence == placed([candidate(score=0.3), far]).confidence
    beyond = candidate(score=0.29, east_m=1.1 * ELSEWHERE_M)
    assert placed([candidate(score=0.3), beyond, far]).confidence < with_near.confidence


def test_one_candidate_has_no_lead() -> None:
    assert seen([candidate(score=0.3)]).lead == 0
    assert placed([candidate(score=0.3)]).confidence == (
        placed(here_and_there(0.3, 0.3)).confidence
    )


def test_a_sure_place_has_small_radii_and_a_guess_the_maps() -> None:
    sure = placed(here_and_there(0.6, 0.05))
    assert sure.radius_m < 25
    assert sure.radius_90_m < 60
    guess = placed(here_and_there(0.05, 0.05))
    assert guess.radius_m > 300
    assert guess.radius_90_m > 0.7 * EXTENT_M
    assert placed(here_and_there(0.05, 0.05), extent_m=800).radius_90_m <= 800


@settings(deadline=None)
@given(best=st.floats(0.05, 0.5), other=st.floats(0, 0.3), more=st.floats(0, 0.2))
def test_the_radii_never_shrink_as_the_others_get_better(
    best: float, other: float, more: float
) -> None:
    def with_others(score: float) -> Placed:
        others = [candidate(score=score, east_m=200.0 * i) for i in range(1, 6)]
        return placed([candidate(score=best), *others])

    less, better = with_others(other), with_others(other + more)
    assert less.radius_m <= better.radius_m * (1 + 1e-5)
    assert less.radius_90_m <= better.radius_90_m * (1 + 1e-5)


def test_the_local_error_knows_tiles_and_obliqueness() -> None:
    def error(**changes: object) -> float:
        made = dataclasses.replace(candidate(pose=POSE), **changes)
        return local_error_m(made, cell_m=CELL_M, tile_m=TILE_M)

    assert error(id="a0-l0-r3-c4") > error() + 10
    assert error(pose=dataclasses.replace(POSE, tilt_deg=60)) > error() + 5
    assert error(pose=None) == error()


def test_a_small_map_or_prior_is_never_below_one_place() -> None:
    assert seen([candidate()]).extent_m == EXTENT_M
    tiny = signs([candidate()], cell_m=CELL_M, tile_m=TILE_M, extent_m=5.0)
    assert tiny.extent_m == ELSEWHERE_M


@pytest.mark.parametrize(("east_m", "one_place"), [(40.0, True), (400.0, False)])
def test_across_the_antimeridian(east_m: float, one_place: bool) -> None:
    """Candidates 40 m apart on both sides are one place; 400 m apart they are not."""

    def at(east: float, score: float) -> Candidate:
        return candidate(lon=179.9999, lat=-16.5, east_m=east, score=score)

    first, others = at(0, 0.3), [at(east_m, 0.3) for _ in range(3)]
    assert first.lon > 179
    assert all(c.lon < -179 for c in others)
    found = seen([first, *others, at(5000, 0.0)])
    assert len(found.away_m) == (1 if one_place else 4)
    assert found.lead == (1 if one_place else 0)
